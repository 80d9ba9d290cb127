package servicepage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
)

// api adds the JSON API. It has the forms of the control socket: GET gives
// [supervisor.Status], POST takes [supervisor.Action].
func (s *server) api(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/status", s.apiStatus)
	mux.HandleFunc("GET /api/v1/logs", s.apiLogs)
	mux.HandleFunc("GET /api/v1/events", s.apiEvents)
	mux.HandleFunc("POST /api/v1/actions", s.apiAction)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("there is no %s %s; see docs/web.md", r.Method, r.URL.Path))
	})
}

type apiError struct {
	Error string `json:"error"`
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, `{"error":"the answer could not be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the caller has gone away, nobody to tell
}

func writeError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, apiError{err.Error()})
}

func (s *server) apiStatus(w http.ResponseWriter, r *http.Request) {
	st, err := s.ctl.Status(r.Context())
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	writeJSON(w, http.StatusOK, st)
}

func (s *server) apiLogs(w http.ResponseWriter, r *http.Request) {
	n := logLines
	if text := r.URL.Query().Get("n"); text != "" {
		v, err := strconv.Atoi(text)
		if err != nil || v < 1 || v > logLines {
			writeError(w, http.StatusBadRequest, fmt.Errorf("n=%.20q is not a number from 1 to %d", text, logLines))
			return
		}
		n = v
	}
	lines := s.ctl.Logs(n)
	if lines == nil {
		lines = []string{}
	}
	writeJSON(w, http.StatusOK, struct {
		Lines []string `json:"lines"`
	}{lines})
}

// apiEvents streams the whole status: once now and once after each change.
func (s *server) apiEvents(w http.ResponseWriter, r *http.Request) {
	changed := s.ctl.Watch(r.Context())
	stream, err := web.NewStream(w)
	if err != nil {
		writeError(w, http.StatusInternalServerError, err)
		return
	}
	for {
		st, err := s.ctl.Status(r.Context())
		if err != nil {
			return
		}
		if err := stream.Send("status", st); err != nil {
			return
		}
		if !stream.Wait(r.Context(), changed, pause) {
			return
		}
	}
}

func (s *server) apiAction(w http.ResponseWriter, r *http.Request) {
	if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		writeError(w, http.StatusUnsupportedMediaType, fmt.Errorf("the content type is %.80q, not application/json", kind))
		return
	}
	var a supervisor.Action
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("reading the action: %w", err))
		return
	}
	// A name from a login is better than what the request says of itself.
	if by := who(r); a.By == "" || by != "web" {
		a.By = by
	}
	if code, err := s.do(r.Context(), a); err != nil {
		writeError(w, code, err)
		return
	}
	writeJSON(w, http.StatusAccepted, struct {
		Accepted supervisor.Action `json:"accepted"`
	}{a})
}
