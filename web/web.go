// Package web is what the pages of all programs share: the layout, one style
// sheet, one script, server-sent events, and the middleware that keeps other
// people's pages away from ours.
//
// Nothing in a request is trusted. Names, versions, reasons and log lines that
// a page shows are foreign text as well; they reach it through the templates
// only, which escape them. The script adds comfort (live steps, times in the
// viewer's zone) and no function: every page and every action works without it.
//
// Templates are the files *.templ, which templ makes Go functions of (go
// generate ./web); what it makes is in the repository. It escapes texts and
// values of attributes, and checks the scheme of an address in href of a and
// link and in action of form, nowhere else. So foreign text stands in elements,
// in those attributes, and in others that hold neither addresses nor code. What
// goes past the escaping (templ.Raw, templ.SafeURL) and what writes script or
// style into a page is for values that our own code made; there is none of it,
// and a test of this package keeps it so.
//
// There are no files on disk: templates, style and script are in the binary.
package web

// The positions of errors, which only texts that can fail would need, are left
// out of what templ makes: they would be a tenth of its code. For the same
// reason components that stand in several places are marked go:noinline, else
// each place gets a copy.
//
//go:generate go run github.com/a-h/templ/cmd/templ@v0.3.977 generate
//go:generate gofmt -w -r "templ.Error{Err: a, FileName: b, Line: c, Col: d} -> a" .

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"

	"github.com/a-h/templ"
)

// A Link is one entry of a page's navigation.
type Link struct {
	Href, Text string
	Current    bool
}

// A Page is what the layout needs besides the page's own part.
type Page struct {
	Title   string // of the window, without the program's name
	Program string // "upkeep", "upkeep-build", "upkeep-dns"
	Nav     []Link
	Refresh int             // without JavaScript: reload after so many seconds, 0 = never
	Live    string          // address of server-sent events that say "look again", "" = none
	User    string          // who is logged in, "" = nobody or no login
	Feed    string          // address of an Atom feed, "" = none
	Main    templ.Component // the page's own part
}

// version is shown at the foot of every page.
var version = sync.OnceValue(func() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "unknown version"
})

// Render writes a page. It is written whole or, when its template fails, not at all.
func Render(log *slog.Logger, w http.ResponseWriter, status int, p Page) {
	var b bytes.Buffer
	// Not the request's context: a viewer who goes away is no fault of the page.
	if err := layout(p).Render(context.Background(), &b); err != nil {
		log.Error("the page could not be made", "page", p.Title, "err", err)
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	// Bytes that HTML can't hold, which foreign text may have, are made visible.
	page := bytes.ToValidUTF8(bytes.ReplaceAll(b.Bytes(), []byte{0}, []byte(replacement)), []byte(replacement))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(page)))
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	_, _ = w.Write(page) // the viewer has gone away, nobody to tell
}

const replacement = "\uFFFD"
