package tlog

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	ct "golang.org/x/mod/sumdb/tlog"
)

// Handler serves the log's protocol: /latest, /lookup/KEY, /tile/..., and
// /supported. For an unknown key it calls miss (unless nil), which may block
// and Append; when miss returns nil the key is looked up again. An error of
// miss with a method HTTPStatus() int chooses the status, else it is 500.
func (l *Log) Handler(miss func(ctx context.Context, key string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET is answered here", http.StatusMethodNotAllowed)
			return
		}
		path := r.URL.Path
		switch {
		case path == "/supported":
			w.WriteHeader(http.StatusOK)
		case path == "/latest":
			answer(w, "text/plain; charset=utf-8", "no-cache", l.Head().Note)
		case strings.HasPrefix(path, "/lookup/"):
			l.serveLookup(w, r, strings.TrimPrefix(path, "/lookup/"), miss)
		case strings.HasPrefix(path, "/tile/"):
			l.serveTile(w, r, path[1:])
		default:
			http.NotFound(w, r)
		}
	})
}

func answer(w http.ResponseWriter, contentType, cache string, data []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", cache)
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // an error is the other side's going away
}

func (l *Log) serveLookup(w http.ResponseWriter, r *http.Request, key string, miss func(context.Context, string) error) {
	if key == "" || len(key) > maxKey {
		http.Error(w, "malformed lookup key", http.StatusBadRequest)
		return
	}
	id, e, err := l.lookup(key)
	if errors.Is(err, ErrNotFound) && miss != nil {
		if err := miss(r.Context(), key); err != nil {
			status := http.StatusInternalServerError
			var s interface{ HTTPStatus() int }
			if errors.As(err, &s) {
				status = s.HTTPStatus()
			} else if errors.Is(err, ErrNotFound) {
				status = http.StatusNotFound
			}
			http.Error(w, err.Error(), status)
			return
		}
		id, e, err = l.lookup(key)
	}
	if errors.Is(err, ErrNotFound) {
		http.Error(w, "not found: no record for this key", http.StatusNotFound)
		return
	}
	if err != nil {
		l.log.Error("record can't be read", "key", key, "err", err)
		http.Error(w, "record can't be read", http.StatusInternalServerError)
		return
	}
	msg, err := ct.FormatRecord(id, e.Text)
	if err != nil {
		http.Error(w, "record is malformed", http.StatusInternalServerError)
		return
	}
	answer(w, "text/plain; charset=utf-8", "no-cache", append(msg, l.Head().Note...))
}

func (l *Log) serveTile(w http.ResponseWriter, r *http.Request, path string) {
	t, err := ct.ParseTilePath(path)
	if err != nil {
		http.Error(w, "malformed tile path", http.StatusBadRequest)
		return
	}
	data, err := l.Tile(t)
	if errors.Is(err, ErrNotFound) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if err != nil {
		l.log.Error("tile can't be read", "tile", t.Path(), "err", err)
		http.Error(w, "tile can't be read", http.StatusInternalServerError)
		return
	}
	contentType := "application/octet-stream"
	if t.L == dataLevel {
		contentType = "text/plain; charset=utf-8"
		w.Header().Set("Vary", "Accept-Encoding")
		if acceptsGzip(r) {
			if small, ok := compress(data); ok {
				w.Header().Set("Content-Encoding", "gzip")
				data = small
			}
		}
	}
	answer(w, contentType, "public, max-age=31536000, immutable", data)
}
