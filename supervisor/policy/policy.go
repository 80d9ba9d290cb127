// Package policy decides which version of a service is installed next.
//
// [Decide] is a pure function: known versions, what runs, and what people
// decided go in; a candidate, the reason for it, and for every other version
// the reason against it come out. Nothing is trusted and nothing is fetched
// here; versions that aren't valid are left out with a reason. There are no
// files.
package policy

import (
	"fmt"
	goversion "go/version"
	"slices"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/config"
)

// Level says which steps of a version number are installed without asking.
type Level string

// The levels.
const (
	LevelPatch  Level = "patch"
	LevelMinor  Level = "minor"
	LevelManual Level = "manual"
)

// UnmarshalText accepts the levels only.
func (l *Level) UnmarshalText(text []byte) error {
	switch v := Level(text); v {
	case LevelPatch, LevelMinor, LevelManual:
		*l = v
		return nil
	}
	return fmt.Errorf("%q is no policy; it can be %q, %q or %q", text, LevelPatch, LevelMinor, LevelManual)
}

// Kinds of a version relative to the running one.
const (
	KindRunning    = "running"
	KindPatch      = "patch"
	KindMinor      = "minor"
	KindMajor      = "major"
	KindToolchain  = "toolchain"
	KindPrerelease = "prerelease"
	KindOlder      = "older"
)

// Pair is a version of the module and the Go version that builds it.
type Pair struct {
	Version   string
	GoVersion string
}

// Release is a known version of the service's module, or of another major of it.
type Release struct {
	Path       string    // module path when it isn't the running one's ("…/v2")
	Version    string    //
	Discovered time.Time // zero = now; who asks again remembers when it first saw the version
	Retracted  string    // the author's reason, "" when not retracted
	Deprecated string    // the author's words about the module, "" when not deprecated
	Unchecked  string    // why it isn't known whether it was retracted, "" when it is known
	MinGo      string    // Go version that its go.mod asks for, "" when unknown
}

// GoRelease is a known Go version.
type GoRelease struct {
	Version    string
	Kind       string // cur, prev, next
	Discovered time.Time
}

// Skip is a version that isn't wanted. With a GoVersion it is unwanted when
// built with that Go version or an older one.
type Skip struct {
	Version   string
	GoVersion string
	Why       string
}

func (s Skip) covers(p Pair) bool {
	if s.Version != p.Version {
		return false
	}
	return s.GoVersion == "" || goversion.Compare(p.GoVersion, s.GoVersion) <= 0
}

// Input is everything a decision depends on.
type Input struct {
	Now          time.Time
	Running      Pair
	Releases     []Release
	GoReleases   []GoRelease
	Level        Level
	Toolchain    Toolchain
	Prerelease   bool
	Pseudo       bool
	Delay        time.Duration
	RestartDelay bool
	Hold         bool
	Pin          *Pair // GoVersion may be empty
	Skips        []Skip
	Refused      []Pair // builds that are known to fail: another Go version is tried instead
}

// refuses reports whether a build is known to fail.
func (in *Input) refuses(version, goVersion string) bool {
	return slices.Contains(in.Refused, Pair{version, goVersion})
}

// Candidate is the version to install next.
type Candidate struct {
	Pair
	Kind      string
	Why       string
	NotBefore time.Time // end of the delay, zero when there is none
	Wait      string    // why not before that
	Manual    bool      // only when somebody asks
}

// Verdict is what becomes of one known version.
type Verdict struct {
	Release
	GoVersion string // that it would be built with
	Kind      string
	Chosen    bool
	Skipped   bool
	Pinned    bool
	Reason    string
}

// Decision is the outcome.
type Decision struct {
	Candidate *Candidate
	Verdicts  []Verdict // newest first
	Reason    string    // why there is no candidate, or none that goes by itself
	// NeedList: the releases given are too few to tell whether the running
	// minor line has a newer patch; the full list of versions would tell.
	NeedList bool
}

