package servicepage

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/supervisor"
)

// A view is a status in the shape of the overview.
type view struct {
	supervisor.Status
	Sentence string // the one sentence at the top
	More     string // its details, when it is long
	Tone     string // good, warn, bad, info: the colour
	Sign     string // beside the sentence, says the same as the colour
	Freshly  bool   // there was a validated answer
	Security []supervisor.Event
	Notes    []supervisor.Event // other events
	Versions []versionView
	Main     *actionView // the one big button
	Previous *supervisor.Kept
	Running  *supervisor.Result // how the running version was installed, if known
	Links    buildLinks
	Results  []resultView
	Log      []string
}

type versionView struct {
	supervisor.VersionVerdict
	Badges []badge
	Notes  string // address of the release notes
	Build  string // address of the build
	When   time.Time
}

type badge struct{ Text, Tone string }

type actionView struct {
	supervisor.Action
	Label string
}

type buildLinks struct{ Build, Notes string }

type resultView struct {
	supervisor.Result
	Text    string
	Tone    string
	Took    time.Duration
	Changes string // address of the page with the changed dependencies
}

// maxVersions and maxShown bound the overview; the rest is one click away.
const (
	maxVersions = 12
	maxShown    = 5
)

func (s *server) view(st supervisor.Status, log []string) view {
	v := view{Status: st, Log: log}
	v.Sentence, v.Tone, v.Sign = sentence(st)
	v.Sentence, v.More = shorten(v.Sentence)
	for _, e := range st.Events {
		if e.Security {
			v.Security = append(v.Security, e)
		} else {
			v.Notes = append(v.Notes, e)
		}
	}
	v.Security = v.Security[:min(len(v.Security), maxShown)]
	v.Notes = v.Notes[:min(len(v.Notes), maxShown)]
	if c := st.Plan.Candidate; c != nil && st.Update == nil {
		v.Main = &actionView{
			Action: supervisor.Action{Verb: supervisor.VerbUpdate, Version: c.Version, GoVersion: c.GoVersion},
			Label:  "Upgrade now to " + c.Version,
		}
		if c.Version == st.Service.Version {
			v.Main.Label = "Rebuild now with " + c.GoVersion
		}
	}
	for _, p := range st.Plan.Versions[:min(len(st.Plan.Versions), maxVersions)] {
		vv := versionView{VersionVerdict: p, Badges: badges(p), Notes: s.releaseNotes(st.Service.Module, p.Version)}
		vv.Build = s.buildLink(st.Service, p.Pair)
		if c := st.Plan.Candidate; c != nil && p.Chosen {
			vv.When = c.When
		}
		v.Versions = append(v.Versions, vv)
	}
	for i := range st.Kept {
		if k := &st.Kept[i]; !k.Running && v.Previous == nil {
			v.Previous = k
		}
	}
	running := supervisor.Pair{Version: st.Service.Version, GoVersion: st.Service.GoVersion}
	if i := slices.IndexFunc(st.History, func(r supervisor.Result) bool {
		return r.Result == supervisor.ResultInstalled && r.To == running
	}); i >= 0 {
		v.Running = &st.History[i]
	}
	v.Links = buildLinks{Build: s.buildLink(st.Service, running), Notes: s.releaseNotes(st.Service.Module, running.Version)}
	for _, r := range st.History[:min(len(st.History), maxShown)] {
		v.Results = append(v.Results, s.viewResult(st, r))
	}
	return v
}

// sentence is the status in one sentence, the engine's, with the tone of its code.
func sentence(st supervisor.Status) (text, tone, sign string) {
	switch st.Code {
	case supervisor.CodeCurrent:
		text, tone, sign = textCurrent, "good", "✓"
	case supervisor.CodePending:
		text, tone, sign = textPending, "info", "↑"
	case supervisor.CodeUpdating:
		text, tone, sign = textUpdating, "info", "…"
	case supervisor.CodePaused:
		text, tone, sign = textPaused, "warn", "‖"
	default:
		text, tone, sign = textFailing, "bad", "!"
	}
	if st.Summary != "" {
		text = st.Summary
		if tone == "bad" && !strings.HasPrefix(text, textFailing) {
			text = textFailing + ": " + text
		}
	}
	return text, tone, sign
}

// maxSentence is how long a heading may be before its details go below it.
const maxSentence = 110

