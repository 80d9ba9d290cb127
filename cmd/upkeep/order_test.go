package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/supervisor"
)

// speaker is an upkeep of which only the control socket is there.
func speaker(t *testing.T, s *supervisor.Status) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "upkeep") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/actions"):
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/logs"):
			_, _ = w.Write([]byte(`{"lines":["one","two"]}`))
		case strings.HasSuffix(r.URL.Path, "/events"):
			data, _ := json.Marshal(s)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte("event: status\ndata: " + string(data) + "\n\n"))
		default:
			_ = json.NewEncoder(w).Encode(s)
		}
	})}
	t.Cleanup(func() { srv.Close() })
	go func() { _ = srv.Serve(l) }() // until Close
	return socket
}

// said is what a command writes to the standard output, and its exit status.
func said(t *testing.T, args ...string) (string, int) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	before := os.Stdout
	os.Stdout = out
	defer func() { os.Stdout = before }()
	code := program().Run(t.Context(), args)
	data, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data), code
}

// What speaks to a running upkeep answers programs too.
func TestOrdersJSON(t *testing.T) {
	s := supervisor.Status{API: supervisor.APIVersion, Code: supervisor.CodeCurrent,
		LastResult: &supervisor.Result{ID: "7", Result: supervisor.ResultRolledBack, Reason: "it ended"},
		History:    []supervisor.Result{{ID: "7"}}}
	s.Self.LastResult = &supervisor.Result{ID: "8", Result: supervisor.ResultInstalled}
	socket := speaker(t, &s)
	for _, tc := range []struct {
		args string
		has  string // in the JSON
		code int
	}{
		{"status", `"code": "current"`, 0}, {"plan", `"versions"`, 0}, {"history", `"id": "7"`, 0}, {"logs", `"two"`, 0},
		{"hold", `"code": "current"`, 0}, {"unhold", `"code"`, 0}, {"skip", `"code"`, 0}, {"unskip ARGS v1.0.0", `"code"`, 0},
		{"pin", `"code"`, 0}, {"unpin", `"code"`, 0}, {"pause", `"code"`, 0}, {"resume", `"code"`, 0}, {"cancel", `"code"`, 0},
		{"reload", `"code"`, 0}, {"update", `"code"`, 0}, {"update -at " + time.Now().Add(time.Hour).Format(time.RFC3339), `"code"`, 0},
		{"rollback", `"code"`, 0}, {"update -wait", `"result": "rolled_back"`, 1}, {"update -self -wait", `"result": "installed"`, 0},
	} {
		line := tc.args
		if !strings.Contains(line, "ARGS") {
			line += " ARGS"
		}
		out, code := said(t, strings.Fields(strings.Replace(line, "ARGS", "-json -socket "+socket, 1))...)
		if code != tc.code || !json.Valid([]byte(out)) || !strings.Contains(out, tc.has) {
			t.Errorf("%s: %d, %s", tc.args, code, out)
		}
	}
	if out, code := said(t, "logs", "-n", "0", "-socket", socket); code != 2 {
		t.Errorf("no lines: %d, %s", code, out)
	}
}

// What the help promises to be in the long status is there.
func TestLongStatus(t *testing.T) {
	s := supervisor.Status{API: supervisor.APIVersion, Code: supervisor.CodeCurrent}
	s.Service.Name, s.Summary, s.Service.Health.Configured = "hello", "Up to date.", true
	s.Service.Handover = supervisor.HandoverStatus{Mode: "retain", Reason: "they can be kept", Warnings: []string{"it opens them again"}}
	s.Kept = []supervisor.Kept{{Pair: supervisor.Pair{Version: "v1.0.0", GoVersion: "go1.26.8"}, File: "/srv/hello/hello-v1.0.0"}, {File: "/srv/running", Running: true}}
	out, _ := said(t, "status", "-v", "-socket", speaker(t, &s))
	for _, want := range []string{"hello: Up to date.\n", "kept        v1.0.0 (go1.26.8), /srv/hello/hello-v1.0.0\n", "handover    retain: they can be kept\n", "it opens them again\n", "knowledge   none yet\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "/srv/running") || strings.Contains(out, "(never)") {
		t.Errorf("%s", out)
	}
}
