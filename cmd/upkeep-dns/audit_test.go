package main

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/tlog/logtest"
)

// An audit tells of versions with two records, with status 1; what it reads is
// kept, so that it needs the server for the tree head only the second time.
func TestAudit(t *testing.T) {
	content := logtest.Content{Spread: 2000}
	key := ""
	for _, duplicate := range []int64{0, 5000} {
		content.Duplicate = duplicate
		log, err := logtest.NewServer("", content, 12_000)
		if err != nil {
			t.Fatal(err)
		}
		key = log.VerifierKey()
		name, _, _ := strings.Cut(key, "+")
		srv := httptest.NewServer(log)
		defer srv.Close()
		dir := t.TempDir()
		args := []string{"audit", "-state", filepath.Join(dir, "state"), "-tiles", filepath.Join(dir, "tiles"), "-url", srv.URL, "-proxy", srv.URL, "-database", key}
		for range 2 {
			out, errs, code := upkeepDNS(t, args...)
			if duplicate == 0 {
				if want := "12000 records of log " + name + ", all under its tree head; 0 malformed; 0 versions with several records, of which 0 differ\n"; code != 0 || out != want {
					t.Errorf("an honest log: status %d, %q, %s; want %q", code, out, errs, want)
				}
			} else {
				for _, want := range []string{" has 2 records with DIFFERENT HASHES\n\trecord ", "record 4999: zip h1:", "record 9999: zip h1:", "0 malformed; 2 versions with several records, of which 2 differ\n", name + " "} {
					if !strings.Contains(out, want) {
						t.Errorf("a log with two records for a version: no %q in\n%s%s", want, out, errs)
					}
				}
				if code != 1 {
					t.Errorf("a log with two records for a version: status %d", code)
				}
			}
			log.SetFaults(logtest.Faults{RefuseData: true}) // of the second time
		}
	}
	_, errs, code := upkeepDNS(t, "audit", "-state", t.TempDir(), "-url", "http://127.0.0.1:1", "-proxy", "http://127.0.0.1:1", "-database", key)
	if code == 0 || !strings.Contains(errs, "127.0.0.1:1") {
		t.Errorf("no log: status %d, %s", code, errs)
	}
}