// shorten parts a long sentence at its last colon that leaves a short heading.
func shorten(text string) (head, more string) {
	if len(text) <= maxSentence {
		return text, ""
	}
	if i := strings.LastIndex(text[:maxSentence], ": "); i > len(textFailing) {
		// The first colon behind "Failing" is where the cause begins.
		if j := strings.Index(text[len(textFailing)+1:], ": "); j >= 0 {
			i = min(i, len(textFailing)+1+j)
		}
		return text[:i], text[i+2:]
	}
	if i := strings.LastIndexByte(text[:maxSentence], ' '); i > 0 {
		return text[:i] + " …", text
	}
	return text, ""
}

var kindTone = map[string]string{"patch": "good", "minor": "info", "major": "warn", "toolchain": "info", "prerelease": "warn"}

func badges(v supervisor.VersionVerdict) []badge {
	var b []badge
	if v.Running {
		b = append(b, badge{"running", "good"})
	}
	if v.Chosen {
		b = append(b, badge{"next", "info"})
	}
	if v.Kind != "" && v.Kind != "running" {
		b = append(b, badge{v.Kind, kindTone[v.Kind]})
	}
	if v.Pinned {
		b = append(b, badge{"pinned", "warn"})
	}
	if v.Skipped {
		b = append(b, badge{"skipped", "warn"})
	}
	if v.Retracted != "" {
		b = append(b, badge{"retracted", "bad"})
	}
	if v.Deprecated != "" {
		b = append(b, badge{"deprecated", "warn"})
	}
	if v.Installed && !v.Running {
		b = append(b, badge{"on disk", ""})
	}
	return b
}

func (s *server) viewResult(st supervisor.Status, r supervisor.Result) resultView {
	v := resultView{Result: r, Text: resultText[r.Result], Tone: resultTone[r.Result], Changes: s.changesLink(st, r)}
	if v.Text == "" {
		v.Text = r.Result
	}
	if !r.Started.IsZero() && r.Ended.After(r.Started) {
		v.Took = r.Ended.Sub(r.Started)
	}
	return v
}

// buildLink is the builder's page of a build, or "" without a builder.
func (s *server) buildLink(svc supervisor.ServiceStatus, p supervisor.Pair) string {
	if s.cfg.Builder == "" || svc.GOOS == "" {
		return ""
	}
	sp := spec.Spec{Module: svc.Module, Version: p.Version, Dir: svc.Package, GOOS: svc.GOOS, GOARCH: svc.GOARCH, GoVersion: p.GoVersion}
	if sp.Check() != nil {
		return ""
	}
	return strings.TrimSuffix(s.cfg.Builder, "/") + "/" + sp.String()
}

// releaseNotes is the address of a version's release notes, "" when unknown.
func (s *server) releaseNotes(module, version string) string {
	if s.cfg.ReleaseNotes != "" {
		return strings.ReplaceAll(s.cfg.ReleaseNotes, "{version}", url.PathEscape(version))
	}
	parts := strings.Split(module, "/")
	if len(parts) < 3 || version == "" {
		return ""
	}
	tag := url.PathEscape(version)
	repo := "https://" + strings.Join(parts[:3], "/")
	switch parts[0] {
	case "github.com", "codeberg.org", "gitea.com":
		return repo + "/releases/tag/" + tag
	case "gitlab.com":
		return repo + "/-/releases/" + tag
	}
	return ""
}

// history shows the results, by result and version.
func (s *server) history(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	want, text := r.FormValue("result"), strings.TrimSpace(r.FormValue("q"))
	type choice struct {
		Value, Text string
		Selected    bool
	}
	data := struct {
		Query   string
		Choices []choice
		Results []resultView
		Events  []supervisor.Event
		Total   int
	}{Query: text, Events: st.Events, Total: len(st.History)}
	for _, k := range []string{"", supervisor.ResultInstalled, supervisor.ResultRolledBack, supervisor.ResultRefused,
		supervisor.ResultFailed, supervisor.ResultCancelled, supervisor.ResultPostponed, resultDone} {
		label := resultText[k]
		switch k {
		case "":
			label = "everything"
		case resultDone:
			label = "decisions"
		}
		data.Choices = append(data.Choices, choice{k, label, k == want})
	}
	for _, res := range st.History {
		if want != "" && res.Result != want {
			continue
		}
		if text != "" && !strings.Contains(fmt.Sprint(res.From, " ", res.To, " ", res.Reason, " ", res.By, " ", res.Kind), text) {
			continue
		}
		data.Results = append(data.Results, s.viewResult(st, res))
	}
	s.pages.Render(w, http.StatusOK, "history.html", s.page(r, "History", "", data))
}
