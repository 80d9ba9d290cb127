package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
)

// An httpRelay stands between the supervisor and the builder. It passes
// everything on until it is told to lie.
type httpRelay struct {
	target *url.URL
	proxy  *httputil.ReverseProxy
	srv    *http.Server
	url    string

	mu      sync.Mutex
	flip    bool         // one bit of each binary
	flipped int          // binaries that were changed
	fork    http.Handler // another history of the log, or nil
	forked  int          // requests that it answered
}

// newHTTPRelay listens on the address and relays to the target.
func newHTTPRelay(listen string, target *url.URL) (*httpRelay, error) {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	r := &httpRelay{target: target, url: "http://" + ln.Addr().String()}
	r.proxy = &httputil.ReverseProxy{
		FlushInterval: -1, // server-sent events
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(target)
			if r.lies() {
				// The lie is about whole, plain files.
				for _, h := range []string{"Accept-Encoding", "Range", "If-Range", "If-None-Match"} {
					pr.Out.Header.Del(h)
				}
				pr.Out.Header.Set("Accept-Encoding", "identity")
			}
		},
		ModifyResponse: r.modify,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	r.srv = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := r.srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("the relay to the builder ended", "err", err)
		}
	}()
	return r, nil
}

func (r *httpRelay) close() { r.srv.Close() }

func (r *httpRelay) lies() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flip
}

// honest ends all lies and returns how often each was told.
func (r *httpRelay) honest() (flipped, forked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	flipped, forked = r.flipped, r.forked
	r.flip, r.fork, r.flipped, r.forked = false, nil, 0, 0
	return flipped, forked
}

func (r *httpRelay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	fork := r.fork
	if fork != nil && strings.HasPrefix(req.URL.Path, "/tlog/") {
		r.forked++
		r.mu.Unlock()
		http.StripPrefix("/tlog", fork).ServeHTTP(w, req)
		return
	}
	r.mu.Unlock()
	r.proxy.ServeHTTP(w, req)
}

// modify flips one bit in the middle of a binary.
func (r *httpRelay) modify(resp *http.Response) error {
	name := path.Base(resp.Request.URL.Path)
	isBinary := strings.Contains(name, "-v") && strings.Contains(name, "-go1.")
	if !isBinary || strings.HasSuffix(resp.Request.URL.Path, "/") || resp.StatusCode != http.StatusOK || !r.lies() {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body.Close()
	gz := strings.HasSuffix(name, ".gz")
	if gz {
		zr, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return err
		}
		if data, err = io.ReadAll(zr); err != nil {
			return err
		}
	}
	data[len(data)/2] ^= 0x10
	if gz {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		if _, err := zw.Write(data); err != nil {
			return err
		}
		if err := zw.Close(); err != nil {
			return err
		}
		data = b.Bytes()
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	resp.ContentLength = int64(len(data))
	resp.Header.Set("Content-Length", strconv.Itoa(len(data)))
	resp.Header.Del("ETag")
	r.mu.Lock()
	r.flipped++
	r.mu.Unlock()
	return nil
}

// startFork makes the relay answer from another history of the builder's log:
// signed by the builder's own key, each record in it included and proved, but
// not the log that was seen before. It returns a function that ends it.
func (r *httpRelay) startFork(ctx context.Context, dir, signerKey string) (stop func(), err error) {
	log, err := tlog.OpenLog(dir, signerKey, tlog.LogOptions{})
	if err != nil {
		return nil, fmt.Errorf("forking the builder's log: %w", err)
	}
	// At least as long as the true one, so that it can't be told by its size.
	for i := range 32 {
		text := fmt.Sprintf("example.org/other v1.0.%d / linux amd64 go1.26.0 %d 0AAAAAAAAAAAAAAAAAAAAAAAAAAA \n", i, 1000+i)
		key := fmt.Sprintf("example.org/other@v1.0.%d/linux-amd64-go1.26.0/", i)
		if _, err := log.Append(ctx, tlog.Entry{Key: key, Text: []byte(text)}); err != nil {
			log.Close()
			return nil, fmt.Errorf("forking the builder's log: %w", err)
		}
	}
	handler := log.Handler(func(ctx context.Context, key string) error {
		// The record itself is the honest one: only the history betrays the fork.
		data, err := httpget.Get(ctx, http.DefaultClient, r.target.String()+"/tlog/lookup/"+key, 1<<20)
		if err != nil {
			return err
		}
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		text, _, ok := bytes.Cut(rest, []byte("\n\n"))
		if !ok {
			return errors.New("the builder's answer is no record")
		}
		_, err = log.Append(ctx, tlog.Entry{Key: key, Text: append(text, '\n')})
		return err
	})
	r.mu.Lock()
	r.fork = handler
	r.mu.Unlock()
	return func() { log.Close() }, nil
}
