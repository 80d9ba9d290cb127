package builder

import (
	"context"
	"slices"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/builder/spec"
)

// New versions of what was asked for are built ahead (setting ahead), so that
// who wants one need not wait: one at a time, and only while nobody else's
// build is there. What was built so is no reason to build the next.

// aheadClient stands for the client of builds that nobody asked for.
const aheadClient = "ahead"

// maxAhead bounds the builds of one look at the modules' versions.
const maxAhead = 20

// wanted returns the modules whose newer versions may be built ahead.
func wanted(recent []Result) []string {
	var list []string
	for _, r := range recent {
		if r.State == StateSuccess && !r.Ahead && !slices.Contains(list, r.Spec.Module) {
			list = append(list, r.Spec.Module)
		}
	}
	return list
}

// ahead returns what to build: each thing that was asked for, in the latest
// version of its module if that is a newer one with a tag.
func ahead(recent []Result, latest map[string]string) []spec.Spec {
	var list []spec.Spec
	for _, r := range recent {
		sp, v := r.Spec, latest[r.Spec.Module]
		if r.State != StateSuccess || r.Ahead || v == "" || module.IsPseudoVersion(v) || semver.Compare(v, sp.Version) <= 0 {
			continue
		}
		if sp.Version = v; !slices.Contains(list, sp) && len(list) < maxAhead {
			list = append(list, sp)
		}
	}
	return list
}

// lookAhead asks for the versions of the modules of the last builds.
func (s *Service) lookAhead(ctx context.Context) {
	if !s.looking.CompareAndSwap(false, true) {
		return // a module proxy can take longer than the time between two looks
	}
	defer s.looking.Store(false)
	s.mu.Lock()
	recent := slices.Clone(s.recent)
	s.mu.Unlock()
	latest := map[string]string{}
	for _, path := range wanted(recent) {
		if !allowed(s.cfg.Allow, s.cfg.Deny, path) {
			continue
		}
		listCtx, cancel := context.WithTimeout(ctx, s.cfg.FetchTimeout.D())
		v, err := s.latest(listCtx, path)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.logger.Warn("looking for a newer version to build ahead", "module", path, "err", err)
			continue
		}
		latest[path] = v
	}
	var list []spec.Spec
	for _, sp := range ahead(recent, latest) {
		res, err := s.Result(sp)
		if err == nil && !known(res) && s.recentGo(ctx, sp.GoVersion) {
			list = append(list, sp)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = list
}

// buildAhead queues the next of what is built ahead, if nothing else is to do.
func (s *Service) buildAhead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ahead) == 0 {
		return
	}
	sp := s.ahead[0]
	if _, ok := s.log.Find(sp.String()); ok || s.queue.addAhead(sp) { // somebody may have asked meanwhile
		s.ahead = s.ahead[1:]
	}
}

// minAhead is the shortest time between two looks.
const minAhead = time.Minute
