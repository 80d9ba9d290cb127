package policy

import (
	"fmt"
	goversion "go/version"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// Toolchain says which Go versions a service is built with.
type Toolchain string

// The toolchain policies.
const (
	// ToolchainFollow: patches of the line in use, the newest Go together with
	// a new version of the service, and the oldest supported line when the one
	// in use is no longer supported.
	ToolchainFollow Toolchain = "follow"
	// ToolchainPatch: patches of the line in use, nothing else.
	ToolchainPatch Toolchain = "patch"
	// ToolchainMinor: always the newest release.
	ToolchainMinor Toolchain = "minor"
	// ToolchainSupported: patches of the line in use, and the oldest supported
	// line when it is no longer supported.
	ToolchainSupported Toolchain = "supported"
	// ToolchainManual: the Go version in use.
	ToolchainManual Toolchain = "manual"
)

// UnmarshalText accepts the policies only.
func (t *Toolchain) UnmarshalText(text []byte) error {
	switch v := Toolchain(text); v {
	case ToolchainFollow, ToolchainPatch, ToolchainMinor, ToolchainSupported, ToolchainManual:
		*t = v
		return nil
	}
	return fmt.Errorf("%q is no toolchain policy; it can be %q, %q, %q, %q or %q", text,
		ToolchainFollow, ToolchainPatch, ToolchainMinor, ToolchainSupported, ToolchainManual)
}

// goFor chooses the Go version for a new version of the service that is
// installed at the time given.
func goFor(in Input, r Release, at time.Time) string {
	run := in.Running.GoVersion
	best, _ := chooseGo(in, r.Version, at, true)
	if best == "" {
		best = run
	}
	// What the go.mod file asks for comes before the habit of staying with a line.
	if r.MinGo != "" && goversion.Compare(best, r.MinGo) < 0 && in.Toolchain != ToolchainManual && in.Toolchain != ToolchainPatch {
		for _, g := range in.GoReleases {
			if g.Kind != "next" && goversion.Compare(g.Version, r.MinGo) >= 0 {
				return g.Version
			}
		}
	}
	return best
}

// chooseGo returns the Go version that the policy wants for a version at a
// time, "" for the one in use, and why.
func chooseGo(in Input, release string, at time.Time, withVersion bool) (version, why string) {
	run := in.Running.GoVersion
	if !goversion.IsValid(run) || in.Toolchain == ToolchainManual {
		return "", ""
	}
	due := func(g GoRelease) bool { return !found(in, g.Discovered).Add(in.Delay).After(at) }
	var cur, patch, oldest GoRelease
	supported := false // by what is known
	for _, g := range in.GoReleases {
		if !goversion.IsValid(g.Version) || g.Kind == "next" {
			continue
		}
		ours := goversion.Lang(g.Version) == goversion.Lang(run)
		supported = supported || ours
		if in.refuses(release, g.Version) {
			continue
		}
		if cur.Version == "" || goversion.Compare(g.Version, cur.Version) > 0 {
			cur = g
		}
		if oldest.Version == "" || goversion.Compare(g.Version, oldest.Version) < 0 {
			oldest = g
		}
		if ours {
			patch = g
		}
	}
	newer := func(g GoRelease) bool { return g.Version != "" && goversion.Compare(g.Version, run) > 0 && due(g) }
	follow := in.Toolchain == ToolchainFollow || in.Toolchain == ToolchainSupported
	switch {
	case (in.Toolchain == ToolchainMinor || in.Toolchain == ToolchainFollow && withVersion) && newer(cur):
		return cur.Version, fmt.Sprintf("%s is the newest Go", cur.Version)
	case newer(patch):
		return patch.Version, fmt.Sprintf("%s is the newest patch of %s", patch.Version, goversion.Lang(run))
	case follow && !supported && newer(oldest):
		return oldest.Version, fmt.Sprintf("%s is no longer supported, %s is the oldest line that is", goversion.Lang(run), goversion.Lang(oldest.Version))
	}
	return "", ""
}

// toolchainOption is the running version built with another Go, or nil.
func toolchainOption(in Input) *option {
	v := in.Running.Version
	if !goversion.IsValid(in.Running.GoVersion) || !semver.IsValid(v) || strings.HasSuffix(v, "+dirty") {
		return nil // nobody else can build what a working copy holds
	}
	// Look into the future first: what would be chosen once every delay is over.
	const ages = 100 * 365 * 24 * time.Hour
	want, why := chooseGo(in, in.Running.Version, in.Now, false)
	if want == "" {
		want, why = chooseGo(in, in.Running.Version, in.Now.Add(ages), false)
	}
	o := &option{rel: Release{Version: in.Running.Version}, kind: KindToolchain, why: why}
	if want == "" {
		// Nothing by itself; a newer release is offered to whoever asks.
		for _, g := range in.GoReleases {
			if g.Kind != "next" && goversion.IsValid(g.Version) && goversion.Compare(g.Version, in.Running.GoVersion) > 0 &&
				(want == "" || goversion.Compare(g.Version, want) > 0) {
				want = g.Version
			}
		}
		if want == "" {
			return nil
		}
		o.why = want + " is the newest Go"
		o.against = fmt.Sprintf("the toolchain policy %q stays with %s", in.Toolchain, goversion.Lang(in.Running.GoVersion))
		o.byHand = in.Toolchain == ToolchainManual
	}
	o.pair = Pair{in.Running.Version, want}
	for _, g := range in.GoReleases {
		if g.Version == want {
			o.found = found(in, g.Discovered)
			if in.Delay > 0 {
				o.notBefore = o.found.Add(in.Delay)
			}
		}
	}
	for _, s := range in.Skips {
		if s.covers(o.pair) {
			o.skipped, o.against, o.byHand = true, "skipped: "+s.Why, false
		}
	}
	for _, r := range in.Releases {
		if r.Path == "" && r.Version == in.Running.Version && r.Retracted != "" {
			o.against, o.byHand = "what runs was retracted by its author: "+r.Retracted, false
		}
	}
	return o
}
