package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"
)

const (
	maxActionBody = 16 << 10
	socketLines   = 200
)

// ListenControl makes the control socket. One that a killed supervisor left
// behind is replaced; the caller holds the state folder's lock, so nobody
// else listens there.
func ListenControl(name, group string) (net.Listener, error) {
	// The path of a unix socket is short (sun_path, unix(7)).
	const maxPath = 100
	if len(name) > maxPath {
		return nil, fmt.Errorf("control socket %s: its name has %d bytes, a socket's has at most %d; set control.socket to a shorter one", name, len(name), maxPath)
	}
	if fi, err := os.Lstat(name); err == nil && fi.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(name); err != nil {
			return nil, fmt.Errorf("replacing the control socket: %w", err)
		}
	}
	l, err := listenPrivate(name)
	if err != nil {
		return nil, fmt.Errorf("making the control socket: %w", err)
	}
	if group != "" {
		gid, err := lookupGroup(group)
		if err == nil {
			err = os.Chown(name, -1, int(gid))
		}
		if err == nil {
			err = os.Chmod(name, 0o660)
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("control socket for group %s: %w", group, err)
		}
	}
	return l, nil
}

type peerKey struct{}

// ControlServer answers on the control socket. Whoever can open the socket may
// do everything.
func ControlServer(c Controller, log *slog.Logger) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, r *http.Request) {
		s, err := c.Status(r.Context())
		if err != nil {
			answer(w, http.StatusServiceUnavailable, apiError{err.Error()})
			return
		}
		answer(w, http.StatusOK, s)
	})
	mux.HandleFunc("GET /api/v1/logs", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil || n < 1 || n > socketLines {
			n = socketLines
		}
		answer(w, http.StatusOK, apiLines{append([]string{}, c.Logs(n)...)})
	})
	mux.HandleFunc("GET /api/v1/events", func(w http.ResponseWriter, r *http.Request) { streamStatus(w, r, c) })
	mux.HandleFunc("POST /api/v1/actions", func(w http.ResponseWriter, r *http.Request) {
		var a Action
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxActionBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&a); err != nil {
			answer(w, http.StatusBadRequest, apiError{"reading the action: " + err.Error()})
			return
		}
		if peer, ok := r.Context().Value(peerKey{}).(string); ok && peer != "" {
			a.By = peer // the kernel knows better than the client
		}
		var refused *RefusedError
		switch err := c.Do(r.Context(), a); {
		case err == nil:
			answer(w, http.StatusAccepted, map[string]Action{"accepted": a})
		case errors.As(err, &refused):
			answer(w, http.StatusConflict, apiError{err.Error()})
		default:
			answer(w, http.StatusServiceUnavailable, apiError{err.Error()})
		}
	})
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerName(conn))
		},
	}
}

// ServeControl answers on the control socket until ctx ends.
func ServeControl(ctx context.Context, l net.Listener, c Controller, log *slog.Logger) error {
	srv := ControlServer(c, log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type apiError struct {
	Error string `json:"error"`
}

type apiLines struct {
	Lines []string `json:"lines"`
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the caller may have gone away
}

// streamPause is the least time between two statuses to one viewer.
const streamPause = 100 * time.Millisecond

// streamStatus sends the status now and after each change, as server-sent events.
func streamStatus(w http.ResponseWriter, r *http.Request, c Controller) {
	changed := c.Watch(r.Context())
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		s, err := c.Status(r.Context())
		if err != nil {
			return
		}
		data, err := json.Marshal(s)
		if err != nil {
			return
		}
		_ = rc.SetWriteDeadline(time.Now().Add(15 * time.Second)) // not supported means no limit, on a local socket
		if _, err := fmt.Fprintf(w, "event: status\ndata: %s\n\n", data); err != nil {
			return
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(streamPause):
		}
		select {
		case <-r.Context().Done():
			return
		case _, open := <-changed:
			if !open {
				return
			}
		}
	}
}

// userName names a user for the history.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}
