package goproxy

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("addresses of files have no drive")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "list"), []byte("v1.0.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "empty +%"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/list", 200, "v1.0.0\n"},
		{"GET", "/empty +%", 200, ""},
		{"GET", "/none", 404, ""},
		{"GET", "", 404, ""}, // a folder
		{"GET", "/x/../../../../../../../../../../../../none", 404, ""},
		{"GET", "/li\x00st", 404, ""},
		{"GET", "/list/below", 0, ""},
		{"POST", "/list", 405, ""},
		{"HEAD", "/list", 405, ""},
	} {
		req := &http.Request{Method: tt.method, URL: &url.URL{Scheme: "file", Path: filepath.ToSlash(dir) + tt.path}, Body: io.NopCloser(strings.NewReader(""))}
		res, err := files{}.RoundTrip(req)
		if tt.status == 0 {
			if err == nil {
				t.Errorf("%s: status %d", tt.path, res.StatusCode)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != tt.status || string(body) != tt.body || res.StatusCode == 200 && res.ContentLength != int64(len(tt.body)) {
			t.Errorf("%s %s: status %d, %q, %v", tt.method, tt.path, res.StatusCode, body, err)
		}
		res.Body.Close()
	}
}
