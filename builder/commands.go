package builder

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/sync/singleflight"

	"example.org/upkeep/builder/source"
)

// commandLists finds the main packages of modules in their verified zips.
type commandLists struct {
	src    *source.Source
	dir    string
	slots  chan struct{} // one for each list that is being made
	single singleflight.Group

	mu    sync.Mutex
	known map[module.Version][]Command
}

const (
	maxCommandLists = 1000
	maxListZip      = 100 << 20 // bytes
	maxListFiles    = 50_000    // files of a zip that are looked at
	maxListFile     = 256 << 10 // bytes of a file, up to its package clause
)

func (c *commandLists) get(ctx context.Context, m module.Version) ([]Command, error) {
	c.mu.Lock()
	list, ok := c.known[m]
	c.mu.Unlock()
	if ok {
		return list, nil
	}
	v, err, shared := c.single.Do(m.String(), func() (any, error) { return c.read(ctx, m) })
	for shared && errors.Is(err, context.Canceled) && ctx.Err() == nil {
		// It was read for somebody else, who went away.
		v, err, shared = c.single.Do(m.String(), func() (any, error) { return c.read(ctx, m) })
	}
	if err != nil {
		return nil, err
	}
	list = v.([]Command)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxCommandLists {
		clear(c.known)
	}
	c.known[m] = list
	return list, nil
}

func (c *commandLists) read(ctx context.Context, m module.Version) ([]Command, error) {
	if err := module.Check(m.Path, m.Version); err != nil {
		return nil, notFound(sentence(err.Error()))
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tmp, err := os.MkdirTemp(c.dir, "list-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "zip")
	if _, err := c.src.Zip(ctx, m, file, maxListZip, nil); err != nil {
		return nil, err
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return nil, permanent("The module's zip can't be read: " + printable(err.Error()))
	}
	defer z.Close()
	return mainPackages(&z.Reader, m)
}

// mainPackages returns the folders of a module's zip that hold package main.
func mainPackages(z *zip.Reader, m module.Version) ([]Command, error) {
	prefix := m.Path + "@" + m.Version + "/"
	found := map[string]Command{}
	for i, f := range z.File {
		if i >= maxListFiles {
			break
		}
		rel, ok := strings.CutPrefix(f.Name, prefix)
		if !ok || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			continue
		}
		dir := path.Dir(rel)
		if dir == "." {
			dir = ""
		}
		if hidden(rel) || found[dir].Synopsis != "" {
			continue
		}
		name, text, err := packageClause(f)
		if err != nil || name != "main" {
			continue
		}
		pkg := path.Join(m.Path, dir)
		if module.CheckImportPath(pkg) != nil {
			continue
		}
		found[dir] = Command{Dir: dir, Name: path.Base(pkg), Synopsis: printable(text)}
	}
	list := make([]Command, 0, len(found))
	for _, c := range found {
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Dir < list[j].Dir })
	return list, nil
}

// hidden reports whether the go command leaves a file out of "./...", or a
// file is not built unless asked for by name.
func hidden(rel string) bool {
	elems := strings.Split(rel, "/")
	for i, e := range elems {
		if strings.HasPrefix(e, "_") || strings.HasPrefix(e, ".") || i < len(elems)-1 && (e == "testdata" || e == "vendor") {
			return true
		}
	}
	return false
}

func packageClause(f *zip.File) (name, synopsis string, err error) {
	r, err := f.Open()
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxListFile))
	if err != nil {
		return "", "", err
	}
	if strings.Contains(string(data), "//go:build ignore") {
		return "", "", errors.New("left out")
	}
	file, err := parser.ParseFile(token.NewFileSet(), "", data, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		return "", "", fmt.Errorf("no package clause: %w", err)
	}
	if file.Doc != nil {
		synopsis = new(doc.Package).Synopsis(file.Doc.Text())
	}
	return file.Name.Name, synopsis, nil
}
