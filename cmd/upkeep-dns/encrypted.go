package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/doq"
	"example.org/upkeep/web"
)

func (t *TLSConfig) check() error {
	if t.DoT == "" && t.DoH == "" && t.DoQ == "" {
		return nil
	}
	if t.Certificate == "" || t.Key == "" {
		return errors.New("tls.certificate and tls.key: both files are needed for tls.dot, tls.doq and tls.doh")
	}
	_, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return fmt.Errorf("tls.certificate: %w", err)
	}
	return nil
}

// announced are the ports for the SVCB records.
func (t *TLSConfig) announced() dnsserver.Encrypted {
	return dnsserver.Encrypted{DoT: portOf(t.DoT), DoH: portOf(t.DoH), DoQ: portOf(t.DoQ)}
}

func portOf(addr string) uint16 {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// serveEncrypted answers over TLS and HTTPS, as configured.
func serveEncrypted(ctx context.Context, wg *sync.WaitGroup, c TLSConfig, srv *dnsserver.Server, log *slog.Logger) error {
	if c.DoT == "" && c.DoH == "" && c.DoQ == "" {
		return nil
	}
	get, err := web.Certificate(c.Certificate, c.Key)
	if err != nil {
		return err
	}
	listen := func(addr, flag string, protos ...string) (net.Listener, error) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, listenError(&dnsserver.ListenError{Network: "TCP", Addr: addr, Err: err}, flag)
		}
		return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: get, NextProtos: protos}), nil
	}
	if c.DoT != "" {
		l, err := listen(c.DoT, "-dot", "dot")
		if err != nil {
			return err
		}
		fmt.Printf("dot: %s\n", l.Addr())
		srv.ServeStream(l, dnsserver.TLS)
	}
	if c.DoQ != "" {
		conn, err := net.ListenPacket("udp", c.DoQ)
		if err != nil {
			return listenError(&dnsserver.ListenError{Network: "UDP", Addr: c.DoQ, Err: err}, "-doq")
		}
		fmt.Printf("doq: %s\n", conn.LocalAddr())
		wg.Go(func() {
			defer conn.Close()
			if err := doq.Serve(ctx, srv, conn, &tls.Config{GetCertificate: get}); err != nil {
				log.Error("serving DNS over QUIC", "err", err)
			}
		})
	}
	if c.DoH == "" {
		return nil
	}
	l, err := listen(c.DoH, "-doh", "h2", "http/1.1")
	if err != nil {
		return err
	}
	fmt.Printf("doh: https://%s%s\n", l.Addr(), dnsserver.DoHPath)
	mux := http.NewServeMux()
	mux.Handle(dnsserver.DoHPath, srv.DoH())
	serveMux(ctx, wg, &http.Server{Handler: mux, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100}}, l, log)
	return nil
}

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

// cookieSecrets reads a file of secrets.
func cookieSecrets(file string) ([][16]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("limits.cookie_secrets: %w", err)
	}
	secrets, err := dnsserver.ParseCookieSecrets(string(data))
	if err != nil {
		return nil, fmt.Errorf("limits.cookie_secrets: %s: %w", file, err)
	}
	return secrets, nil
}
