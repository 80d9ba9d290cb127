package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"path"
	"strings"
)

//go:embed static
var staticFS embed.FS

// staticPrefix starts the address of every static file.
const staticPrefix = "/static/"

type staticFile struct {
	data []byte
	kind string
}

// The address of a static file holds a part of its hash, so that browsers may
// keep it for ever and a new release never meets an old style sheet.
var staticByURL, staticURLs = loadStatic()

func loadStatic() (map[string]staticFile, map[string]string) {
	kinds := map[string]string{
		".css": "text/css; charset=utf-8",
		".js":  "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}
	files, urls := map[string]staticFile{}, map[string]string{}
	entries, err := staticFS.ReadDir("static")
	if err != nil {
		panic(fmt.Sprintf("web: static files: %v", err))
	}
	for _, e := range entries {
		data, err := staticFS.ReadFile("static/" + e.Name())
		if err != nil {
			panic(fmt.Sprintf("web: static files: %v", err))
		}
		sum := sha256.Sum256(data)
		ext := path.Ext(e.Name())
		url := staticPrefix + strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		files[url], urls[e.Name()] = staticFile{data, kinds[ext]}, url
	}
	return files, urls
}

// Static serves the style sheet, the script and the icon below /static/.
func Static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := staticByURL[r.URL.Path]
		if !ok {
			http.Error(w, "there is no such file", http.StatusNotFound)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.kind)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(f.data)
	})
}

// staticURL is the address of a static file, for templates.
func staticURL(name string) (string, error) {
	url, ok := staticURLs[name]
	if !ok {
		return "", fmt.Errorf("there is no static file %s", name)
	}
	return url, nil
}
