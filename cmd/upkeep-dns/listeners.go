package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/doq"
	"example.org/upkeep/web"
	"example.org/upkeep/web/acme"
)

// listeners are where queries come in. They follow the configuration: what is
// new is opened first, and only when all of that works, what is no longer there
// is closed.
type listeners struct {
	srv   *dnsserver.Server
	wg    *sync.WaitGroup
	log   *slog.Logger
	open  map[place]func() // how each is closed
	first string           // the first address for plain DNS, as it was bound

	certificate atomic.Pointer[func(*tls.ClientHelloInfo) (*tls.Certificate, error)]
	source      TLSConfig // of the certificate
	stopSource  func()
}

// A place is where one of the listeners is.
type place struct {
	kind, addr string
	n          int // the how manieth of that address, which may be a free port
}

// places lists where the configuration wants to listen.
func (c *Config) places() (all []place) {
	count := map[place]int{}
	add := func(kind, addr string) {
		if addr == "" {
			return
		}
		p := place{kind, addr, 0}
		count[p]++
		all = append(all, place{kind, addr, count[p]})
	}
	var only6 []string // after 0.0.0.0, so that [::] is not for IPv4 too
	for _, addr := range c.Listen {
		if port, ok := strings.CutPrefix(addr, "[::]:"); ok && slices.Contains(c.Listen, "0.0.0.0:"+port) {
			only6 = append(only6, addr)
			continue
		}
		add("listen", addr)
	}
	for _, addr := range only6 {
		add("listen6", addr)
	}
	add("dot", c.TLS.DoT)
	add("doq", c.TLS.DoQ)
	add("doh", c.TLS.DoH)
	return all
}

// follow makes the listeners those of the configuration, or changes nothing.
// They live until ctx ends.
func (l *listeners) follow(ctx context.Context, c *Config) error {
	use, err := l.newSource(ctx, c)
	if err != nil {
		return err
	}
	fresh := map[place]func(){}
	fail := func(err error) error {
		for _, stop := range fresh {
			stop()
		}
		return err
	}
	wanted := map[place]bool{}
	for _, p := range c.places() {
		wanted[p] = true
		if l.open[p] != nil {
			continue
		}
		stop, err := l.start(ctx, p)
		if err != nil {
			return fail(ownPort(err, p, l.open, fresh))
		}
		fresh[p] = stop
	}
	use()
	for p, stop := range l.open {
		if !wanted[p] {
			l.log.Info("no longer listening", "on", p.addr, "for", p.kind)
			stop()
			delete(l.open, p)
		}
	}
	for p, stop := range fresh {
		l.open[p] = stop
	}
	return nil
}

// ownPort adds to the error of a port that is in use that it may be us who use it: a
// wildcard and an address can't both have it, nor follow each other without a restart.
func ownPort(err error, p place, open ...map[place]func()) error {
	_, port, perr := net.SplitHostPort(p.addr)
	if perr != nil || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	for _, places := range open {
		for o := range places {
			if _, other, oerr := net.SplitHostPort(o.addr); oerr == nil && other == port {
				return fmt.Errorf("%w, or by this one for %s: list one of the two, and restart to put one in place of the other", err, o.addr)
			}
		}
	}
	return err
}

// newSource prepares the certificate of the configuration; use puts it in place.
func (l *listeners) newSource(ctx context.Context, c *Config) (use func(), err error) {
	source := c.TLS
	source.DoT, source.DoH, source.DoQ = "", "", ""
	if !c.TLS.on() {
		return l.endSource, nil
	}
	if l.certificate.Load() != nil && l.source.same(&source) {
		return func() {}, nil
	}
	var get func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	run := func(context.Context) {}
	if source.ACME != "" {
		authority := source.authority()
		authority.Dir, authority.Log = filepath.Join(c.State, "acme-dns"), l.log
		m, err := acme.New(authority)
		if err != nil {
			return nil, fmt.Errorf("tls.acme: %w", err)
		}
		get, run = m.GetCertificate, m.Run
	} else if get, err = web.Certificate(source.Certificate, source.Key); err != nil {
		return nil, err
	}
	if l.certificate.Load() == nil {
		l.certificate.Store(&get) // those that start now need one
	}
	return func() {
		l.endSource()
		l.certificate.Store(&get)
		l.source = source
		sctx, stop := context.WithCancel(ctx)
		l.stopSource = stop
		l.wg.Go(func() { run(sctx) })
	}, nil
}

