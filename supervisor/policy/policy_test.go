package policy

import (
	"strings"
	"testing"
	"time"
)

var (
	now   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	day   = 24 * time.Hour
	old   = now.Add(-30 * day)
	fresh = now.Add(-time.Hour)
)

// gos are the Go versions of a usual day.
var gos = []GoRelease{
	{"go1.27.2", "cur", old}, {"go1.26.9", "prev", old}, {"go1.28rc1", "next", old},
}

func rel(versions ...string) []Release {
	var list []Release
	for _, v := range versions {
		r := Release{Version: v, Discovered: old}
		if v, ok := strings.CutSuffix(v, "!new"); ok {
			r.Version, r.Discovered = v, fresh
		}
		if v, ok := strings.CutSuffix(v, "!retracted"); ok {
			r.Version, r.Retracted = v, "it eats data"
		}
		if v, ok := strings.CutSuffix(v, "!unchecked"); ok {
			r.Version, r.Unchecked = v, "the proxy is down"
		}
		if v, ok := strings.CutSuffix(v, "!unknowntime"); ok {
			r.Version, r.Discovered = v, time.Time{}
		}
		if v, ok := strings.CutSuffix(v, "!future"); ok {
			r.Version, r.Discovered = v, now.Add(1000*day)
		}
		list = append(list, r)
	}
	return list
}

