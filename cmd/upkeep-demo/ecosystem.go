package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/modserver"
)

// sumDBName is the name in the key of the demo's checksum database.
const sumDBName = "sum.demo.upkeep.test"

// ecosystemCommand is the world around the three programs, as a process of
// its own: module proxy, checksum database, and a page that publishes.
func ecosystemCommand() *cli.Command {
	var dir, listen string
	return &cli.Command{
		Name: "ecosystem", Short: "serve the demo's module proxy and checksum database", Hidden: true,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&dir, "dir", "", "`folder` with what was published")
			fs.StringVar(&listen, "listen", "127.0.0.1:0", "`address` to listen on")
		},
		Run: func(ctx context.Context, _ []string) error {
			srv, err := modserver.Open(filepath.Clean(dir), sumDBName)
			if err != nil {
				return err
			}
			defer srv.Close()
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("the port of -listen: %w", err)
			}
			slog.Info("module proxy and checksum database serve", "url", "http://"+ln.Addr().String(), "key", srv.VerifierKey())
			e := &ecosystem{srv: srv, url: "http://" + ln.Addr().String()}
			hs := &http.Server{Handler: http.NewCrossOriginProtection().Handler(e.handler()), ReadHeaderTimeout: 10 * time.Second}
			context.AfterFunc(ctx, func() { hs.Close() })
			if err := hs.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
}

type ecosystem struct {
	srv *modserver.Server
	url string
	mu  sync.Mutex // one version after the other
}

func (e *ecosystem) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /", e.srv.Handler())
	mux.HandleFunc("GET /{$}", e.page)
	mux.HandleFunc("GET /key", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, e.srv.VerifierKey()) })
	mux.HandleFunc("POST /publish", e.publish)
	return mux
}

func (e *ecosystem) versions(ctx context.Context) ([]string, error) {
	proxy, err := goproxy.New(e.url, http.DefaultClient)
	if err != nil {
		return nil, err
	}
	versions, err := proxy.List(ctx, sampleModule)
	if errors.Is(err, goproxy.ErrNotFound) {
		return nil, nil
	}
	return versions, err
}

var ecosystemPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Demo ecosystem</title>
<h1>Demo ecosystem</h1>
<p>A module proxy, with its checksum database below <a href="/sumdb/{{.Name}}/latest">/sumdb/{{.Name}}/</a>.</p>
<h2>{{.Module}}</h2>
<ul>{{range .Versions}}<li><a href="/{{$.Module}}/@v/{{.}}.info">{{.}}</a></li>{{end}}</ul>
<form method="post" action="/publish"><button>Publish {{.Next}}</button></form>
</html>
`))

func (e *ecosystem) page(w http.ResponseWriter, r *http.Request) {
	versions, err := e.versions(r.Context())
	next := sampleFirst
	if err == nil && len(versions) > 0 {
		next, err = nextPatch(versions[len(versions)-1])
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'")
	if err := ecosystemPage.Execute(w, map[string]any{"Name": sumDBName, "Module": sampleModule, "Versions": versions, "Next": next}); err != nil {
		slog.Warn("writing the page", "err", err)
	}
}

// publish makes the next patch version known, or the one that the form names.
func (e *ecosystem) publish(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	version := r.PostFormValue("version")
	if version == "" {
		versions, err := e.versions(r.Context())
		if err == nil && len(versions) > 0 {
			version, err = nextPatch(versions[len(versions)-1])
		} else if err == nil {
			version = sampleFirst
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	mod := module.Version{Path: sampleModule, Version: version}
	if err := module.Check(mod.Path, mod.Version); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := e.srv.Publish(r.Context(), mod, time.Now(), sampleFiles(version)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	slog.Info("published", "module", mod.Path, "version", mod.Version)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	fmt.Fprintln(w, version)
}
