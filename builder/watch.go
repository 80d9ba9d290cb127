package builder

import (
	"context"
	"errors"
	"go/version"
	"time"

	"example.org/upkeep/builder/spec"
)

// Watch starts the build of a spec unless its result is known, and hands every
// event to emit until the result is final, emit fails or ctx ends. It returns
// the last result.
func (s *Service) Watch(ctx context.Context, sp spec.Spec, client string, emit func(Event) error) (Result, error) {
	if emit == nil {
		emit = func(Event) error { return nil }
	}
	res, err := s.Result(sp)
	if err != nil {
		return res, err
	}
	if known(res) {
		return res, emit(finalEvent(res))
	}
	return s.follow(ctx, sp, client, emit)
}

// known reports whether a result stands: nothing is built for a request now.
func known(res Result) bool {
	return res.State == StateSuccess || res.State == StateFailed && res.RetryAt.IsZero() || time.Now().Before(res.RetryAt)
}

// follow builds a spec, also one that was built before, or joins the build
// that is under way.
func (s *Service) follow(ctx context.Context, sp spec.Spec, client string, emit func(Event) error) (Result, error) {
	defer s.watchers.Add(-1)
	if s.watchers.Add(1) > maxWatchers {
		return Result{Spec: sp, State: StateTempFailed, Error: errQueueFull.Text}, emit(Event{Kind: "TempFailed", Error: errQueueFull.Text})
	}
	j, err := s.enqueue(ctx, sp, client)
	var f *Failure
	if errors.As(err, &f) {
		res := Result{Spec: sp, State: StateTempFailed, Error: f.Text, NotFound: f.NotFound, status: f.Status, after: f.after}
		if f.NotFound {
			res.State = StateFailed
		}
		return res, emit(finalEvent(res))
	}
	if err != nil {
		return Result{}, err
	}
	defer s.queue.leave(j)
	last, seen := -1, 0
	for {
		state, position, out, done, change := s.queue.snapshot(j, seen)
		if state == StateBuilding || state == StateQueued {
			if position != last {
				last = position
				if err := emit(Event{Kind: "QueuePosition", QueuePosition: &position}); err != nil {
					return Result{}, err
				}
			}
		}
		for _, l := range out {
			if err := emit(Event{Kind: "Output", Line: l}); err != nil {
				return Result{}, err
			}
		}
		seen += len(out)
		if done {
			return j.res, emit(finalEvent(j.res))
		}
		select {
		case <-change:
		case <-ctx.Done():
			return Result{}, context.Cause(ctx)
		}
	}
}

func finalEvent(res Result) Event {
	switch res.State {
	case StateSuccess:
		return Event{Kind: "Success", Sum: res.Sum}
	case StateFailed:
		return Event{Kind: "PermFailed", Error: res.Error}
	}
	return Event{Kind: "TempFailed", Error: res.Error}
}

// enqueue adds a build to the queue, if the rules for new builds allow it.
func (s *Service) enqueue(ctx context.Context, sp spec.Spec, client string) (*job, error) {
	if j := s.queue.join(sp); j != nil {
		return j, nil
	}
	if err := s.allowed(sp); err != nil {
		return nil, err
	}
	if err := s.clients.take(client, func() bool { return s.recentGo(ctx, sp.GoVersion) }, time.Now()); err != nil {
		return nil, err
	}
	return s.queue.add(sp, client)
}

// allowed refuses what the lists of modules don't let be built.
func (s *Service) allowed(sp spec.Spec) error {
	if !allowed(s.cfg.Allow, s.cfg.Deny, sp.Module) {
		return unknown("This server does not build " + sp.Module + ".")
	}
	return nil
}

// recentGo reports whether a Go version is of a release line that is maintained.
func (s *Service) recentGo(ctx context.Context, v string) bool {
	line, err := s.toolchains.Line(ctx)
	if err != nil {
		return false
	}
	lang := version.Lang(v)
	return lang == version.Lang(line.Current) || lang == version.Lang(line.Previous) || lang == version.Lang(line.Next)
}

// Forget removes a failed result, so that the next request builds again.
func (s *Service) Forget(sp spec.Spec) error {
	if _, ok := s.log.Find(sp.String()); ok {
		return nil
	}
	s.mu.Lock()
	delete(s.temp, sp)
	s.mu.Unlock()
	return s.results.forget(sp)
}

// lookup is what the log does for a key that it does not have.
func (s *Service) lookup(ctx context.Context, key string, who asker) error {
	sp, err := spec.Parse(key)
	if err != nil {
		return notFound(sentence(printable(err.Error())))
	}
	ctx, done := s.circles.wait(ctx, sp, who.addr)
	defer done()
	res, err := s.Watch(ctx, sp, who.client, nil)
	if errors.Is(err, errCircle) {
		retryAfter(who.header, errCircle)
		return errCircle
	}
	if err != nil {
		f := failureOf(err)
		if ctx.Err() == nil {
			s.logger.Warn("looking up a build", "spec", key, "err", err)
		}
		return &Failure{NotFound: f.NotFound, Text: s.hide(f.Text), Status: f.Status, Err: f.Err} // err may name files
	}
	if res.State == StateSuccess {
		return nil
	}
	f := &Failure{Permanent: res.State == StateFailed, NotFound: res.NotFound, Text: res.Error, Status: res.status, after: res.after}
	retryAfter(who.header, f)
	return f
}
