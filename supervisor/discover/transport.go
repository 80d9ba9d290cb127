package discover

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize     = 1232 // no fragments on common paths
	idleTimeout = 10 * time.Second
)

// A reply is a message that answers the question, from the right address and
// with the right number. Nothing else about it is certain.
type reply struct {
	msg    *dns.Msg
	server string
	via    string // "udp", "tcp", "tls", "https"
	sent   int    // messages sent for it
}

// An exchanger sends a question to one source and returns the answer.
type exchanger interface {
	exchange(ctx context.Context, q *dns.Msg) (reply, error)
	close()
}

func newExchanger(t target, caFile string) (exchanger, error) {
	tc := &tls.Config{ServerName: t.tlsName, MinVersion: tls.VersionTLS12}
	if caFile != "" && t.encrypted() {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate authorities: %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the certificate authorities: %s holds no PEM certificate", caFile)
		}
	}
	dial := func(network, addr string) *stream {
		return &stream{name: network + " " + addr, dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", addr)
			if err != nil || network != "tls" {
				return conn, err
			}
			sec := tls.Client(conn, tc)
			if err := sec.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			return sec, nil
		}}
	}
	switch t.scheme {
	case "system":
		return &datagram{servers: systemServers, tcp: dial}, nil
	case "udp", "server":
		return &datagram{servers: func() ([]string, error) { return []string{t.addr}, nil }, tcp: dial}, nil
	case "tcp", "tls":
		return &streamExchanger{stream: dial(t.scheme, t.addr), addr: t.addr, via: t.scheme, tls: tc}, nil
	case "https":
		tr := &http.Transport{TLSClientConfig: tc, ForceAttemptHTTP2: true, IdleConnTimeout: idleTimeout,
			ResponseHeaderTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10}
		return &web{url: t.url, addr: t.addr, tls: tc, hc: &http.Client{Transport: tr,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
	}
	return nil, fmt.Errorf("source %q: no transport for it", t.spec)
}

// answers reports whether the message can be the answer to the question.
func answers(q, r *dns.Msg, exactCase bool) bool {
	if !r.Response || r.Id != q.Id || r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 {
		return false
	}
	a, b := q.Question[0], r.Question[0]
	if a.Qtype != b.Qtype || a.Qclass != b.Qclass {
		return false
	}
	if exactCase {
		return a.Name == b.Name
	}
	return strings.EqualFold(a.Name, b.Name)
}

// datagram asks over UDP from a new port each time, with the case of the
// letters of the name as additional random bits, and over TCP when the answer
// is cut short or the server does not keep the case.
type datagram struct {
	servers func() ([]string, error)
	tcp     func(network, addr string) *stream

	mu      sync.Mutex
	streams map[string]*stream
}

func (d *datagram) exchange(ctx context.Context, q *dns.Msg) (reply, error) {
	servers, err := d.servers()
	if err != nil {
		return reply{}, err
	}
	sent := 0
	var last error
	for _, wait := range []time.Duration{800 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		for _, addr := range servers {
			if ctx.Err() != nil {
				return reply{}, errors.Join(last, ctx.Err())
			}
			sent++
			r, err := d.udp(ctx, q, addr, wait)
			if err == nil && (r == nil || r.Truncated) {
				sent++
				s := d.stream(addr)
				r, err = s.exchange(ctx, q)
				if err == nil {
					return reply{r, addr, "tcp", sent}, nil
				}
			}
			if err == nil {
				return reply{r, addr, "udp", sent}, nil
			}
			last = err
		}
	}
	return reply{}, last
}

// udp returns nil without an error when the answer must be fetched over TCP.
func (d *datagram) udp(ctx context.Context, q *dns.Msg, addr string, wait time.Duration) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	q.Question[0].Name = mixCase(q.Question[0].Name)
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	deadline := time.Now().Add(wait)
	if ctx.Err() == nil {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for range 64 { // forged packets do not end the wait, but enough of them do
		n, err := conn.Read(buf)
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, fmt.Errorf("%s did not answer over UDP within %s: %w", addr, wait, os.ErrDeadlineExceeded)
			}
			return nil, err
		}
		r := new(dns.Msg)
		if err := r.Unpack(buf[:n]); err != nil && !r.Truncated {
			continue
		}
		if answers(q, r, true) {
			return r, nil
		}
		if answers(q, r, false) {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("%s: more than 64 packets that do not answer the question: somebody is forging answers", addr)
}

func (d *datagram) stream(addr string) *stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.streams == nil {
		d.streams = map[string]*stream{}
	}
	s := d.streams[addr]
	if s == nil {
		s = d.tcp("tcp", addr)
		d.streams[addr] = s
	}
	return s
}

func (d *datagram) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.streams {
		s.close()
	}
}

// mixCase changes the case of letters at random: a forger must guess it.
func mixCase(name string) string {
	b := []byte(name)
	bits := make([]byte, len(b))
	rand.Read(bits)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && bits[i]&1 != 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// ask adds what every question carries, sends it and turns refusals into errors.
func ask(ctx context.Context, ex exchanger, t target, name string, typ uint16, trust string) (reply, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	q.RecursionDesired = t.recursive()
	// CD: the resolver shall hand on what fails its own validation; we look ourselves.
	q.CheckingDisabled = t.recursive() && trust == TrustDNSSEC
	q.AuthenticatedData = trust == TrustResolver
	q.SetEdns0(udpSize, true)
	if t.encrypted() {
		pad(q)
	}
	r, err := ex.exchange(ctx, q)
	if err != nil {
		return reply{}, &transportError{t.spec, err}
	}
	if rc := r.msg.Rcode; rc != dns.RcodeSuccess && rc != dns.RcodeNameError {
		return r, &transportError{t.spec, &rcodeError{r.server, name, typ, rc, extended(r.msg)}}
	}
	if r.msg.Truncated {
		return r, &transportError{t.spec, fmt.Errorf("%s: the answer for %s is cut short even over TCP", r.server, name)}
	}
	return r, nil
}

// A transportError is an [ErrUnreachable].
type transportError struct {
	source string
	err    error
}

func (e *transportError) Error() string {
	err := e.err
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("%s did not answer in time", e.source)
	}
	return fmt.Sprintf("%s gave no answer: %v", e.source, err)
}
func (e *transportError) Unwrap() error        { return e.err }
func (e *transportError) Is(target error) bool { return target == ErrUnreachable }

// An rcodeError is a refusal by a server.
type rcodeError struct {
	server string
	name   string
	typ    uint16
	rcode  int
	text   string
}

func (e *rcodeError) Error() string {
	s := fmt.Sprintf("%s answered %s to %s %s", e.server, dns.RcodeToString[e.rcode], typeName(e.typ), e.name)
	if e.text != "" {
		s += " (" + e.text + ")"
	}
	return s
}

// extended returns the server's own words on an error (RFC 8914).
func extended(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			s := dns.ExtendedErrorCodeToString[e.InfoCode]
			if e.ExtraText != "" {
				s += ": " + e.ExtraText
			}
			return line(s)
		}
	}
	return ""
}

// pad fills a question up to a multiple of 128 bytes (RFC 8467), so that its
// length tells nothing about the name.
func pad(q *dns.Msg) {
	opt := q.IsEdns0()
	p := &dns.EDNS0_PADDING{}
	opt.Option = append(opt.Option, p)
	if n := q.Len() % 128; n != 0 {
		p.Padding = make([]byte, 128-n)
	}
}
