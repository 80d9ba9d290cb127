// Package web is what the pages of all programs share: the layout, one style
// sheet, one script, server-sent events, and the middleware that keeps other
// people's pages away from ours.
//
// Nothing in a request is trusted. Names, versions, reasons and log lines that
// a page shows are foreign text as well; they reach it through html/template
// only. The script adds comfort (live steps, times in the viewer's zone) and
// no function: every page and every action works without it.
//
// There are no files on disk: templates, style and script are in the binary.
package web

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
)

//go:embed layout.html
var layoutFS embed.FS

// A Link is one entry of a page's navigation.
type Link struct {
	Href, Text string
	Current    bool
}

// A Page is what the layout needs besides the template called "main".
type Page struct {
	Title   string // of the window, without the program's name
	Program string // "upkeep", "upkeep-build", "upkeep-dns"
	Nav     []Link
	Refresh int    // without JavaScript: reload after so many seconds, 0 = never
	Live    string // address of server-sent events that say "look again", "" = none
	User    string // who is logged in, "" = nobody or no login
	Feed    string // address of an Atom feed, "" = none
	Data    any    // for the template called "main"
}

// Version is shown at the foot of every page.
func (Page) Version() string { return version() }

var version = sync.OnceValue(func() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "unknown version"
})

// Templates are the layout and the pages of one program. They are parsed when
// the first page is asked for: a supervisor whose page nobody looks at needs
// no memory for it.
type Templates struct {
	pages func() (map[string]*template.Template, error)
	log   *slog.Logger
}

// NewTemplates takes the files of a folder: each *.html whose name starts with
// "_" is shared by all the others, every other one is a page that defines
// "main". A mistake in one is a mistake in the program: each package has a
// test that renders every page.
func NewTemplates(files fs.FS, funcs template.FuncMap, log *slog.Logger) *Templates {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Templates{log: log, pages: sync.OnceValues(func() (map[string]*template.Template, error) {
		return parse(files, funcs)
	})}
}

func parse(files fs.FS, funcs template.FuncMap) (map[string]*template.Template, error) {
	base, err := template.New("layout.html").Funcs(Funcs()).Funcs(funcs).ParseFS(layoutFS, "layout.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(files, "*.html")
	if err != nil {
		return nil, err
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		if name[0] == '_' {
			if _, err := base.ParseFS(files, name); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range names {
		if name[0] == '_' {
			continue
		}
		page, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if pages[name], err = page.ParseFS(files, name); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// Render writes the page called name. A page is written whole or, when its
// template fails, not at all.
func (t *Templates) Render(w http.ResponseWriter, status int, name string, p Page) {
	var b bytes.Buffer
	pages, err := t.pages()
	page, ok := pages[name]
	if err != nil || !ok {
		t.log.Error("there is no such page template", "page", name, "err", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	if err := page.ExecuteTemplate(&b, "layout.html", p); err != nil {
		t.log.Error("the page could not be made", "page", name, "err", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the viewer has gone away, nobody to tell
}