// Decide chooses.
func Decide(in Input) Decision {
	d := Decision{}
	if in.Pin != nil {
		return decidePinned(in)
	}
	var auto, manual *option
	var autos []*option
	options := sortedOptions(in)
	for _, o := range options {
		if o.against == "" {
			autos = append(autos, o)
		} else if o.byHand && manual == nil {
			manual = o
		}
	}
	auto = choose(in, autos)
	if tc := toolchainOption(in); tc != nil && auto == nil {
		// A new version of the service brings its Go version along; by itself a
		// Go version is the candidate only when no version of the service is.
		options = append(options, tc)
		if tc.against == "" {
			auto = tc
		} else if manual == nil && tc.byHand {
			manual = tc
		}
	}
	blanket := blanketReason(in)
	pick := auto
	if pick == nil {
		pick = manual
	}
	if pick != nil {
		d.Candidate = &Candidate{Pair: pick.pair, Kind: pick.kind, Why: pick.why, NotBefore: pick.notBefore, Manual: pick != auto || blanket != ""}
		if pick.notBefore.After(in.Now) {
			d.Candidate.Wait = fmt.Sprintf("a version has to be %s old; it was discovered %s", words(in.Delay), stamp(pick.found))
		}
		if d.Candidate.Manual {
			d.Reason = pick.against
			if blanket != "" {
				d.Reason = blanket
			}
		}
	}
	for _, o := range options {
		v := Verdict{Release: o.rel, GoVersion: o.pair.GoVersion, Kind: o.kind, Skipped: o.skipped, Reason: o.against}
		switch {
		case o == pick:
			v.Chosen, v.Reason = true, pick.why
			if d.Candidate.Manual {
				v.Reason = "not by itself: " + d.Reason
			} else if d.Candidate.Wait != "" {
				v.Reason += "; " + d.Candidate.Wait
			}
		case v.Reason == "" && blanket != "":
			v.Reason = blanket
		case v.Reason == "":
			v.Reason = fmt.Sprintf("%s is installed instead", pick.pair.Version)
			if pick.kind == KindToolchain {
				v.Reason = "no change"
			}
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	if pick == nil {
		d.Reason = noCandidate(in, options, blanket)
	}
	d.NeedList = needList(in, options, auto)
	return d
}

// option is a version under consideration.
type option struct {
	rel       Release
	pair      Pair
	kind      string
	why       string    // for it
	against   string    // why it doesn't go by itself; "" when it does
	byHand    bool      // offered when somebody asks for "the newest"
	skipped   bool      //
	found     time.Time // for the delay
	notBefore time.Time
}

func sortedOptions(in Input) []*option {
	options := make([]*option, 0, len(in.Releases))
	for _, r := range in.Releases {
		options = append(options, judge(in, r))
	}
	// Newest first; other majors' paths first of all. Insertion sort: the list is short or already sorted.
	less := func(a, b *option) bool { return semver.Compare(a.rel.Version, b.rel.Version) > 0 }
	for i := 1; i < len(options); i++ {
		for j := i; j > 0 && less(options[j], options[j-1]); j-- {
			options[j], options[j-1] = options[j-1], options[j]
		}
	}
	return options
}

// judge looks at one release by itself.
func judge(in Input, r Release) *option {
	o := &option{rel: r, found: found(in, r.Discovered), pair: Pair{r.Version, in.Running.GoVersion}}
	if in.Delay > 0 {
		o.notBefore = o.found.Add(in.Delay)
	}
	if !semver.IsValid(r.Version) {
		o.kind, o.against = KindOlder, fmt.Sprintf("%q is no version", r.Version)
		return o
	}
	run := in.Running.Version
	runValid := semver.IsValid(run)
	cmp := 1
	if runValid {
		cmp = semver.Compare(r.Version, run)
	}
	switch {
	case r.Path != "":
		o.kind, o.against = KindMajor, "a new major version has another module path; it is never installed by itself"
		return o
	case cmp == 0:
		o.kind, o.against = KindRunning, "runs"
		if r.Retracted != "" {
			o.against = "runs, and was retracted by its author: " + r.Retracted
		}
		return o
	case cmp < 0:
		o.kind, o.against = KindOlder, "older than what runs"
		return o
	}
	o.kind = step(run, r.Version)
	o.pair.GoVersion = goFor(in, r, maxTime(in.Now, o.notBefore))
	o.why = fmt.Sprintf("%s is the newest %s version allowed", r.Version, o.kind)
	for _, s := range in.Skips {
		if s.covers(o.pair) {
			o.skipped = true
			o.against = "skipped: " + s.Why
			return o
		}
	}
	if r.Retracted != "" {
		o.against = "retracted by its author: " + r.Retracted
		return o
	}
	pre := semver.Prerelease(r.Version) != ""
	if pre && (!in.Prerelease || semver.Prerelease(run) == "") {
		o.kind = KindPrerelease
		switch {
		case !in.Prerelease:
			o.against = "a pre-release; they are installed only with prerelease = true"
		default:
			o.against = "a pre-release; they are installed only over another pre-release"
		}
		return o
	}
	if min := r.MinGo; min != "" && goversion.Compare(o.pair.GoVersion, min) < 0 {
		o.against = fmt.Sprintf("needs %s, and the toolchain policy %q chooses %s", min, in.Toolchain, o.pair.GoVersion)
		o.byHand = false
		return o
	}
	o.byHand = o.kind != KindMajor
	switch {
	case !in.Pseudo && (!runValid || module.IsPseudoVersion(run)):
		o.against = "what runs is an untagged commit; going on to a tag needs pseudo = true"
	case r.Unchecked != "":
		o.against = "it is not known whether its author retracted it: " + r.Unchecked
	case o.kind == KindMajor:
		o.against = "a new major version is never installed by itself"
	case in.Level == LevelManual:
		o.against = "the policy is manual"
	case in.Level == LevelPatch && o.kind != KindPatch:
		o.against = "a new minor version, and the policy is patch"
	}
	return o
}

// step names the difference of two versions, the second being newer.
func step(from, to string) string {
	switch base, err := module.PseudoVersionBase(from); {
	case err == nil && base == "" && (semver.Major(to) == "v0" || semver.Major(to) == "v1"):
		return KindPatch // of a commit before any tag it isn't known which line it is of
	case !semver.IsValid(from) || semver.MajorMinor(from) == semver.MajorMinor(to):
		return KindPatch
	case semver.Major(from) == semver.Major(to):
		return KindMinor
	}
	return KindMajor
}

// choose picks from what may go by itself, newest first.
func choose(in Input, autos []*option) *option {
	if len(autos) == 0 {
		return nil
	}
	if in.RestartDelay {
		return autos[0]
	}
	best := autos[0]
	for _, o := range autos {
		if !o.notBefore.After(in.Now) {
			return o // the newest that is due
		}
		if o.notBefore.Before(best.notBefore) {
			best = o
		}
	}
	return best
}

func decidePinned(in Input) Decision {
	d := Decision{}
	pin := *in.Pin
	if pin.GoVersion == "" {
		pin.GoVersion = in.Running.GoVersion
	}
	for _, o := range sortedOptions(in) {
		v := Verdict{Release: o.rel, GoVersion: o.pair.GoVersion, Kind: o.kind, Skipped: o.skipped, Pinned: o.rel.Version == pin.Version && o.rel.Path == ""}
		switch {
		case v.Pinned && pin == in.Running:
			v.Reason = "pinned, and runs"
		case v.Pinned && o.rel.Retracted != "":
			v.Reason = "pinned, but retracted by its author: " + o.rel.Retracted
			d.Reason = v.Reason
		case v.Pinned:
			v.Reason, v.GoVersion = "pinned", pin.GoVersion
		default:
			v.Reason = fmt.Sprintf("%s is pinned", pin.Version)
		}
		d.Verdicts = append(d.Verdicts, v)
	}
	if d.Reason != "" {
		return d
	}
	if pin == in.Running {
		d.Reason = "the running version is pinned"
		return d
	}
	kind := KindToolchain
	if c := semver.Compare(pin.Version, in.Running.Version); c > 0 {
		kind = step(in.Running.Version, pin.Version)
	} else if c < 0 {
		kind = KindOlder
	}
	d.Candidate = &Candidate{Pair: pin, Kind: kind, Why: fmt.Sprintf("%s is pinned", pin.Version)}
	for i := range d.Verdicts {
		d.Verdicts[i].Chosen = d.Verdicts[i].Pinned
	}
	for _, s := range in.Skips {
		if s.covers(pin) {
			d.Candidate.Manual = true
			d.Reason = "the pinned version is skipped: " + s.Why
		}
	}
	if in.Hold {
		d.Candidate.Manual, d.Reason = true, "the service is held"
	}
	return d
}

// blanketReason holds whatever the version.
func blanketReason(in Input) string {
	if in.Hold {
		return "the service is held at its version"
	}
	return ""
}

func noCandidate(in Input, options []*option, blanket string) string {
	newer := ""
	for _, o := range options {
		if o.kind != KindRunning && o.kind != KindOlder {
			newer = fmt.Sprintf("%s: %s", o.rel.Version, o.against)
			break
		}
	}
	switch {
	case blanket != "":
		return blanket
	case newer != "":
		return newer
	case len(in.Releases) == 0:
		return "no version is known"
	}
	return "the newest version runs"
}

// needList: a release of the same major that may not go by itself can hide a
// newer patch of the running line, since only the newest of each major is told.
func needList(in Input, options []*option, auto *option) bool {
	if auto != nil && auto.kind != KindToolchain || in.Level == LevelManual || in.Pin != nil || !semver.IsValid(in.Running.Version) {
		return false
	}
	for _, o := range options {
		newer := o.rel.Path == "" && semver.Compare(o.rel.Version, in.Running.Version) > 0
		if newer && semver.Major(o.rel.Version) == semver.Major(in.Running.Version) &&
			semver.Prerelease(o.rel.Version) == "" && o.against != "" {
			return true
		}
	}
	return false
}

// found bounds what the index says of the time: a missing or future time must
// not hold a version back for ever.
func found(in Input, t time.Time) time.Time {
	if t.IsZero() || t.After(in.Now) {
		return in.Now
	}
	return t
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

func words(d time.Duration) string { return config.Duration(d).String() }
