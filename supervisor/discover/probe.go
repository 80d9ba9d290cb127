package discover

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// A Reach is whether a server can be talked to over one transport.
type Reach struct {
	Source    string
	Zone      string
	Server    string
	Transport string
	RTT       time.Duration
	TLS       *tls.ConnectionState // for tls and https
	Err       error
}

// Probe tries every transport of every source by itself, without validating
// what comes back: a resolver that drops TCP works until an answer is long.
func (d *Discoverer) Probe(ctx context.Context) []Reach {
	var out []Reach
	for _, s := range d.sources {
		servers := []string{s.addr}
		if s.scheme == "system" {
			var err error
			if servers, err = systemServers(); err != nil {
				out = append(out, Reach{Source: s.spec, Zone: s.zone, Err: &transportError{s.spec, err}})
				continue
			}
		}
		for _, addr := range servers {
			switch s.scheme {
			case "system", "udp", "server":
				out = append(out, d.reach(ctx, s, addr, "udp"), d.reach(ctx, s, addr, "tcp"))
			default:
				out = append(out, d.reach(ctx, s, addr, s.scheme))
			}
		}
	}
	return out
}

func (d *Discoverer) reach(ctx context.Context, s *source, addr, transport string) Reach {
	r := Reach{Source: s.spec, Zone: s.zone, Server: addr, Transport: transport}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout.D())
	defer cancel()
	q := new(dns.Msg)
	q.SetQuestion(s.zone, dns.TypeSOA)
	q.RecursionDesired, q.CheckingDisabled = s.recursive(), s.recursive()
	q.SetEdns0(udpSize, true)
	start := time.Now()
	var msg *dns.Msg
	var err error
	switch transport {
	case "udp":
		// Cut short is an answer too.
		msg, err = (&datagram{}).udp(ctx, q, addr, d.cfg.Timeout.D())
	case "tcp":
		st := &stream{name: "tcp " + addr, dial: func(ctx context.Context) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "tcp", addr)
		}}
		defer st.close()
		msg, err = st.exchange(ctx, q)
	default:
		r.TLS, err = handshake(ctx, s)
		if err == nil {
			var rep reply
			rep, err = s.ex.exchange(ctx, q)
			msg = rep.msg
		}
	}
	r.RTT = time.Since(start)
	if err == nil && msg != nil && msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError {
		err = &rcodeError{addr, s.zone, dns.TypeSOA, msg.Rcode, extended(msg)}
	}
	if err != nil {
		r.Err = &transportError{fmt.Sprintf("%s (%s, %s)", s.spec, addr, transport), err}
	}
	return r
}

// handshake connects for the sake of the certificate.
func handshake(ctx context.Context, s *source) (*tls.ConnectionState, error) {
	var tc *tls.Config
	if w, ok := s.ex.(*web); ok {
		tc = w.tls
	} else if e, ok := s.ex.(*streamExchanger); ok {
		tc = e.tls
	}
	conn, err := (&tls.Dialer{Config: tc}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	cs := conn.(*tls.Conn).ConnectionState()
	return &cs, nil
}
