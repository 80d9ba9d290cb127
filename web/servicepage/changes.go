package servicepage

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/buildinfo"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
)

// A change is a module that differs between two binaries.
type change struct {
	Module   string
	Old, New string // versions, "" when it is not there
	Kind     string // added, removed, newer, older, replaced
}

func (c change) tone() string {
	if c.Kind == "newer" {
		return "good"
	}
	return "warn"
}

// changes compares what two binaries were built of.
func changes(old, new *debug.BuildInfo) []change {
	versions := func(bi *debug.BuildInfo) map[string]string {
		m := map[string]string{"Go": bi.GoVersion, bi.Main.Path: bi.Main.Version}
		for _, d := range bi.Deps {
			v := d.Version
			if d.Replace != nil {
				v += " (replaced by " + strings.TrimSpace(d.Replace.Path+" "+d.Replace.Version) + ")"
			}
			m[d.Path] = v
		}
		return m
	}
	a, b := versions(old), versions(new)
	all := maps.Clone(a)
	maps.Copy(all, b)
	var list []change
	for _, path := range slices.Sorted(maps.Keys(all)) {
		c := change{Module: path, Old: a[path], New: b[path], Kind: "newer"}
		switch {
		case c.Old == c.New:
			continue
		case c.Old == "":
			c.Kind = "added"
		case c.New == "":
			c.Kind = "removed"
		case strings.Contains(c.Old+c.New, " "):
			c.Kind = "replaced"
		case semver.Compare(goSemver(c.New), goSemver(c.Old)) < 0:
			c.Kind = "older"
		}
		list = append(list, c)
	}
	return list
}

// goSemver makes go1.26.8 comparable.
func goSemver(v string) string {
	if rest, ok := strings.CutPrefix(v, "go"); ok {
		return "v" + rest
	}
	return v
}

// changesLink is the page of the changes of an update whose binaries are both
// still there, "" else.
func (s *server) changesLink(st supervisor.Status, r supervisor.Result) string {
	self := isOwn(r.Kind)
	if r.From == r.To || binary(st, r.From, self) == "" || binary(st, r.To, self) == "" {
		return ""
	}
	q := url.Values{"from": {r.From.Version + " " + r.From.GoVersion}, "to": {r.To.Version + " " + r.To.GoVersion}}
	if self {
		q.Set("self", "true")
	}
	return s.path("/changes") + "?" + q.Encode()
}

// binary is the file of a version that is still there, "" else.
func binary(st supervisor.Status, p supervisor.Pair, self bool) string {
	kept, path := st.Kept, st.Service.Path
	if self {
		kept, path = st.Self.Kept, st.Self.Path
	}
	for _, k := range kept {
		if k.Pair == p && k.File != "" {
			if filepath.IsAbs(k.File) {
				return k.File
			}
			return filepath.Join(filepath.Dir(path), k.File)
		}
	}
	return ""
}

func parsePair(text string) supervisor.Pair {
	v, g, _ := strings.Cut(text, " ")
	return supervisor.Pair{Version: v, GoVersion: g}
}

// showChanges lists what differs between two binaries that the supervisor keeps.
func (s *server) showChanges(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	from, to := parsePair(q.Get("from")), parsePair(q.Get("to"))
	var infos [2]*debug.BuildInfo
	for i, p := range []supervisor.Pair{from, to} {
		file := binary(st, p, q.Get("self") == "true") // only what the supervisor names is opened
		if file == "" {
			s.message(w, r, http.StatusNotFound, "Not known", fmt.Sprintf("The binary of %s is no longer on disk, so its dependencies are not known.", p))
			return
		}
		bi, err := buildinfo.ReadFile(file)
		if err != nil {
			s.log.Warn("reading what a binary was built of", "file", file, "err", err)
			s.message(w, r, http.StatusInternalServerError, "Not known", fmt.Sprintf("What %s was built of cannot be read.", p))
			return
		}
		infos[i] = bi
	}
	web.Render(s.log, w, http.StatusOK, s.page(r, "Changes", "", s.changesMain(from, to, changes(infos[0], infos[1]))))
}
