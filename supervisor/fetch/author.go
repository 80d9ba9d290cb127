package fetch

import (
	"context"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/httpget"
)

// Author is what a module's author says of its versions, in the go.mod file of
// one of them, which was verified in the checksum database.
type Author struct {
	Module     string
	Version    string // whose go.mod it is
	Deprecated string // why, "" when it is not
	GoVersion  string // least Go version of this version, "" when it is not said

	retract []*modfile.Retract
}

// Retracted says why the author took a version back, "" when nobody did.
func (a Author) Retracted(version string) string {
	for _, r := range a.retract {
		if semver.Compare(r.Low, version) <= 0 && semver.Compare(version, r.High) <= 0 {
			if why := httpget.Line(r.Rationale, 200); why != "" {
				return why
			}
			return "no reason given"
		}
	}
	return ""
}

// Author reads what the go.mod file of a version says.
func (f *Fetcher) Author(ctx context.Context, mod, version string) (Author, error) {
	a := Author{Module: mod, Version: version}
	data, err := f.GoMod(ctx, mod, version)
	if err != nil {
		return a, err
	}
	file, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return a, err
	}
	if file.Module == nil || file.Module.Mod.Path != mod {
		return a, nil // a go.mod that isn't this module's says nothing
	}
	a.Deprecated = httpget.Line(file.Module.Deprecated, 200)
	a.retract = file.Retract
	if file.Go != nil {
		a.GoVersion = "go" + file.Go.Version
	}
	return a, nil
}

// Withdrawn asks, now, whether the author has taken a version back: for use
// right before it is installed, since what discovery knows may be a day old. It
// reads the go.mod of the newest release that the module proxy lists. A proxy
// can hide that release, but not make one up or change what it says.
func (f *Fetcher) Withdrawn(ctx context.Context, mod, version string) (why string, err error) {
	if f.proxy == nil {
		return "", errNoProxy
	}
	all, err := f.proxy.List(ctx, mod)
	if err != nil {
		return "", err
	}
	newest := ""
	for _, v := range append(all, version) {
		// An incompatible version has no go.mod that could say anything.
		if module.CanonicalVersion(v) == v && semver.Build(v) == "" && (semver.Prerelease(v) == "" || v == version) && semver.Compare(v, newest) > 0 {
			newest = v
		}
	}
	if newest == "" {
		return "", nil
	}
	a, err := f.Author(ctx, mod, newest)
	return a.Retracted(version), err
}
