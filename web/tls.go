package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	"example.org/upkeep/web/acme"
)

// TLS is where a program's pages have their certificate from, as a table of its
// configuration.
type TLS struct {
	Cert    string `toml:"cert" comment:"PEM file with the certificate and its chain; read again when it changes. Empty, and no acme: no TLS."`
	Key     string `toml:"key" comment:"PEM file with the certificate's key."`
	ACME    string `toml:"acme" comment:"Instead of cert and key: the directory of an ACME server, for example\nhttps://acme-v02.api.letsencrypt.org/directory, which issues a certificate for the names in hosts. Setting\nit agrees to that server's terms. Port 443 of these names has to lead to this address."`
	Contact string `toml:"acme_contact" comment:"Mail address that the ACME server may write to."`
	Roots   string `toml:"acme_roots" comment:"PEM file of the roots that the ACME server's own certificate comes from. Empty: the system's."`
}

// Listen is the listener of pages on addr. The certificate by ACME is kept
// below the state folder.
func (t TLS) Listen(addr string, hosts []string, state string, log *slog.Logger) Listen {
	return Listen{Addr: addr, Cert: t.Cert, Key: t.Key, ACME: acme.Config{
		Directory: t.ACME, Names: acme.Names(hosts), Dir: filepath.Join(state, "acme"), Contact: t.Contact, Roots: t.Roots, Log: log}}
}

// ServeMetrics serves /metrics alone on an address of its own until ctx ends.
func ServeMetrics(ctx context.Context, addr string, sec Security, metrics http.Handler, log *slog.Logger) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	srv := NewServer(Secure(sec, mux), log)
	context.AfterFunc(ctx, func() { srv.Close() })
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving metrics", "address", addr, "err", err)
		}
	}()
	log.Info("metrics", "address", "http://"+l.Addr().String()+"/metrics")
	return nil
}
