package indexpage

import (
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strings"
	"time"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/web"
)

// A version is an entry in the shape of the pages and of the API.
type version struct {
	Version string    `json:"version"`
	Kind    string    `json:"kind,omitempty"`
	Time    time.Time `json:"discovered"`
	Record  int64     `json:"record"`
}

func newVersion(v index.Version, kind string) version {
	return version{v.Version, kind, time.Unix(v.Time, 0).UTC(), v.Record}
}

// A found is what is known of one module.
type found struct {
	Path     string    `json:"module"`
	Name     string    `json:"name,omitempty"` // in the zone
	Text     string    `json:"text,omitempty"` // of the TXT record
	Majors   []version `json:"versions"`
	Minors   []version `json:"minor_lines,omitempty"`
	Pre      *version  `json:"prerelease,omitempty"`
	Pseudo   *version  `json:"pseudo,omitempty"`
	Later    []string  `json:"later_majors,omitempty"` // paths of the module's later major versions
	NoName   string    `json:"no_name,omitempty"`      // why it has no name in the zone
	LogSize  int64     `json:"log_size"`
	Accepted time.Time `json:"log_read"`

	Ask ask `json:"-"`
}

// look returns what is known of a module, and false when it is unknown.
func (s *server) look(path string) (found, bool, error) {
	m, ok, err := s.index.Module(path)
	if err != nil || !ok {
		return found{}, false, err
	}
	head, err := s.index.Head()
	if err != nil {
		return found{}, false, err
	}
	f := found{Path: path, LogSize: head.Size, Accepted: head.Accepted, Majors: []version{}}
	var entries []name.Entry
	for _, v := range m.Majors {
		f.Majors = append(f.Majors, newVersion(v, ""))
		entries = append(entries, name.Entry{Version: v.Version, Time: time.Unix(v.Time, 0)})
	}
	for _, v := range m.Minors {
		f.Minors = append(f.Minors, newVersion(v, ""))
	}
	if m.Pre != nil {
		v := newVersion(*m.Pre, "prerelease")
		f.Pre = &v
	}
	if m.Pseudo != nil {
		v := newVersion(*m.Pseudo, "pseudo")
		f.Pseudo = &v
	}
	if f.Later, err = s.index.Later(path); err != nil {
		return found{}, false, err
	}
	if qname, err := name.Module(path, s.cfg.Zone); err != nil {
		f.NoName = err.Error()
	} else {
		f.Name, f.Ask = qname, s.ask(qname)
		if len(entries) > 0 {
			f.Text = name.FormatTXT(entries)
		}
	}
	return f, true, nil
}

func (s *server) module(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	if err := checkPath(path); err != nil {
		s.message(w, http.StatusBadRequest, "This is not a module path", err.Error())
		return
	}
	f, ok, err := s.look(path)
	if err != nil {
		s.fail(w, err)
		return
	}
	if !ok {
		text := "The index has no version of " + path + "."
		if prefix, err := s.index.IsPrefix(path); err == nil && prefix {
			text += " Some modules have paths below it."
		}
		s.message(w, http.StatusNotFound, "Not found", text)
		return
	}
	p := s.page(path, moduleMain(f))
	p.Feed = "/feed/" + escapePath(path)
	web.Render(s.log, w, http.StatusOK, p)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, `{"error":"the answer could not be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the caller has gone away, nobody to tell
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, struct {
		Error string `json:"error"`
	}{text})
}

func (s *server) apiModule(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	if err := checkPath(path); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	f, ok, err := s.look(path)
	switch {
	case err != nil:
		s.log.Error("the index does not answer", "err", err)
		writeError(w, http.StatusInternalServerError, "the index does not answer")
	case !ok:
		writeError(w, http.StatusNotFound, "module "+path+" is not in the index")
	default:
		writeJSON(w, http.StatusOK, f)
	}
}

func (s *server) apiStatus(w http.ResponseWriter, _ *http.Request) {
	head, err := s.index.Head()
	if err != nil {
		s.log.Error("the index does not answer", "err", err)
		writeError(w, http.StatusInternalServerError, "the index does not answer")
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Zone    string    `json:"zone"`
		Log     string    `json:"log,omitempty"`
		LogSize int64     `json:"log_size"`
		Hash    string    `json:"hash"`
		Read    time.Time `json:"log_read"`
	}{s.cfg.Zone, s.cfg.LogName, head.Size, fmt.Sprintf("%x", head.Hash), head.Accepted})
}

// Atom: RFC 4287.
type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	Title   string      `xml:"title"`
	ID      string      `xml:"id"`
	Updated string      `xml:"updated"`
	Author  atomAuthor  `xml:"author"`
	Links   []atomLink  `xml:"link"`
	Entries []atomEntry `xml:"entry"`
}

type atomAuthor struct {
	Name string `xml:"name"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	Title   string   `xml:"title"`
	ID      string   `xml:"id"`
	Updated string   `xml:"updated"`
	Link    atomLink `xml:"link"`
	Summary string   `xml:"summary"`
}

// feed lists the newest release of each major version, newest discovery first.
func (s *server) feed(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("path")
	if err := checkPath(path); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f, ok, err := s.look(path)
	if err != nil {
		s.log.Error("the index does not answer", "err", err)
		http.Error(w, "the index does not answer", http.StatusInternalServerError)
		return
	}
	if !ok {
		http.Error(w, "module "+path+" is not in the index", http.StatusNotFound)
		return
	}
	scheme := "http://"
	if r.TLS != nil || s.cfg.Security.HTTPS {
		scheme = "https://"
	}
	page := scheme + r.Host + "/module/" + escapePath(path)
	feed := atomFeed{
		Title: path, ID: feedID(path), Author: atomAuthor{"upkeep index " + strings.TrimSuffix(s.cfg.Zone, ".")},
		Links: []atomLink{{"self", scheme + r.Host + r.URL.EscapedPath()}, {"alternate", page}},
	}
	updated := f.Accepted
	for i, v := range append(f.Majors, f.Minors...) {
		if i >= len(f.Majors) && hasVersion(f.Majors, v.Version) {
			continue
		}
		feed.Entries = append(feed.Entries, atomEntry{
			Title: path + " " + v.Version, ID: feedID(path + "@" + v.Version), Updated: v.Time.Format(time.RFC3339),
			Link: atomLink{Href: page}, Summary: fmt.Sprintf("Record %d of the log.", v.Record),
		})
		if i == 0 || v.Time.After(updated) {
			updated = v.Time
		}
	}
	feed.Updated = updated.UTC().Format(time.RFC3339)
	b, err := xml.MarshalIndent(feed, "", "  ")
	if err != nil {
		http.Error(w, "the feed could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/atom+xml; charset=utf-8")
	_, _ = w.Write(append([]byte(xml.Header), b...)) // the caller has gone away, nobody to tell
}

func hasVersion(list []version, v string) bool {
	for _, have := range list {
		if have.Version == v {
			return true
		}
	}
	return false
}

// feedID is a UUID made of a text, the same for ever wherever the feed is served.
func feedID(text string) string {
	h := sha256.Sum256([]byte("upkeep index " + text))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // version 8, RFC 9562
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}
