// Package modserver is a small module ecosystem of one's own: a module proxy
// and the checksum database beside it, on one HTTP port, speaking the same
// protocols as the public ones.
//
// It trusts whoever calls [Server.Publish] and nobody who connects. It is for
// the demo and for tests: it holds what was published to it and fetches
// nothing.
//
// Files on disk, below the server's folder:
//
//	proxy/<escaped path>/@v/{list,<version>.info,.mod,.zip}  what the module proxy serves
//	sumdb/                                                   the checksum database's log
//	sumdb.key                                                its signer key
//
// A version appears in @v/list last, when its files and its record are durable,
// so a crash while publishing leaves nothing visible; publishing it again
// finishes the job.
package modserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

// Server is a module proxy with its checksum database.
type Server struct {
	dir  string
	name string
	log  *tlog.Log
	mu   sync.Mutex // one Publish at a time
}

// Open opens the ecosystem in a folder, making it when it is not there. The
// name is the checksum database's; it becomes part of its key.
func Open(dir, name string) (*Server, error) {
	if err := os.MkdirAll(filepath.Join(dir, "proxy"), 0o755); err != nil {
		return nil, err
	}
	keyFile := filepath.Join(dir, "sumdb.key")
	key, err := os.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		var skey string
		if skey, _, err = tlog.GenerateKey(name); err != nil {
			return nil, err
		}
		key = []byte(skey)
		err = durable.WriteFile(keyFile, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("checksum database's key: %w", err)
	}
	log, err := tlog.OpenLog(filepath.Join(dir, "sumdb"), string(key), tlog.LogOptions{})
	if err != nil {
		return nil, fmt.Errorf("checksum database: %w", err)
	}
	return &Server{dir: dir, name: name, log: log}, nil
}

// Close closes the log.
func (s *Server) Close() error { return s.log.Close() }

// VerifierKey returns the checksum database's key, for GOSUMDB.
func (s *Server) VerifierKey() string { return s.log.VerifierKey() }

// Publish makes a version known: files are those of the module, by slash path.
// A version that is already published is left as it is.
func (s *Server) Publish(ctx context.Context, mod module.Version, at time.Time, files map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.publish(ctx, mod, at, files); err != nil {
		return fmt.Errorf("publishing %s: %w", mod, err)
	}
	return nil
}

func (s *Server) publish(ctx context.Context, mod module.Version, at time.Time, files map[string][]byte) error {
	escPath, err := module.EscapePath(mod.Path)
	if err != nil {
		return err
	}
	escVersion, err := module.EscapeVersion(mod.Version)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "proxy", filepath.FromSlash(escPath), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	listFile := filepath.Join(dir, "list")
	list, err := os.ReadFile(listFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	versions := strings.Fields(string(list))
	if slices.Contains(versions, mod.Version) {
		return nil
	}

	base := filepath.Join(dir, escVersion)
	var zfiles []modzip.File
	for name, data := range files {
		zfiles = append(zfiles, zipFile{name, data})
	}
	err = durable.WriteTo(base+".zip", 0o644, func(w io.Writer) error { return modzip.Create(w, mod, zfiles) })
	if err != nil {
		return err
	}
	if err := durable.WriteFile(base+".mod", files["go.mod"], 0o644); err != nil {
		return err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{mod.Version, at.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(base+".info", info, 0o644); err != nil {
		return err
	}

	key := escPath + "@" + escVersion
	if _, ok := s.log.Find(key); !ok {
		zipHash, err := dirhash.HashZip(base+".zip", dirhash.Hash1)
		if err != nil {
			return err
		}
		modHash, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(files["go.mod"])), nil
		})
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s %s %s\n%s %s/go.mod %s\n", mod.Path, mod.Version, zipHash, mod.Path, mod.Version, modHash)
		if _, err := s.log.Append(ctx, tlog.Entry{Key: key, Text: []byte(text)}); err != nil {
			return err
		}
	}
	versions = append(versions, mod.Version)
	semver.Sort(versions)
	return durable.WriteFile(listFile, []byte(strings.Join(versions, "\n")+"\n"), 0o644)
}

// Handler serves the module proxy at the root and the checksum database below
// /sumdb/<name>/.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	db := "/sumdb/" + s.name
	mux.HandleFunc("GET "+db+"/supported", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("GET "+db+"/", http.StripPrefix(db, s.log.Handler(nil)))
	mux.HandleFunc("GET /", s.proxy)
	return mux
}

func (s *Server) proxy(w http.ResponseWriter, r *http.Request) {
	file := path.Clean(r.URL.Path)
	at := strings.LastIndex(file, "/@")
	if at < 0 {
		http.NotFound(w, r)
		return
	}
	switch ext := path.Ext(file); {
	case file[at:] == "/@latest":
		s.latest(w, r, file[:at])
		return
	case file[at:] == "/@v/list", ext == ".mod":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	case ext == ".info":
		w.Header().Set("Content-Type", "application/json")
	case ext == ".zip":
		w.Header().Set("Content-Type", "application/zip")
	default:
		http.NotFound(w, r)
		return
	}
	http.ServeFileFS(w, r, os.DirFS(filepath.Join(s.dir, "proxy")), strings.TrimPrefix(file, "/"))
}

func (s *Server) latest(w http.ResponseWriter, r *http.Request, escPath string) {
	dir := os.DirFS(filepath.Join(s.dir, "proxy"))
	list, err := fs.ReadFile(dir, strings.TrimPrefix(escPath, "/")+"/@v/list")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	versions := strings.Fields(string(list))
	newest := versions[len(versions)-1]
	for _, v := range slices.Backward(versions) {
		if semver.Prerelease(v) == "" {
			newest = v
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	http.ServeFileFS(w, r, dir, strings.TrimPrefix(escPath, "/")+"/@v/"+newest+".info")
}

// zipFile is a file at hand as modzip.Create wants it.
type zipFile struct {
	name string
	data []byte
}

func (f zipFile) Path() string                 { return f.name }
func (f zipFile) Lstat() (fs.FileInfo, error)  { return f, nil }
func (f zipFile) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }
func (f zipFile) Name() string                 { return path.Base(f.name) }
func (f zipFile) Size() int64                  { return int64(len(f.data)) }
func (f zipFile) Mode() fs.FileMode            { return 0o644 }
func (f zipFile) ModTime() time.Time           { return time.Time{} }
func (f zipFile) IsDir() bool                  { return false }
func (f zipFile) Sys() any                     { return nil }
