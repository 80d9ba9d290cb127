// Package toolchain keeps the Go toolchains that builds are made with.
//
// A toolchain comes as a version of the module golang.org/toolchain through
// the module proxy; its zip is checked against the checksum database before
// anything of it is unpacked, and nothing of it runs before that. An operator
// may offer a locally installed Go (its GOROOT) for its own version.
//
// Trusted: the checksum database, and a local GOROOT that was offered. Not
// trusted: the module proxy.
//
// On disk: <dir>/<h1 hash in hex>/ holds one unpacked toolchain, read-only,
// and <dir>/<Go version>.json names it. A folder that no such file names is
// left over from a crash and is removed at start.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

// A Toolchain is an installed Go.
type Toolchain struct {
	Version string // go1.26.3
	Root    string // its GOROOT
	Sum     string // h1 hash of its module zip; for a local one "local:" and a hash of its programs
	Targets map[Target]bool
}

// Local reports whether the toolchain is the operator's own.
func (t Toolchain) Local() bool { return strings.HasPrefix(t.Sum, "local:") }

// ErrUnknown is returned for a Go version of which there is no toolchain.
var ErrUnknown = errors.New("there is no such Go version")

// Store gives out toolchains.
type Store struct {
	dir    string
	host   Target
	src    *source.Source
	logger *slog.Logger
	local  map[string]Toolchain

	mu       sync.Mutex
	installs map[string]*install // by Go version
	used     map[string]time.Time
	list     []string  // versions by the proxy's list
	until    time.Time // when to ask again

	index     Index
	line      Line      // what the index said last
	lineUntil time.Time // when to ask it again
}

type install struct {
	done chan struct{}
	tc   Toolchain
	err  error
}

// How long the proxy's list of versions is kept, and that it could not be had.
const (
	listFor   = 10 * time.Minute
	failedFor = 30 * time.Second
)

// Open opens the store in dir. roots are GOROOT folders that are offered for
// their own versions.
func Open(dir string, src *source.Source, roots []string, logger *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, host: Target{runtime.GOOS, runtime.GOARCH}, src: src, logger: logger,
		local: map[string]Toolchain{}, installs: map[string]*install{}, used: map[string]time.Time{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of toolchains: %w", err)
	}
	for _, root := range roots {
		tc, err := openLocal(root)
		if err != nil {
			return nil, err
		}
		s.local[tc.Version] = tc
	}
	if err := s.clean(); err != nil {
		return nil, fmt.Errorf("removing left-over toolchains: %w", err)
	}
	return s, nil
}

// Local returns the folders that are offered.
func (s *Store) Local() []string {
	var roots []string
	for _, tc := range s.local {
		roots = append(roots, tc.Root)
	}
	return roots
}

// openLocal reads what a GOROOT says of itself.
func openLocal(root string) (Toolchain, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return Toolchain{}, fmt.Errorf("offered Go: %w", err)
	}
	if root, err = filepath.Abs(root); err != nil {
		return Toolchain{}, err
	}
	tc, err := read(root)
	if err != nil {
		return Toolchain{}, fmt.Errorf("offered Go in %s: %w", root, err)
	}
	h := sha256.New()
	for _, name := range []string{"bin/go", "compile", "link", "asm"} {
		file := filepath.Join(root, name)
		if name != "bin/go" {
			file = filepath.Join(root, "pkg/tool", runtime.GOOS+"_"+runtime.GOARCH, name)
		}
		f, err := os.Open(file + exe())
		if err != nil {
			return Toolchain{}, fmt.Errorf("offered Go in %s: %w", root, err)
		}
		n, err := io.Copy(h, f)
		f.Close()
		if err != nil {
			return Toolchain{}, fmt.Errorf("offered Go in %s: %w", root, err)
		}
		fmt.Fprintf(h, "%s %d\n", name, n)
	}
	tc.Sum = "local:" + hex.EncodeToString(h.Sum(nil))
	return tc, nil
}

func exe() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// read returns version and targets of a GOROOT.
func read(root string) (Toolchain, error) {
	data, err := os.ReadFile(filepath.Join(root, "VERSION"))
	if err != nil {
		return Toolchain{}, err
	}
	v, _, _ := strings.Cut(string(data), "\n")
	v = strings.TrimSpace(v)
	if !usable(v) {
		return Toolchain{}, fmt.Errorf("its VERSION file says %.60q, which is not a released Go version from %s on", v, Oldest)
	}
	src, err := os.ReadFile(filepath.Join(root, "src", targetsFile))
	if err != nil {
		return Toolchain{}, err
	}
	targets, err := parseTargets(src)
	if err != nil {
		return Toolchain{}, err
	}
	return Toolchain{Version: v, Root: root, Targets: targets}, nil
}

