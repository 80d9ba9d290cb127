package sources

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/mod/semver"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/policy"
)

// factCache keeps the facts of the newest version: they can't change.
type factCache struct {
	mu   sync.Mutex
	have fetch.Author
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
	if c.have.Module != module || c.have.Version != newest || c.err != nil {
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
	if c.have.Module != module {
		return
	}
	for i := range releases {
		r := &releases[i]
		if c.err != nil {
			r.Unchecked = c.err.Error()
			continue
		}
		r.Deprecated = c.have.Deprecated
		if r.Version == c.have.Version {
			r.MinGo = c.have.GoVersion
		}
		r.Retracted = c.have.Retracted(r.Version)
	}
}

func readFacts(ctx context.Context, f *fetch.Fetcher, module, version string) (fetch.Author, error) {
	if f == nil {
		return fetch.Author{Module: module, Version: version}, errors.New("fetching is not configured")
	}
	return f.Author(ctx, module, version)
}
