package main

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor"
)

// Who waits for the end of an update of upkeep is told it by the version before,
// also when the new one in between did not answer.
func TestFollowSelf(t *testing.T) {
	socket := filepath.Join(sockdir.New(t), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s := supervisor.Status{API: supervisor.APIVersion}
		switch asked.Add(1) {
		case 1:
			s.Self.Update = &supervisor.UpdateProgress{ID: "1"}
		case 2, 3, 4: // a client asks twice by itself
			panic(http.ErrAbortHandler)
		default:
			s.Self.LastResult = &supervisor.Result{ID: "1", Result: supervisor.ResultRolledBack, Reason: "in command it ended"}
		}
		_ = json.NewEncoder(w).Encode(s) // the client says what is wrong
	})}
	defer srv.Close()
	go func() { _ = srv.Serve(l) }() // until Close
	r, err := followSelf(t.Context(), supervisor.NewClient(socket))
	if err == nil {
		_, err = ending(r, true)
	}
	if err == nil || !strings.Contains(err.Error(), "did not take over: in command it ended") {
		t.Errorf("%v, after %d questions", err, asked.Load())
	}
}
