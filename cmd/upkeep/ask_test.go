package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor"
)

// An update without a version has new versions asked for, when none is known.
func TestUpdateAsksFirst(t *testing.T) {
	found := supervisor.Status{API: supervisor.APIVersion}
	found.Plan.Candidate = &supervisor.Candidate{}
	failed := supervisor.Status{API: supervisor.APIVersion}
	failed.Knowledge.Error = "nobody answers"
	for _, tc := range []struct {
		name          string
		before, after supervisor.Status
		verbs, err    string
	}{
		{"known", found, found, "update", ""},
		{"learned", supervisor.Status{API: supervisor.APIVersion}, found, "check update", ""},
		{"nothing new", supervisor.Status{API: supervisor.APIVersion}, supervisor.Status{API: supervisor.APIVersion}, "check update", "upkeep: nothing to install\n"},
		{"nobody answers", supervisor.Status{API: supervisor.APIVersion}, failed, "check update",
			"upkeep: nothing to install\nNew versions were asked for, and that failed: nobody answers\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			socket := filepath.Join(sockdir.New(t), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			var verbs []string
			now := tc.before
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					var a supervisor.Action
					if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
						t.Error(err)
					}
					verbs = append(verbs, a.Verb)
					if a.Verb == supervisor.VerbCheck {
						now = tc.after
						now.Knowledge.Asked = time.Unix(1700000000, 0)
					}
					if a.Verb == supervisor.VerbUpdate && now.Plan.Candidate == nil {
						w.WriteHeader(http.StatusConflict)
						_, _ = io.WriteString(w, `{"error":"nothing to install"}`)
					}
					return
				}
				if strings.HasSuffix(r.URL.Path, "/events") {
					_, _ = io.WriteString(w, "data: ")
				}
				_ = json.NewEncoder(w).Encode(now) // the client says what is wrong
			})}
			defer srv.Close()
			go func() { _ = srv.Serve(l) }() // until Close
			var errOut bytes.Buffer
			p := program()
			p.Stderr = &errOut
			code := p.Run(t.Context(), []string{"update", "-socket", socket})
			if tc.err == "" && code != 0 || tc.err != "" && (code != 1 || errOut.String() != tc.err) {
				t.Errorf("got %d, %q; want %q", code, &errOut, tc.err)
			}
			if got := strings.Join(verbs, " "); got != tc.verbs {
				t.Errorf("asked for %q; want %q", got, tc.verbs)
			}
		})
	}
}
