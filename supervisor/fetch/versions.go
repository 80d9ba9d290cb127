package fetch

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"sort"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/httpget"
)

const toolchainModule = "golang.org/toolchain"

// Versions returns the newest release of each major version that the module
// proxy lists, each verified in the checksum database. It is the fallback of
// discovery.
func (f *Fetcher) Versions(ctx context.Context, mod string) ([]name.Entry, error) {
	if f.proxy == nil {
		return nil, errNoProxy
	}
	all, err := f.proxy.List(ctx, mod)
	if err != nil {
		return nil, err
	}
	best := map[string]string{}
	for _, v := range all {
		if module.CanonicalVersion(v) != v || semver.Prerelease(v) != "" {
			continue
		}
		if k := semver.Major(v) + semver.Build(v); semver.Compare(v, best[k]) > 0 {
			best[k] = v
		}
	}
	var out []name.Entry
	for _, v := range best {
		e, err := f.entry(ctx, mod, v)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	sort.Slice(out, func(i, j int) bool { return semver.Compare(out[i].Version, out[j].Version) > 0 })
	return out, nil
}

// entry verifies a version, once: what an append-only log has, it keeps.
func (f *Fetcher) entry(ctx context.Context, mod, v string) (name.Entry, error) {
	f.mu.Lock()
	e, ok := f.entries[mod+"@"+v]
	f.mu.Unlock()
	if ok {
		return e, nil
	}
	if err := f.VerifyVersion(ctx, mod, v); err != nil {
		return e, err
	}
	e.Version = v
	// The time is the proxy's word only. Without it the version counts as new.
	if info, err := f.proxy.Info(ctx, mod, v); err == nil {
		e.Time = info.Time
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries == nil || len(f.entries) > 1000 {
		f.entries = map[string]name.Entry{}
	}
	f.entries[mod+"@"+v] = e
	return e, nil
}

// Describe says how Versions come about.
func (f *Fetcher) Describe() string {
	return fmt.Sprintf("the module proxy's list, each version verified in the checksum database %s", f.db.Name)
}

// LatestGo returns the newest release of Go for a target as the module proxy
// lists it, verified in the checksum database.
func (f *Fetcher) LatestGo(ctx context.Context, goos, goarch string) (string, error) {
	if f.proxy == nil {
		return "", errNoProxy
	}
	all, err := f.proxy.List(ctx, toolchainModule)
	if err != nil {
		return "", err
	}
	best := ""
	for _, v := range all {
		g, ok := strings.CutPrefix(v, "v0.0.1-")
		if !ok {
			continue
		}
		if g, ok = strings.CutSuffix(g, "."+goos+"-"+goarch); !ok || !version.IsValid(g) || strings.Contains(g, "rc") || strings.Contains(g, "beta") {
			continue
		}
		if best == "" || version.Compare(g, best) > 0 {
			best = g
		}
	}
	if best == "" {
		return "", fmt.Errorf("the module proxy lists no Go release for %s-%s", goos, goarch)
	}
	return best, f.VerifyVersion(ctx, toolchainModule, "v0.0.1-"+best+"."+goos+"-"+goarch)
}

// A Split is a package path cut into its module and the folder below.
type Split struct {
	Module   string
	Dir      string
	Versions []string // tagged ones, as the proxy lists them, not verified
}

// Split finds the module of a package: the longest prefix of the path that the
// module proxy knows.
func (f *Fetcher) Split(ctx context.Context, pkg string) (Split, error) {
	if err := module.CheckImportPath(pkg); err != nil {
		return Split{}, err
	}
	if f.proxy == nil {
		return Split{}, errNoProxy
	}
	missing := &goproxy.MissingError{What: pkg, Proxies: f.proxy.URLs()}
	for p := pkg; ; {
		if module.CheckPath(p) == nil {
			versions, err := f.proxy.List(ctx, p)
			// A module without tags has an empty list, and so has what is none with some proxies.
			if err == nil && len(versions) == 0 {
				_, err = f.proxy.Latest(ctx, p)
			}
			if err == nil {
				return Split{p, strings.TrimPrefix(strings.TrimPrefix(pkg, p), "/"), versions}, nil
			}
			// Some proxies refuse what they don't have rather than not to find it.
			var se *httpget.StatusError
			refused := errors.As(err, &se) && se.Code/100 == 4 && !se.Temporary()
			if !refused && !errors.Is(err, goproxy.ErrNotFound) {
				return Split{}, err
			}
			if missing.Text == "" && refused {
				missing.Text = fmt.Sprintf("%d: %s", se.Code, se.Text)
			}
			var me *goproxy.MissingError
			if missing.Text == "" && errors.As(err, &me) {
				missing.Text = me.Text
			}
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return Split{}, missing
		}
		p = p[:i]
	}
}
