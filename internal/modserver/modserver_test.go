package modserver

import (
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

func source(version string) map[string][]byte {
	return map[string][]byte{
		"go.mod":  []byte("module example.org/Hello\n\ngo 1.24\n"),
		"main.go": []byte("package main\n\nfunc main() { println(\"" + version + "\") }\n"),
	}
}

// The go command itself fetches and verifies what was published.
func TestGoCommand(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, "sum.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"v1.0.0", "v1.1.0-rc.1", "v1.0.1"} {
		if err := s.Publish(t.Context(), module.Version{Path: "example.org/Hello", Version: v}, time.Unix(1.7e9, 0), source(v)); err != nil {
			t.Fatal(err)
		}
	}
	key := s.VerifierKey()

	// What was published is still there after a restart, with the same key.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, "sum.example.org"); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.VerifierKey() != key {
		t.Fatalf("key %s became %s", key, s.VerifierKey())
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()

	tmp := t.TempDir()
	run := func(gosumdb string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = tmp
		cmd.Env = append(os.Environ(), "GOPROXY="+srv.URL, "GOSUMDB="+gosumdb, "GOFLAGS=-modcacherw", "GONOSUMDB=", "GONOSUMCHECK=", "GOPRIVATE=",
			"GOMODCACHE="+filepath.Join(tmp, "mod"), "GOPATH="+filepath.Join(tmp, "path"), "GO111MODULE=on", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	gosumdb := key + " " + srv.URL + "/sumdb/sum.example.org"
	if out, err := run(gosumdb, "list", "-m", "-versions", "example.org/Hello@latest"); err != nil || out != "example.org/Hello v1.0.0 v1.0.1 v1.1.0-rc.1\n" {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	if out, err := run(gosumdb, "mod", "download", "-json", "example.org/Hello@latest"); err != nil || !strings.Contains(out, `"Version": "v1.0.1"`) {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}

	// A zip that was changed is refused by the go command.
	zip := filepath.Join(dir, "proxy", "example.org", "!hello", "@v", "v1.0.0.zip")
	data, err := os.ReadFile(zip)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(data, []byte("main.go"), []byte("main.gO"), -1)
	if err := os.WriteFile(zip, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := run(gosumdb, "mod", "download", "example.org/Hello@v1.0.0"); err == nil || !strings.Contains(out, "checksum mismatch") {
		t.Fatalf("go mod download of a changed zip: %v\n%s", err, out)
	}
}

// Publishing twice changes nothing, and an interrupted publication is finished.
func TestPublishAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, "sum.example.org")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mod := module.Version{Path: "example.org/Hello", Version: "v1.0.0"}
	for i := range 3 {
		if i == 2 { // as if it had ended before the list was written
			if err := os.Remove(filepath.Join(dir, "proxy", "example.org", "!hello", "@v", "list")); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Publish(t.Context(), mod, time.Unix(1.7e9, 0), source("v1.0.0")); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.log.Head().Size; n != 1 {
		t.Fatalf("the log has %d records; want 1", n)
	}
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	proxy, err := goproxy.New(srv.URL, srv.Client())
	if err != nil {
		t.Fatal(err)
	}
	info, err := proxy.Latest(t.Context(), "example.org/Hello")
	if err != nil || info.Version != "v1.0.0" || info.Time.Unix() != 1.7e9 {
		t.Fatalf("latest: %+v, %v", info, err)
	}
	client, err := tlog.NewClient(tlog.ClientConfig{Key: s.VerifierKey(), URL: srv.URL + "/sumdb/sum.example.org", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	rec, err := client.Lookup(t.Context(), "example.org/!hello@v1.0.0")
	if err != nil || !strings.HasPrefix(string(rec.Data), "example.org/Hello v1.0.0 h1:") {
		t.Fatalf("lookup: %q, %v", rec.Data, err)
	}
	if resp, err := srv.Client().Get(srv.URL + "/../sumdb.key"); err != nil || resp.StatusCode != 404 {
		t.Fatalf("a file outside the proxy: %v, %v", resp, err)
	}
}
