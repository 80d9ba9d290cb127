package main

import (
	"crypto"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// A dnsRelay stands between the supervisor and the name server. It passes
// everything on until it is told to forge: then it answers with a version of
// its own, signed by a key of its own, and with that key as the zone's.
type dnsRelay struct {
	target string
	zone   string
	addr   string
	udp    *dns.Server
	tcp    *dns.Server

	mu      sync.Mutex
	version string // to tell instead of the true one; "" = honest
	forged  int    // answers that were forged
	key     *dns.DNSKEY
	signer  crypto.Signer
}

func newDNSRelay(listen, target, zone string) (*dnsRelay, error) {
	r := &dnsRelay{target: target, zone: zone, addr: listen}
	r.key = &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: zone, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	priv, err := r.key.Generate(256)
	if err != nil {
		return nil, err
	}
	r.signer = priv.(crypto.Signer)
	started := make(chan error, 2)
	for _, network := range []string{"udp", "tcp"} {
		srv := &dns.Server{Addr: listen, Net: network, Handler: r, NotifyStartedFunc: func() { started <- nil }}
		if network == "udp" {
			r.udp = srv
		} else {
			r.tcp = srv
		}
		go func() {
			if err := srv.ListenAndServe(); err != nil {
				started <- fmt.Errorf("the relay to the name server: %w", err)
			}
		}()
	}
	for range 2 {
		if err := <-started; err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

func (r *dnsRelay) close() {
	_ = r.udp.Shutdown()
	_ = r.tcp.Shutdown()
}

// forge starts the lie.
func (r *dnsRelay) forge(version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version, r.forged = version, 0
}

// honest ends it and returns how many answers were forged.
func (r *dnsRelay) honest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version = ""
	return r.forged
}

// ServeDNS relays one question.
func (r *dnsRelay) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	c := &dns.Client{Net: w.LocalAddr().Network(), Timeout: 5 * time.Second, UDPSize: dns.MaxMsgSize}
	resp, _, err := c.Exchange(q, r.target)
	if err != nil {
		fail := new(dns.Msg)
		fail.SetRcode(q, dns.RcodeServerFailure)
		_ = w.WriteMsg(fail) // the client asks again
		return
	}
	r.mu.Lock()
	version := r.version
	r.mu.Unlock()
	if version != "" {
		if resp, err = r.lie(resp, version); err != nil {
			return
		}
	}
	_ = w.WriteMsg(resp)
}

func (r *dnsRelay) lie(resp *dns.Msg, version string) (*dns.Msg, error) {
	var rrset, others []dns.RR
	for _, rr := range resp.Answer {
		switch rr := rr.(type) {
		case *dns.TXT:
			if rr.Txt[0][0] == 'v' {
				rr.Txt = []string{fmt.Sprintf("v=%s t=%x", version, time.Now().Unix()-3600)}
			}
			rrset = append(rrset, rr)
		case *dns.DNSKEY:
			key := *r.key
			key.Hdr.Ttl = rr.Hdr.Ttl
			rrset = []dns.RR{&key}
		case *dns.RRSIG:
		default:
			others = append(others, rr)
		}
	}
	if len(rrset) == 0 {
		return resp, nil
	}
	now := time.Now()
	sig := &dns.RRSIG{
		Algorithm: r.key.Algorithm, KeyTag: r.key.KeyTag(), SignerName: r.zone,
		Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(24 * time.Hour).Unix()),
	}
	if err := sig.Sign(r.signer, rrset); err != nil {
		return nil, fmt.Errorf("signing the forged answer: %w", err)
	}
	sig.Hdr.Ttl = rrset[0].Header().Ttl
	resp.Answer = append(append(rrset, sig), others...)
	r.mu.Lock()
	r.forged++
	r.mu.Unlock()
	return resp, nil
}
