package sources

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/policy"
)

// facts are what a module's author says of its versions, in the go.mod file of
// the newest one, which was verified in the checksum database.
type facts struct {
	module     string
	version    string // whose go.mod it is
	retract    []*modfile.Retract
	deprecated string
	goVersion  string
}

// factCache keeps the facts of the newest version: they can't change.
type factCache struct {
	mu   sync.Mutex
	have facts
	err  error // why they aren't known for the version
}

// apply marks releases by the newest one's go.mod.
func (c *factCache) apply(ctx context.Context, f *fetch.Fetcher, module string, releases []policy.Release) *supervisor.Event {
	newest := ""
	for _, r := range releases {
		// An incompatible version has no go.mod that could say anything.
		if r.Path == "" && semver.Build(r.Version) == "" && semver.Compare(r.Version, newest) > 0 {
			newest = r.Version
		}
	}
	if newest == "" {
		return nil
	}
	c.mu.Lock()
	if c.have.module != module || c.have.version != newest || c.err != nil {
		c.have, c.err = readFacts(ctx, f, module, newest)
	}
	err := c.err
	c.mu.Unlock()
	c.mark(module, releases)
	var verify *fetch.VerifyError
	if errors.As(err, &verify) {
		return &supervisor.Event{Kind: verify.Kind, Security: true, Version: newest, Text: err.Error()}
	}
	return nil
}

// mark sets what the facts say of each release.
func (c *factCache) mark(module string, releases []policy.Release) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.have.module != module {
		return
	}
	for i := range releases {
		r := &releases[i]
		if c.err != nil {
			r.Unchecked = c.err.Error()
			continue
		}
		r.Deprecated = c.have.deprecated
		if r.Version == c.have.version {
			r.MinGo = c.have.goVersion
		}
		for _, ret := range c.have.retract {
			if semver.Compare(ret.Low, r.Version) <= 0 && semver.Compare(r.Version, ret.High) <= 0 {
				r.Retracted = httpget.Line(ret.Rationale, 200)
				if r.Retracted == "" {
					r.Retracted = "no reason given"
				}
			}
		}
	}
}

func readFacts(ctx context.Context, f *fetch.Fetcher, module, version string) (facts, error) {
	fs := facts{module: module, version: version}
	if f == nil {
		return fs, errors.New("fetching is not configured")
	}
	data, err := f.GoMod(ctx, module, version)
	if err != nil {
		return fs, err
	}
	file, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return fs, err
	}
	if file.Module == nil || file.Module.Mod.Path != module {
		return fs, nil // a go.mod that isn't this module's says nothing
	}
	fs.deprecated = httpget.Line(file.Module.Deprecated, 200)
	fs.retract = file.Retract
	if file.Go != nil {
		fs.goVersion = "go" + file.Go.Version
	}
	return fs, nil
}
