package servicepage

import (
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
	Steps    *stepsView         // of the update under way
	List     listView           // of versions
	Own      ownView            // upkeep itself
	Main     *actionView        // the one big button
	Previous *supervisor.Kept
	Running  *supervisor.Result // how the running version was installed, if known
	Links    buildLinks
	Results  []resultView
	Log      []string
}

// An ownView is the supervisor itself, in the same shape as the service.
type ownView struct {
	Steps    *stepsView
	List     listView
	Main     *actionView
	Previous *supervisor.Kept
	Running  *supervisor.Result
	Notes    string
}

// A listView is a table of versions with what can be done about each.
type listView struct {
	Rows []versionView
	Self bool   // they are upkeep's
	Busy bool   // an update runs, so none can be begun
	ID   string // goes before the ids of the page's elements
}

// A stepsView is an update under way.
type stepsView struct {
	*supervisor.UpdateProgress
	Title string
	Self  bool
	ID    string
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
	Own     bool // it was an update of upkeep
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
	if st.Update != nil {
		v.Steps = &stepsView{UpdateProgress: st.Update, Title: textUpdatingTo}
		if st.Update.Kind == kindRollback {
			v.Steps.Title = textGoingBack
		}
	}
	busy := st.Update != nil || st.Self.Update != nil
	if c := st.Plan.Candidate; c != nil && !busy {
		v.Main = &actionView{
			Action: supervisor.Action{Verb: supervisor.VerbUpdate, Version: c.Version, GoVersion: c.GoVersion},
			Label:  "Upgrade now to " + c.Version,
		}
		if c.Version == st.Service.Version {
			v.Main.Label = "Rebuild now with " + c.GoVersion
		}
	}
	v.List = s.list(st.Plan, st.Service.Module)
	v.List.Busy = busy
	for i := range v.List.Rows {
		v.List.Rows[i].Build = s.buildLink(st.Service, v.List.Rows[i].Pair)
	}
	v.Previous = previous(st.Kept)
	v.Own = s.own(st, busy)
	running := supervisor.Pair{Version: st.Service.Version, GoVersion: st.Service.GoVersion}
	v.Running = installedBy(st.History, running, false)
	v.Links = buildLinks{Build: s.buildLink(st.Service, running), Notes: s.releaseNotes(st.Service.Module, running.Version)}
	for _, r := range st.History[:min(len(st.History), maxShown)] {
		v.Results = append(v.Results, s.viewResult(st, r))
	}
	return v
}

// list is the table of versions of a plan.
func (s *server) list(p supervisor.Plan, module string) listView {
	var l listView
	for _, p0 := range p.Versions[:min(len(p.Versions), maxVersions)] {
		vv := versionView{VersionVerdict: p0, Badges: badges(p0), Notes: s.releaseNotes(module, p0.Version)}
		if c := p.Candidate; c != nil && p0.Chosen {
			vv.When = c.When
		}
		l.Rows = append(l.Rows, vv)
	}
	return l
}

// own is what the page shows of upkeep itself.
func (s *server) own(st supervisor.Status, busy bool) ownView {
	self := st.Self
	o := ownView{Notes: moduleNotes(self.Module, self.Version), Running: installedBy(st.History, supervisor.Pair{Version: self.Version, GoVersion: self.GoVersion}, true)}
	if self.Update != nil {
		o.Steps = &stepsView{UpdateProgress: self.Update, Title: textSelfUpdatingTo, Self: true, ID: "self-"}
		if self.Update.Kind == kindSelfRollback {
			o.Steps.Title = textSelfGoingBack
		}
	}
	if self.Plan != nil {
		o.List = s.list(*self.Plan, self.Module)
		if c := self.Plan.Candidate; c != nil && !busy {
			o.Main = &actionView{Label: textSelfUpgrade,
				Action: supervisor.Action{Verb: supervisor.VerbUpdate, Version: c.Version, GoVersion: c.GoVersion, Self: true}}
		}
	}
	for i := range o.List.Rows {
		o.List.Rows[i].Notes = moduleNotes(self.Module, o.List.Rows[i].Version)
	}
	o.List.Self, o.List.Busy, o.List.ID = true, busy, "self-"
	if !busy {
		o.Previous = previous(self.Kept)
	}
	return o
}

// previous is the kept binary that a roll-back leads to, nil without one.
func previous(kept []supervisor.Kept) *supervisor.Kept {
	if i := slices.IndexFunc(kept, func(k supervisor.Kept) bool { return !k.Running }); i >= 0 {
		return &kept[i]
	}
	return nil
}

// installedBy is how the version that runs came to be installed, nil when that
// is no longer known.
func installedBy(history []supervisor.Result, p supervisor.Pair, self bool) *supervisor.Result {
	if i := slices.IndexFunc(history, func(r supervisor.Result) bool {
		return r.Result == supervisor.ResultInstalled && r.To == p && isOwn(r.Kind) == self
	}); i >= 0 && history[i].Sum != "" {
		return &history[i]
	}
	return nil
}

// The kinds of updates that the pages tell apart.
const (
	kindUpdate       = "update"
	kindRollback     = "rollback"
	kindSelfUpdate   = "self_update"
	kindSelfRollback = "self_rollback"
)

// isOwn says whether an entry of the history is about upkeep itself.
func isOwn(kind string) bool { return kind == kindSelfUpdate || kind == kindSelfRollback }

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
	v := resultView{Result: r, Text: resultText[r.Result], Tone: resultTone[r.Result], Own: isOwn(r.Kind), Changes: s.changesLink(st, r)}
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
	return moduleNotes(module, version)
}

// moduleNotes is that address for modules on hosts that have one for each tag.
func moduleNotes(module, version string) string {
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