// Versions returns the Go versions there are for this host, newest first. When
// the proxy can't be asked, the versions at hand are returned.
func (s *Store) Versions(ctx context.Context) []string {
	s.mu.Lock()
	list, fresh := s.list, time.Now().Before(s.until)
	s.mu.Unlock()
	if !fresh {
		listCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		all, err := s.src.Proxy.List(listCtx, ModulePath)
		cancel()
		keep := listFor
		if err != nil && !errors.Is(err, goproxy.ErrNotFound) {
			keep = failedFor
			s.logger.Warn("asking the module proxy for Go versions", "err", err)
		}
		if err == nil {
			list = goVersions(all, s.host)
		}
		if ctx.Err() == nil {
			s.mu.Lock()
			s.list, s.until = list, time.Now().Add(keep)
			s.mu.Unlock()
		}
	}
	list = slices.Clone(list)
	for v := range s.local {
		list = append(list, v)
	}
	if len(list) == 0 {
		for _, tc := range s.Installed() {
			list = append(list, tc.Version)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return version.Compare(b, a) })
	return slices.Compact(list)
}

// SetIndex makes an index say which Go versions are current, instead of the
// module proxy's list. Call it before anything else.
func (s *Store) SetIndex(i Index) { s.index = i }

// Line returns the current, previous and next Go version.
func (s *Store) Line(ctx context.Context) (Line, error) {
	if l, ok := s.indexed(ctx); ok {
		return l, nil
	}
	l := choose(s.Versions(ctx))
	if l.Current == "" {
		return l, errors.New("no Go version is known: the module proxy lists none and no local Go is offered")
	}
	return l, nil
}

// Get returns the toolchain of a Go version, installing it if needed. progress
// may be nil. Concurrent calls share one installation.
func (s *Store) Get(ctx context.Context, goVersion string, progress func(string)) (Toolchain, error) {
	if tc, ok := s.local[goVersion]; ok {
		return tc, nil
	}
	if !usable(goVersion) {
		if version.IsValid(goVersion) && version.Lang(goVersion) == goVersion && version.Compare(goVersion, "go1.21") >= 0 {
			return Toolchain{}, fmt.Errorf("%w: %s is a language version, its first toolchain is %s.0", ErrUnknown, goVersion, goVersion)
		}
		return Toolchain{}, fmt.Errorf("%w: %s (builds are made with %s and later)", ErrUnknown, goVersion, Oldest)
	}
	s.mu.Lock()
	s.used[goVersion] = time.Now()
	in, running := s.installs[goVersion]
	if !running {
		in = &install{done: make(chan struct{})}
		s.installs[goVersion] = in
		go func() {
			// Not ctx: others may wait for the same.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Minute)
			defer cancel()
			in.tc, in.err = s.get(ctx, goVersion, progress)
			if in.err != nil {
				s.mu.Lock()
				delete(s.installs, goVersion)
				s.mu.Unlock()
			}
			close(in.done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-in.done:
		return in.tc, in.err
	case <-ctx.Done():
		return Toolchain{}, context.Cause(ctx)
	}
}

// kept is the content of <Go version>.json.
type kept struct {
	Sum       string
	Installed time.Time
}

func dirOf(sum string) string {
	h := sha256.Sum256([]byte(sum))
	return hex.EncodeToString(h[:16])
}

func (s *Store) get(ctx context.Context, goVersion string, progress func(string)) (Toolchain, error) {
	if tc, err := s.load(goVersion); err == nil {
		return tc, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Toolchain{}, err
	}
	return s.install(ctx, goVersion, progress)
}

func (s *Store) load(goVersion string) (Toolchain, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, goVersion+".json"))
	if err != nil {
		return Toolchain{}, err
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil {
		return Toolchain{}, fmt.Errorf("reading the installed %s: %w", goVersion, err)
	}
	tc, err := read(filepath.Join(s.dir, dirOf(k.Sum)))
	if err != nil {
		return Toolchain{}, fmt.Errorf("reading the installed %s: %w", goVersion, err)
	}
	tc.Sum = k.Sum
	return tc, nil
}

// install downloads, verifies and unpacks a toolchain.
func (s *Store) install(ctx context.Context, goVersion string, progress func(string)) (Toolchain, error) {
	if progress == nil {
		progress = func(string) {}
	}
	m := module.Version{Path: ModulePath, Version: moduleVersion(goVersion, s.host)}
	progress("Downloading " + goVersion + ".")
	tmp, err := os.MkdirTemp(s.dir, "new-")
	if err != nil {
		return Toolchain{}, fmt.Errorf("installing %s: %w", goVersion, err)
	}
	defer os.RemoveAll(tmp)
	zipFile := filepath.Join(tmp, "zip")
	sum, err := s.src.Zip(ctx, m, zipFile, goproxy.MaxZip, nil)
	if notFound(err) {
		s.logger.Info("a Go version is not known", "version", goVersion, "err", err)
		return Toolchain{}, fmt.Errorf("%w: %s for %s", ErrUnknown, goVersion, s.host)
	}
	if err != nil {
		return Toolchain{}, fmt.Errorf("installing %s: %w", goVersion, err)
	}
	progress("Verified " + goVersion + " in the checksum database: " + sum + ".")
	root := filepath.Join(tmp, "root")
	if err := modzip.Unzip(root, m, zipFile); err != nil {
		return Toolchain{}, fmt.Errorf("unpacking %s: %w", goVersion, err)
	}
	if err := makeUsable(root); err != nil {
		return Toolchain{}, fmt.Errorf("unpacking %s: %w", goVersion, err)
	}
	tc, err := read(root)
	if err != nil {
		return Toolchain{}, fmt.Errorf("unpacking %s: %w", goVersion, err)
	}
	if tc.Version != goVersion {
		return Toolchain{}, fmt.Errorf("unpacking %s: it says that it is %s", goVersion, tc.Version)
	}
	tc.Sum, tc.Root = sum, filepath.Join(s.dir, dirOf(sum))
	if err := os.RemoveAll(tc.Root); err != nil {
		return Toolchain{}, fmt.Errorf("installing %s: %w", goVersion, err)
	}
	// All of it, before anything names it: a file that lost its content would be compiled.
	if err := errors.Join(durable.SyncTree(root), durable.Rename(root, tc.Root)); err != nil {
		return Toolchain{}, fmt.Errorf("installing %s: %w", goVersion, err)
	}
	data, err := json.Marshal(kept{Sum: sum, Installed: time.Now().UTC()})
	if err != nil {
		return Toolchain{}, err
	}
	if err := durable.WriteFile(filepath.Join(s.dir, goVersion+".json"), data, 0o644); err != nil {
		return Toolchain{}, err
	}
	s.logger.Info("installed a Go toolchain", "version", goVersion, "sum", sum)
	return tc, nil
}

// makeUsable gives an unpacked module zip what such a zip can't hold: the
// executable bit of programs, and go.mod files in subfolders, which are
// stored as _go.mod. Everything is readable for all and writable for nobody.
func makeUsable(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			return os.Chmod(path, 0o755)
		case strings.HasPrefix(rel, "bin/"), strings.HasPrefix(rel, "pkg/tool/"):
			return os.Chmod(path, 0o555)
		}
		if err := os.Chmod(path, 0o444); err != nil {
			return err
		}
		if d.Name() == "_go.mod" {
			return os.Rename(path, filepath.Join(filepath.Dir(path), "go.mod"))
		}
		return nil
	})
}