// endSource ends the renewal of the certificate, which stays for connections that
// are open.
func (l *listeners) endSource() {
	if l.stopSource != nil {
		l.stopSource()
	}
	l.source, l.stopSource = TLSConfig{}, nil
}

func (l *listeners) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return (*l.certificate.Load())(hello)
}

// start opens one listener.
func (l *listeners) start(ctx context.Context, p place) (stop func(), err error) {
	flag := "-" + p.kind
	if p.kind == "listen" || p.kind == "listen6" {
		return l.startPlain(p.addr)
	}
	if p.kind == "doq" {
		conn, err := net.ListenPacket(dnsserver.Family("udp", p.addr), p.addr)
		if err != nil {
			return nil, listenError(&dnsserver.ListenError{Network: "UDP", Addr: p.addr, Err: err}, flag)
		}
		fmt.Printf("doq: %s\n", conn.LocalAddr())
		ctx, cancel := context.WithCancel(ctx)
		l.wg.Go(func() {
			defer conn.Close()
			if err := doq.Serve(ctx, l.srv, conn, &tls.Config{GetCertificate: l.getCertificate}); err != nil {
				l.log.Error("serving DNS over QUIC", "err", err)
			}
		})
		return cancel, nil
	}
	tcp, err := net.Listen(dnsserver.Family("tcp", p.addr), p.addr)
	if err != nil {
		return nil, listenError(&dnsserver.ListenError{Network: "TCP", Addr: p.addr, Err: err}, flag)
	}
	if p.kind == "dot" {
		fmt.Printf("dot: %s\n", tcp.Addr())
		return l.srv.ServeStream(l.overTLS(tcp, "dot"), dnsserver.TLS), nil
	}
	fmt.Printf("doh: https://%s%s\n", tcp.Addr(), dnsserver.DoHPath)
	mux := http.NewServeMux()
	mux.Handle(dnsserver.DoHPath, l.srv.DoH())
	ctx, cancel := context.WithCancel(ctx)
	h2 := &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10} // a query fits
	serveMux(ctx, l.wg, &http.Server{Handler: mux, HTTP2: h2}, l.overTLS(l.srv.Limited(tcp, dnsserver.HTTPS), "h2", "http/1.1", acme.Proto), l.log)
	return cancel, nil
}

func (l *listeners) overTLS(tcp net.Listener, protos ...string) net.Listener {
	return tls.NewListener(tcp, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: l.getCertificate, NextProtos: protos})
}

// startPlain listens for UDP and TCP.
func (l *listeners) startPlain(addr string) (stop func(), err error) {
	bound, err := listen(l.srv, addr)
	if err != nil {
		return nil, err
	}
	for _, a := range bound {
		fmt.Printf("dns: %s\n", a)
		if l.first == "" {
			l.first = a.String()
		}
	}
	return func() {
		for _, a := range bound {
			l.srv.StopListening(a)
		}
	}, nil
}

// errInherited says why systemd's sockets stay.
var errInherited = errors.New(`listen: sockets of systemd's are passed at the start only: restart to add "systemd" to the list or take it out`)

// serveMux serves with bounds on time and size until ctx ends.
func serveMux(ctx context.Context, wg *sync.WaitGroup, srv *http.Server, l net.Listener, log *slog.Logger) {
	srv.ReadHeaderTimeout, srv.ReadTimeout, srv.WriteTimeout, srv.IdleTimeout = 10*time.Second, 30*time.Second, time.Minute, 2*time.Minute
	srv.MaxHeaderBytes = web.MaxHeader
	srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving HTTP", "addr", l.Addr().String(), "err", err)
		}
	})
	wg.Go(func() {
		<-ctx.Done()
		sctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			srv.Close()
		}
	})
}
