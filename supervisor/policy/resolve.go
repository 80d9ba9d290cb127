package policy

import (
	"fmt"
	goversion "go/version"

	"golang.org/x/mod/semver"
)

// Resolve returns the versions that a person's request means: version and Go
// version may be empty for "the one that is next" and "the one that fits". The
// error is a sentence that says why the request makes no sense.
func Resolve(in Input, version, goVersion string) (Pair, string, error) {
	if goVersion != "" && !goversion.IsValid(goVersion) {
		return Pair{}, "", fmt.Errorf("%q is no Go version; write it like go1.27.4", goVersion)
	}
	if version == "" {
		return resolveNext(in, goVersion)
	}
	if !semver.IsValid(version) {
		return Pair{}, "", fmt.Errorf("%q is no version; write it like v1.2.3", version)
	}
	p := Pair{version, goVersion}
	rel := Release{Version: version}
	for _, r := range in.Releases {
		if r.Path == "" && r.Version == version {
			rel = r
		}
	}
	if rel.Retracted != "" && version != in.Running.Version {
		return Pair{}, "", fmt.Errorf("%s was retracted by its author: %s", version, rel.Retracted)
	}
	if p.GoVersion == "" {
		p.GoVersion = in.Running.GoVersion
		if version != in.Running.Version {
			in.Delay = 0 // somebody who asks doesn't wait
			p.GoVersion = goFor(in, rel, in.Now)
		}
	}
	if p == in.Running {
		return Pair{}, "", fmt.Errorf("%s built with %s runs already", p.Version, p.GoVersion)
	}
	return p, kindOf(in.Running, p), nil
}

func resolveNext(in Input, goVersion string) (Pair, string, error) {
	if goVersion != "" {
		p := Pair{in.Running.Version, goVersion}
		if p == in.Running {
			return Pair{}, "", fmt.Errorf("%s built with %s runs already", p.Version, p.GoVersion)
		}
		return p, KindToolchain, nil
	}
	// Who asks wants the newest that may be installed, not the oldest that is due.
	in.Delay, in.RestartDelay, in.Hold = 0, true, false
	d := Decide(in)
	if d.Candidate == nil {
		return Pair{}, "", fmt.Errorf("there is nothing to install: %s", d.Reason)
	}
	return d.Candidate.Pair, d.Candidate.Kind, nil
}

func kindOf(running, p Pair) string {
	switch c := semver.Compare(p.Version, running.Version); {
	case c > 0:
		return step(running.Version, p.Version)
	case c < 0:
		return KindOlder
	}
	return KindToolchain
}