func notFound(err error) bool {
	return errors.Is(err, goproxy.ErrNotFound) || errors.Is(err, tlog.ErrNotFound)
}

// Trim removes toolchains that were not used for a time; the newest stays. The
// caller knows that no build runs.
func (s *Store) Trim(unused time.Duration, now time.Time) error {
	list := s.Installed()
	newest := ""
	for _, tc := range list {
		if newest == "" || version.Compare(tc.Version, newest) > 0 {
			newest = tc.Version
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tc := range list {
		used, ok := s.used[tc.Version]
		if !ok {
			// Not since the start.
			s.used[tc.Version] = now
			continue
		}
		if tc.Local() || tc.Version == newest || now.Sub(used) < unused {
			continue
		}
		// First what names it: a folder without is removed at the next start.
		delete(s.installs, tc.Version)
		if err := errors.Join(os.Remove(filepath.Join(s.dir, tc.Version+".json")), os.RemoveAll(tc.Root)); err != nil {
			return fmt.Errorf("removing %s, which is not used: %w", tc.Version, err)
		}
		s.logger.Info("removed a Go toolchain that is not used", "version", tc.Version)
	}
	return nil
}

// Installed returns the toolchains at hand, local ones first.
func (s *Store) Installed() []Toolchain {
	var list []Toolchain
	for _, tc := range s.local {
		list = append(list, tc)
	}
	names, err := filepath.Glob(filepath.Join(s.dir, "go*.json"))
	if err != nil {
		return list
	}
	for _, name := range names {
		if tc, err := s.load(strings.TrimSuffix(filepath.Base(name), ".json")); err == nil {
			list = append(list, tc)
		}
	}
	return list
}

// clean removes what an interrupted installation left behind.
func (s *Store) clean() error {
	known := map[string]bool{}
	for _, tc := range s.Installed() {
		if !tc.Local() {
			known[filepath.Base(tc.Root)] = true
			known[tc.Version+".json"] = true
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !known[e.Name()] {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
