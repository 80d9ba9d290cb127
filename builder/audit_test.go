package builder

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kgzip "github.com/klauspost/compress/gzip"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// An auditor finds the one wrong record in a log, says in what the binaries
// differ, and goes on where it was after a restart.
func TestAudit(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	honest := start(t, e, testOptions{})
	// The liar's log: a good record, then one of a changed binary, which it serves.
	signer, verifier, err := tlog.GenerateKey("liar.test")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.OpenLog(t.TempDir(), signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	append_ := func(rec spec.Record) {
		t.Helper()
		if _, err := l.Append(t.Context(), tlog.Entry{Key: rec.Spec.String(), Text: rec.Line()}); err != nil {
			t.Fatal(err)
		}
	}
	good, err := honest.lookup(t, "example.org/hello@v1.0.0/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	append_(good)
	bad, err := honest.lookup(t, "example.org/hello@v1.0.1/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	_, binary := honest.get(t, "GET", "/"+bad.Spec.String()+bad.Sum+"/"+bad.FileName(), "Accept-Encoding", "identity")
	binary[len(binary)/2] ^= 1
	d := spec.NewDigest()
	d.Write(binary)
	bad.Sum = d.Sum()
	append_(bad)
	gone, err := spec.Parse("example.org/gone@v1.0.0/" + target() + "/")
	if err != nil {
		t.Fatal(err)
	}
	append_(spec.Record{Spec: gone, Size: 1, Sum: good.Sum})
	// Whoever records a binary of a terabyte does not get to send it.
	huge, err := honest.lookup(t, "example.org/hello@v1.0.0/cmd/other/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	huge.Size = 1 << 40
	append_(huge)
	mux := http.NewServeMux()
	mux.Handle("/tlog/", http.StripPrefix("/tlog", l.Handler(nil)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+bad.Spec.String()+bad.Sum+"/"+bad.FileName()+".gz" {
			http.NotFound(w, r)
			return
		}
		z := kgzip.NewWriter(w)
		z.Write(binary)
		z.Close()
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()

	auditor := start(t, e, testOptions{})
	client, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: srv.URL + "/tlog", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	a := &Audit{Log: client, Service: auditor.Service, File: filepath.Join(t.TempDir(), "audited"), Sample: 1, Once: true, HTTP: http.DefaultClient,
		Report: func(f Finding) {
			got = append(got, fmt.Sprintf("%d %v %v %s", f.ID, f.Same, f.Differs(), strings.Join(append(f.Diff, f.Error), " ")))
		}}
	salt := func() ([]byte, error) { return []byte("salt"), nil }
	if err := a.Run(t.Context(), salt); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || !strings.Contains(got[3], "3 false true The other binary can't be compared: its log records 1099511627776 bytes") || !strings.HasPrefix(got[0], "0 true false") || !strings.HasPrefix(got[1], "1 false true The first different byte") || !strings.HasPrefix(got[2], "2 false false example.org/gone@v1.0.0 is not known") {
		t.Errorf("findings: %s", strings.Join(got, "\n"))
	}
	if kept, _ := filepath.Glob(filepath.Join(auditor.dir, "mismatches", "*")); len(kept) != 1 {
		t.Errorf("kept: %v", kept)
	}
	if st := auditor.Status(t.Context()); len(st.Alarms) != 2 {
		t.Errorf("alarms: %v", st.Alarms)
	}
	// What could not be built is tried again, and only that.
	got = nil
	if err := a.Run(t.Context(), salt); err != nil || len(got) != 1 || !strings.HasPrefix(got[0], "2 false false") {
		t.Errorf("audited again: %v, %v", got, err)
	}
	e.publish("example.org/gone", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() {}\n")
	got = nil
	if err := a.Run(t.Context(), salt); err != nil || len(got) != 1 || !strings.HasPrefix(got[0], "2 false true") {
		t.Errorf("when it can be built: %v, %v", got, err)
	}
	got = nil
	if err := a.Run(t.Context(), salt); err != nil || len(got) != 0 {
		t.Errorf("when all is known: %v, %v", got, err)
	}
	more := good
	more.Stripped = true
	append_(more)
	if err := a.Run(t.Context(), salt); err != nil || len(got) != 1 {
		t.Errorf("one more: %v, %v", got, err)
	}
	// From now on: what is there is not looked at.
	got = nil
	a.File, a.FromNow = filepath.Join(t.TempDir(), "audited"), true
	if err := a.Run(t.Context(), salt); err != nil || len(got) != 0 {
		t.Errorf("from now: %v, %v", got, err)
	}
}

// The pauses between tries of an unknown record grow to a week.
func TestUnknownPauses(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var u unknownRecord
	if !u.due(now) {
		t.Error("a new one is not due")
	}
	var pauses []time.Duration
	for range 12 {
		u = u.failed(now)
		pauses = append(pauses, u.Next.Sub(now))
		if u.due(u.Next.Add(-1)) || !u.due(u.Next) {
			t.Errorf("due: %+v", u)
		}
	}
	if pauses[0] != time.Hour || pauses[1] != 2*time.Hour || pauses[7] != 128*time.Hour || pauses[8] != 7*24*time.Hour || pauses[11] != pauses[8] || u.Tries != 12 {
		t.Errorf("%v, %d tries", pauses, u.Tries)
	}
}

func TestChosen(t *testing.T) {
	n := 0
	for id := range int64(10_000) {
		if chosen([]byte("salt"), id, 0.1) {
			n++
		}
		if chosen([]byte("salt"), id, 0) || !chosen([]byte("salt"), id, 1) {
			t.Fatal("none and all are not")
		}
	}
	if n < 800 || n > 1200 {
		t.Errorf("%d of 10000 for a tenth", n)
	}
}
