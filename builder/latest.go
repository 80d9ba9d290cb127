package builder

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/goproxy"
)

// resolve replaces "latest" in a spec.
func (s *Service) resolve(ctx context.Context, sp spec.Spec) (spec.Spec, error) {
	if sp.Version == spec.Latest {
		v, err := s.latest(ctx, sp.Module)
		if err != nil {
			return sp, failureOf(err)
		}
		sp.Version = v
	}
	if sp.GoVersion == spec.Latest {
		line, err := s.toolchains.Line(ctx)
		if err != nil {
			return sp, temporary(sentence(err.Error()), err)
		}
		sp.GoVersion = line.Current
	}
	return sp, nil
}

// latest returns the version that "latest" means to the go command.
func (s *Service) latest(ctx context.Context, path string) (string, error) {
	list, err := s.src.Proxy.List(ctx, path)
	if err != nil {
		return "", err
	}
	newest := newestOf(list, nil)
	if newest == "" {
		info, err := s.src.Proxy.Latest(ctx, path)
		return info.Version, err
	}
	// Retractions stand in the go.mod of the newest version.
	data, err := s.src.GoMod(ctx, module.Version{Path: path, Version: newest})
	if err != nil {
		return "", err
	}
	f, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return newest, nil // the build says what is wrong with it
	}
	if v := newestOf(list, f.Retract); v != "" {
		return v, nil
	}
	return newest, nil
}

// newestOf returns the highest release that is not retracted, or else the
// highest pre-release.
func newestOf(list []string, retracted []*modfile.Retract) string {
	var release, pre string
	for _, v := range list {
		skip := false
		for _, r := range retracted {
			skip = skip || semver.Compare(v, r.Low) >= 0 && semver.Compare(v, r.High) <= 0
		}
		if skip || !semver.IsValid(v) {
			continue
		}
		best := &release
		if semver.Prerelease(v) != "" {
			best = &pre
		}
		if *best == "" || semver.Compare(v, *best) > 0 {
			*best = v
		}
	}
	if release != "" {
		return release
	}
	return pre
}

// moduleInfo lists the main packages of a version ("latest" included).
func (s *Service) moduleInfo(ctx context.Context, path, version, userAgent string) (ModuleInfo, error) {
	m := ModuleInfo{Module: path, Version: version}
	m.GOOS, m.GOARCH = guessTarget(userAgent)
	if version == spec.Latest || version == "" {
		v, err := s.latest(ctx, path)
		if errors.Is(err, goproxy.ErrNotFound) {
			return m, notFound(fmt.Sprintf("There is no module %s at the module proxy.", path))
		}
		if err != nil {
			return m, failureOf(err)
		}
		m.Version = v
	}
	line, err := s.toolchains.Line(ctx)
	if err != nil {
		return m, temporary(sentence(err.Error()), err)
	}
	m.GoVersion = line.Current
	m.Commands, err = s.commands.get(ctx, module.Version{Path: path, Version: m.Version})
	if err != nil {
		return m, failureOf(err)
	}
	if len(m.Commands) == 0 {
		return m, notFound(fmt.Sprintf("%s@%s has no main package: it is a library.", path, m.Version))
	}
	return m, nil
}