func TestDecide(t *testing.T) {
	base := Input{
		Now: now, Running: Pair{"v1.2.3", "go1.27.2"}, GoReleases: gos, Level: LevelPatch,
		Toolchain: ToolchainFollow, Delay: 72 * time.Hour, RestartDelay: true,
	}
	for _, tc := range []struct {
		name   string
		change func(*Input)
		want   string // "VERSION GO KIND", "" for none, "manual: …" when only by hand
		reason string // part of Decision.Reason
		wait   time.Duration
		list   bool // NeedList
	}{
		{"nothing known", func(in *Input) {}, "", "no version is known", 0, false},
		{"current", func(in *Input) { in.Releases = rel("v1.2.3") }, "", "the newest version runs", 0, false},
		{"older only", func(in *Input) { in.Releases = rel("v1.2.2", "v0.9.0") }, "", "the newest version runs", 0, false},
		{"patch", func(in *Input) { in.Releases = rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"build refused with the newest Go", func(in *Input) {
			in.Running.GoVersion, in.Releases, in.Refused = "go1.26.8", rel("v1.2.4"), []Pair{{"v1.2.4", "go1.27.2"}}
		}, "v1.2.4 go1.26.9 patch", "", 0, false},
		{"build refused with every newer Go", func(in *Input) {
			in.Running.GoVersion, in.Releases = "go1.26.8", rel("v1.2.4")
			in.Refused = []Pair{{"v1.2.4", "go1.27.2"}, {"v1.2.4", "go1.26.9"}}
		}, "v1.2.4 go1.26.8 patch", "", 0, false},
		{"another version's build refused", func(in *Input) {
			in.Running.GoVersion, in.Releases, in.Refused = "go1.26.8", rel("v1.2.4"), []Pair{{"v1.2.5", "go1.27.2"}}
		}, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"Go patch refused", func(in *Input) {
			in.Running.GoVersion, in.Releases, in.Refused = "go1.26.8", rel("v1.2.3"), []Pair{{"v1.2.3", "go1.26.9"}}
		}, "", "stays with go1.26", 0, false},
		{"a working copy isn't built by others", func(in *Input) {
			in.Running, in.Releases = Pair{"(devel)", "go1.26.8"}, nil
		}, "", "no version is known", 0, false},
		{"nor is a changed one", func(in *Input) {
			in.Running, in.Releases = Pair{"v1.2.3+dirty", "go1.26.8"}, nil
		}, "", "no version is known", 0, false},
		{"newest patch", func(in *Input) { in.Releases = rel("v1.2.4", "v1.2.6", "v1.2.5") }, "v1.2.6 go1.27.2 patch", "", 0, false},
		{"minor under patch", func(in *Input) { in.Releases = rel("v1.3.0") }, "manual: v1.3.0 go1.27.2 minor", "the policy is patch", 0, true},
		{"patch before minor", func(in *Input) { in.Releases = rel("v1.3.0", "v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"minor", func(in *Input) { in.Level, in.Releases = LevelMinor, rel("v1.3.0", "v1.2.4") }, "v1.3.0 go1.27.2 minor", "", 0, false},
		{"minor does patches", func(in *Input) { in.Level, in.Releases = LevelMinor, rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"manual", func(in *Input) { in.Level, in.Releases = LevelManual, rel("v1.2.4") }, "manual: v1.2.4 go1.27.2 patch", "the policy is manual", 0, false},
		{"v0 to v1", func(in *Input) {
			in.Running.Version, in.Level, in.Releases = "v0.9.0", LevelMinor, rel("v1.0.0", "v0.9.0")
		}, "", "new major", 0, false},
		{"major path", func(in *Input) { in.Releases = []Release{{Path: "x/v2", Version: "v2.0.0", Discovered: old}} }, "", "another module path", 0, false},
		{"incompatible major", func(in *Input) { in.Level, in.Releases = LevelMinor, rel("v2.0.0+incompatible") }, "", "new major", 0, false},
		{"major doesn't hide a patch", func(in *Input) { in.Releases = rel("v2.0.0+incompatible", "v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},

		{"prerelease unasked", func(in *Input) { in.Releases = rel("v1.2.4-rc.1") }, "", "prerelease = true", 0, false},
		{"prerelease over release", func(in *Input) { in.Prerelease, in.Releases = true, rel("v1.2.4-rc.1") }, "", "only over another pre-release", 0, false},
		{"prerelease over prerelease", func(in *Input) {
			in.Running.Version, in.Prerelease, in.Releases = "v1.2.4-rc.1", true, rel("v1.2.4-rc.2")
		}, "v1.2.4-rc.2 go1.27.2 patch", "", 0, false},
		{"prerelease to release", func(in *Input) { in.Running.Version, in.Releases = "v1.2.4-rc.1", rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"prerelease to release before newer prerelease", func(in *Input) { in.Running.Version, in.Releases = "v1.2.4-rc.1", rel("v1.2.4", "v1.2.5-rc.1") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"pseudo", func(in *Input) {
			in.Running.Version, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", rel("v1.2.3")
		}, "manual: v1.2.3 go1.27.2 patch", "untagged", 0, true},
		{"pseudo wanted", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", true, rel("v1.2.3")
		}, "v1.2.3 go1.27.2 patch", "", 0, false},
		{"pseudo wanted, manual", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Level, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", true, LevelManual, rel("v1.2.3")
		}, "manual: v1.2.3 go1.27.2 patch", "the policy is manual", 0, false},
		{"pseudo wanted, minor", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", true, rel("v1.3.0")
		}, "manual: v1.3.0 go1.27.2 minor", "policy is patch", 0, true},
		{"pseudo wanted, major", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", true, rel("v2.0.0+incompatible")
		}, "", "never installed by itself", 0, false},
		{"pseudo wanted, perhaps retracted", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v1.2.3-0.20260101000000-0123456789ab", true, rel("v1.2.3!unchecked")
		}, "manual: v1.2.3 go1.27.2 patch", "the proxy is down", 0, true},
		{"pseudo before any tag", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v0.0.0-20260101000000-0123456789ab", true, rel("v1.3.0")
		}, "v1.3.0 go1.27.2 patch", "", 0, false},
		{"pseudo before any tag, later major", func(in *Input) {
			in.Running.Version, in.Pseudo, in.Releases = "v0.0.0-20260101000000-0123456789ab", true, rel("v2.0.0+incompatible")
		}, "", "never installed by itself", 0, false},
		{"local build", func(in *Input) { in.Running.Version, in.Releases = "(devel)", rel("v1.2.3") }, "manual: v1.2.3 go1.27.2 patch", "untagged", 0, false},
		{"not a version", func(in *Input) { in.Releases = rel("1.2.4", "v1.2.x", "latest") }, "", "the newest version runs", 0, false},

		{"retracted", func(in *Input) { in.Releases = rel("v1.2.4!retracted") }, "", "it eats data", 0, true},
		{"retracted doesn't hide", func(in *Input) { in.Releases = rel("v1.2.5!retracted", "v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"unchecked", func(in *Input) { in.Releases = rel("v1.2.4!unchecked") }, "manual: v1.2.4 go1.27.2 patch", "the proxy is down", 0, true},
		{"running is retracted", func(in *Input) { in.Releases = rel("v1.2.3!retracted") }, "", "the newest version runs", 0, false},

		{"delay", func(in *Input) { in.Releases = rel("v1.2.4!new") }, "v1.2.4 go1.27.2 patch", "", 71 * time.Hour, false},
		{"no delay", func(in *Input) { in.Delay, in.Releases = 0, rel("v1.2.4!new") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"newer patch starts the delay again", func(in *Input) { in.Releases = rel("v1.2.5!new", "v1.2.4") }, "v1.2.5 go1.27.2 patch", "", 71 * time.Hour, false},
		{"older patch may go", func(in *Input) { in.RestartDelay, in.Releases = false, rel("v1.2.5!new", "v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"soonest of the fresh", func(in *Input) {
			in.RestartDelay = false
			in.Releases = []Release{{Version: "v1.2.5", Discovered: now.Add(-day)}, {Version: "v1.2.4", Discovered: now.Add(-2 * day)}}
		}, "v1.2.4 go1.27.2 patch", "", day, false},
		{"unknown time counts from now", func(in *Input) { in.Releases = rel("v1.2.4!unknowntime") }, "v1.2.4 go1.27.2 patch", "", 72 * time.Hour, false},
		{"time in the future counts from now", func(in *Input) { in.Releases = rel("v1.2.4!future") }, "v1.2.4 go1.27.2 patch", "", 72 * time.Hour, false},

		{"hold", func(in *Input) { in.Hold, in.Releases = true, rel("v1.2.4") }, "manual: v1.2.4 go1.27.2 patch", "held", 0, false},
		{"hold holds Go too", func(in *Input) { in.Hold, in.Running.GoVersion = true, "go1.27.1" }, "manual: v1.2.3 go1.27.2 toolchain", "held", 0, false},
		{"skip", func(in *Input) { in.Skips, in.Releases = []Skip{{"v1.2.4", "", "bad"}}, rel("v1.2.4") }, "", "skipped: bad", 0, true},
		{"skip doesn't hide a newer one", func(in *Input) { in.Skips, in.Releases = []Skip{{"v1.2.4", "", "bad"}}, rel("v1.2.5", "v1.2.4") }, "v1.2.5 go1.27.2 patch", "", 0, false},
		{"skip doesn't hide an older one", func(in *Input) { in.Skips, in.Releases = []Skip{{"v1.2.5", "", "bad"}}, rel("v1.2.5", "v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"skip with this Go", func(in *Input) { in.Skips, in.Releases = []Skip{{"v1.2.4", "go1.27.2", "bad"}}, rel("v1.2.4") }, "", "skipped: bad", 0, true},
		{"skip with an older Go", func(in *Input) { in.Skips, in.Releases = []Skip{{"v1.2.4", "go1.26.1", "bad"}}, rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},

		{"pin runs", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.3", "go1.27.2"}, rel("v1.2.4") }, "", "the running version is pinned", 0, false},
		{"pin without Go runs", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.3", ""}, rel("v1.2.4") }, "", "the running version is pinned", 0, false},
		{"pin newer", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.3.0", ""}, rel("v1.3.0", "v1.2.4") }, "v1.3.0 go1.27.2 minor", "", 0, false},
		{"pin older", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.1", ""}, rel("v1.2.4") }, "v1.2.1 go1.27.2 older", "", 0, false},
		{"pin other Go", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.3", "go1.26.9"}, rel("v1.2.4") }, "v1.2.3 go1.26.9 toolchain", "", 0, false},
		{"pin ignores the delay", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.4", ""}, rel("v1.2.4!new") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"pin retracted", func(in *Input) { in.Pin, in.Releases = &Pair{"v1.2.4", ""}, rel("v1.2.4!retracted") }, "", "it eats data", 0, false},
		{"pin skipped", func(in *Input) {
			in.Pin, in.Skips, in.Releases = &Pair{"v1.2.4", ""}, []Skip{{"v1.2.4", "", "bad"}}, rel("v1.2.4")
		}, "manual: v1.2.4 go1.27.2 patch", "skipped: bad", 0, false},
		{"pin and hold", func(in *Input) { in.Pin, in.Hold, in.Releases = &Pair{"v1.2.4", ""}, true, rel("v1.2.4") }, "manual: v1.2.4 go1.27.2 patch", "held", 0, false},

		{"go patch", func(in *Input) { in.Running.GoVersion, in.Releases = "go1.27.1", rel("v1.2.3") }, "v1.2.3 go1.27.2 toolchain", "", 0, false},
		{"go patch of the old line", func(in *Input) { in.Running.GoVersion = "go1.26.8" }, "v1.2.3 go1.26.9 toolchain", "", 0, false},
		{"go: newest with a new version", func(in *Input) { in.Running.GoVersion, in.Releases = "go1.26.9", rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"go: no new line by itself", func(in *Input) { in.Running.GoVersion, in.Releases = "go1.26.9", rel("v1.2.3") }, "", "stays with go1.26", 0, false},
		{"go: line out of support", func(in *Input) { in.Running.GoVersion = "go1.25.30" }, "v1.2.3 go1.26.9 toolchain", "", 0, false},
		{"go: way out of support", func(in *Input) { in.Running.GoVersion = "go1.19" }, "v1.2.3 go1.26.9 toolchain", "", 0, false},
		{"go: release candidate never", func(in *Input) {
			in.Toolchain, in.GoReleases = ToolchainMinor, []GoRelease{{"go1.28rc1", "next", old}}
		}, "", "no version is known", 0, false},
		{"go: running is newer than known", func(in *Input) { in.Running.GoVersion = "go1.28.1" }, "", "no version is known", 0, false},
		{"go: running is no release", func(in *Input) { in.Running.GoVersion, in.Releases = "devel go1.28-abc", rel("v1.2.4") }, "v1.2.4 devel go1.28-abc patch", "", 0, false},
		{"go: none known", func(in *Input) { in.GoReleases, in.Releases = nil, rel("v1.2.4") }, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"go delay", func(in *Input) {
			in.Running.GoVersion, in.GoReleases = "go1.27.1", []GoRelease{{"go1.27.2", "cur", fresh}}
		}, "v1.2.3 go1.27.2 toolchain", "", 71 * time.Hour, false},
		{"fresh Go doesn't hold a version back", func(in *Input) {
			in.Running.GoVersion, in.GoReleases, in.Releases = "go1.27.1", []GoRelease{{"go1.27.2", "cur", fresh}}, rel("v1.2.4")
		}, "v1.2.4 go1.27.1 patch", "", 0, false},
		{"Go that is due when the version is", func(in *Input) {
			in.Running.GoVersion, in.GoReleases, in.Releases = "go1.27.1", []GoRelease{{"go1.27.2", "cur", now.Add(-2 * day)}}, rel("v1.2.4!new")
		}, "v1.2.4 go1.27.2 patch", "", 71 * time.Hour, false},
		{"go skip", func(in *Input) { in.Running.GoVersion, in.Skips = "go1.27.1", []Skip{{"v1.2.3", "go1.27.2", "bad"}} }, "", "skipped: bad", 0, false},
		{"go of a retracted version", func(in *Input) { in.Running.GoVersion, in.Releases = "go1.27.1", rel("v1.2.3!retracted") }, "", "it eats data", 0, false},

		{"toolchain patch", func(in *Input) {
			in.Toolchain, in.Running.GoVersion, in.Releases = ToolchainPatch, "go1.26.8", rel("v1.2.4")
		}, "v1.2.4 go1.26.9 patch", "", 0, false},
		{"toolchain patch stays out of support", func(in *Input) { in.Toolchain, in.Running.GoVersion = ToolchainPatch, "go1.25.3" }, "", "stays with go1.25", 0, false},
		{"toolchain minor", func(in *Input) { in.Toolchain, in.Running.GoVersion = ToolchainMinor, "go1.26.9" }, "v1.2.3 go1.27.2 toolchain", "", 0, false},
		{"toolchain supported", func(in *Input) {
			in.Toolchain, in.Running.GoVersion, in.Releases = ToolchainSupported, "go1.26.8", rel("v1.2.4")
		}, "v1.2.4 go1.26.9 patch", "", 0, false},
		{"toolchain supported moves on", func(in *Input) { in.Toolchain, in.Running.GoVersion = ToolchainSupported, "go1.24.1" }, "v1.2.3 go1.26.9 toolchain", "", 0, false},
		{"toolchain manual", func(in *Input) {
			in.Toolchain, in.Running.GoVersion, in.Releases = ToolchainManual, "go1.26.8", rel("v1.2.4")
		}, "v1.2.4 go1.26.8 patch", "", 0, false},
		{"toolchain manual, Go only", func(in *Input) { in.Toolchain, in.Running.GoVersion = ToolchainManual, "go1.26.8" }, "manual: v1.2.3 go1.27.2 toolchain", "manual", 0, false},
		{"manual policy takes Go patches", func(in *Input) { in.Level, in.Running.GoVersion, in.Releases = LevelManual, "go1.27.1", rel("v1.2.3") }, "v1.2.3 go1.27.2 toolchain", "", 0, false},
		{"version needs a newer Go", func(in *Input) {
			in.Toolchain, in.Running.GoVersion = ToolchainSupported, "go1.26.9"
			in.Releases = []Release{{Version: "v1.2.4", Discovered: old, MinGo: "go1.27"}}
		}, "v1.2.4 go1.27.2 patch", "", 0, false},
		{"version needs a Go that the policy forbids", func(in *Input) {
			in.Toolchain, in.Running.GoVersion = ToolchainPatch, "go1.26.9"
			in.Releases = []Release{{Version: "v1.2.4", Discovered: old, MinGo: "go1.27"}}
		}, "", "needs go1.27", 0, true},
		{"version needs a Go that nobody knows", func(in *Input) {
			in.Releases = []Release{{Version: "v1.2.4", Discovered: old, MinGo: "go1.30"}}
		}, "", "needs go1.30", 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := base
			tc.change(&in)
			d := Decide(in)
			got := ""
			if c := d.Candidate; c != nil {
				got = c.Version + " " + c.GoVersion + " " + c.Kind
				if c.Manual {
					got = "manual: " + got
				}
				wait := time.Duration(0)
				if c.NotBefore.After(now) {
					wait = c.NotBefore.Sub(now)
					if c.Wait == "" {
						t.Error("it has to wait and doesn't say why")
					}
				}
				if wait != tc.wait {
					t.Errorf("waits %v; want %v", wait, tc.wait)
				}
				if c.Why == "" {
					t.Error("no reason for the candidate")
				}
			}
			if got != tc.want {
				t.Errorf("candidate %q; want %q (%s)", got, tc.want, d.Reason)
			}
			if tc.reason == "" && d.Reason != "" || !strings.Contains(d.Reason, tc.reason) {
				t.Errorf("reason %q; want %q", d.Reason, tc.reason)
			}
			if d.NeedList != tc.list {
				t.Errorf("NeedList is %v", d.NeedList)
			}
			chosen := 0
			for _, v := range d.Verdicts {
				if v.Reason == "" || v.Kind == "" {
					t.Errorf("no reason or kind for %+v", v)
				}
				if v.Chosen {
					chosen++
				}
			}
			if want := 0; d.Candidate != nil && in.Pin == nil {
				if want = 1; chosen != want {
					t.Errorf("%d verdicts say that they are chosen", chosen)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	base := Input{
		Now: now, Running: Pair{"v1.2.3", "go1.26.9"}, GoReleases: gos, Level: LevelPatch,
		Toolchain: ToolchainFollow, Delay: 72 * time.Hour, Releases: rel("v2.0.0+incompatible", "v1.3.0!new", "v1.2.3", "v1.2.2!retracted"),
	}
	for _, tc := range []struct {
		name, version, goVersion string
		change                   func(*Input)
		want, err                string
	}{
		{"newest", "", "", nil, "v1.3.0 go1.27.2 minor", ""},
		{"newest patch before minor", "", "", func(in *Input) { in.Releases = rel("v1.3.0", "v1.2.4!new") }, "v1.2.4 go1.27.2 patch", ""},
		{"held", "", "", func(in *Input) { in.Hold = true }, "v1.3.0 go1.27.2 minor", ""},
		{"nothing", "", "", func(in *Input) { in.Releases, in.Running.GoVersion = rel("v1.2.3"), "go1.27.2" }, "", "nothing to install: the newest version runs"},
		{"named", "v1.3.0", "", nil, "v1.3.0 go1.27.2 minor", ""},
		{"named with Go", "v1.3.0", "go1.26.9", nil, "v1.3.0 go1.26.9 minor", ""},
		{"unknown version", "v1.9.9", "", nil, "v1.9.9 go1.27.2 minor", ""},
		{"major", "v2.0.0+incompatible", "", nil, "v2.0.0+incompatible go1.27.2 major", ""},
		{"older", "v1.2.1", "", nil, "v1.2.1 go1.27.2 older", ""},
		{"Go only", "", "go1.27.2", nil, "v1.2.3 go1.27.2 toolchain", ""},
		{"skipped, but asked for", "v1.3.0", "", func(in *Input) { in.Skips = []Skip{{"v1.3.0", "", "bad"}} }, "v1.3.0 go1.27.2 minor", ""},
		{"retracted", "v1.2.2", "", nil, "", "retracted by its author: it eats data"},
		{"runs", "v1.2.3", "", nil, "", "runs already"},
		{"runs with this Go", "", "go1.26.9", nil, "", "runs already"},
		{"no version", "1.3", "", nil, "", `"1.3" is no version`},
		{"no Go version", "v1.3.0", "1.27", nil, "", `"1.27" is no Go version`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := base
			if tc.change != nil {
				tc.change(&in)
			}
			p, kind, err := Resolve(in, tc.version, tc.goVersion)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("%v, %v; want an error with %q", p, err, tc.err)
				}
				return
			}
			if got := p.Version + " " + p.GoVersion + " " + kind; err != nil || got != tc.want {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestText(t *testing.T) {
	var l Level
	var tc Toolchain
	if l.UnmarshalText([]byte("minor")) != nil || l != LevelMinor || l.UnmarshalText([]byte("Minor")) == nil {
		t.Error("levels")
	}
	if tc.UnmarshalText([]byte("supported")) != nil || tc != ToolchainSupported || tc.UnmarshalText([]byte("")) == nil {
		t.Error("toolchain policies")
	}
}
