package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// memory returns how many bytes a build may have: its share of what the
// machine has for builds, or for a large one all of it.
func (s *Service) memory(large bool) int64 {
	all := machineMemory() / 10 * 8
	if s.cfg.Memory > 0 {
		all = min(all, int64(s.cfg.Memory)<<20)
	}
	if large {
		return all
	}
	return min(all, machineMemory()/10*8/int64(s.cfg.parallel()))
}

func (s *Service) limits(wall time.Duration, large bool) sandbox.Limits {
	return sandbox.Limits{Wall: wall, Memory: s.memory(large), Processes: int64(s.cfg.Processes),
		FileSize: int64(s.cfg.MaxWork) << 20, TmpSize: 64 << 20}
}

// collector returns how compilers and linker collect garbage: where memory is
// plenty, only when it runs out, which saves processor time, most of all in large
// packages. What they make does not depend on it. A build that may have failed by
// it goes without.
func collector(memory int64, processors int, again bool) []string {
	each := memory / int64(processors+1) // the go command starts one for each processor
	if again || each < 1<<30 {
		return nil
	}
	return []string{"GOGC=off", fmt.Sprintf("GOMEMLIMIT=%d", each)}
}

// fits reports whether one more build may start beside those that run; a large
// one, which counts as many as there may be, runs alone.
func fits(running, parallel int64, large bool) bool {
	return running == 0 || !large && running < parallel
}

// Run builds what is asked for until ctx ends; then the builds that run get
// some time to end.
func (s *Service) Run(ctx context.Context) error {
	buildCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	var running atomic.Int64
	parallel := int64(s.cfg.parallel())
	fits := func(large bool) bool { return !s.trimDue.Load() && fits(running.Load(), parallel, large) }
	timer := time.NewTimer(0)
	defer timer.Stop()
	janitor := time.NewTicker(max(s.cfg.Abandon.D()/4, 50*time.Millisecond))
	defer janitor.Stop()
	idle := make(chan struct{}, 1) // a build ended
	var trimmed, measured, looked time.Time
	s.confirmRecent(ctx)
	for ctx.Err() == nil {
		if running.Load() == 0 && s.trimDue.Load() {
			s.trim()
			s.trimDue.Store(false)
		}
		for {
			j, wait := s.queue.next(fits)
			if j == nil {
				if wait > 0 {
					timer.Reset(wait)
				}
				break
			}
			weight := int64(1)
			if j.large {
				weight = parallel
			}
			running.Add(weight)
			release := sync.OnceFunc(func() {
				running.Add(-weight)
				select {
				case idle <- struct{}{}:
				default:
				}
			})
			wg.Go(func() {
				defer release()
				s.work(ctx, buildCtx, j, release)
			})
		}
		select {
		case <-ctx.Done():
		case <-s.queue.wake:
		case <-idle:
		case <-timer.C:
		case now := <-janitor.C:
			if running.Load() == 0 && now.Sub(trimmed) > time.Hour && s.cfg.Unused > 0 {
				trimmed = now
				if err := s.toolchains.Trim(s.cfg.Unused.D(), now); err != nil {
					s.logger.Error("removing toolchains", "err", err)
				}
			}
			if now.Sub(measured) > time.Hour {
				measured = now
				s.background.Go(s.measure)
			}
			if s.cfg.Ahead > 0 {
				if now.Sub(looked) > s.cfg.Ahead.D() {
					looked = now
					s.background.Go(func() { s.lookAhead(ctx) })
				}
				s.buildAhead()
			}
			for _, j := range s.queue.abandoned(now.Add(-s.cfg.Abandon.D())) {
				s.finish(j, Result{Spec: j.spec, State: StateTempFailed, Error: "Nobody waited for the build any more."}, false)
			}
		}
	}
	s.queue.close()
	time.AfterFunc(s.cfg.Drain.D(), func() { stop(errClosing) })
	wg.Wait()
	s.background.Wait()
	return nil
}

// work runs one job, until serving ends and then some time more. It calls
// release when other builds may start: verifiers can take as long as they like,
// and may themselves wait for a build here.
func (s *Service) work(serving, ctx context.Context, j *job, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.queue.setCancel(j, cancel)
	started := time.Now()
	logger := s.logger.With("spec", j.spec.String())
	logger.Info("build starts", "try", j.tries, "client", j.client)
	b := &build{s: s, spec: j.spec, large: j.large, again: j.tries > 1, live: func(l string) { s.queue.line(j, l) }}
	var out built
	var err error
	if j.out != nil && s.blobs.has(fmt.Sprintf("%x", j.out.sha256)) {
		out = *j.out // built in an earlier try
	} else if err = s.room(); err == nil {
		if out, err = b.run(ctx); err == nil {
			out.started, out.took = started, time.Since(started)
		}
	}
	res := Result{Spec: j.spec, Started: started.UTC(), Took: time.Since(started), Steps: b.steps, Missing: s.sb.Missing(), Tries: j.tries}
	if err == nil {
		res.Toolchain, res.Started, res.Took, res.Steps = out.toolchain, out.started.UTC(), out.took, out.steps
		s.queue.built(j, out.record)
		release()
		err = s.record(serving, ctx, out, &res)
		if j.out = nil; errors.Is(err, errNotAgreed) {
			j.out = &out
		}
	}
	var f *Failure
	if err != nil {
		f = failureOf(err)
		f = &Failure{Permanent: f.Permanent, NotFound: f.NotFound, Status: f.Status, Text: s.hide(f.Text), Err: f.Err}
		logger.Warn("build failed", "permanent", f.Permanent, "text", f.Text, "err", f.Err)
		s.alarmOf(f)
	}
	switch {
	case f == nil:
		res.Ahead = s.queue.isAhead(j)
		logger.Info("build done", "sum", res.Sum, "size", res.Size, "took", res.Took.Round(time.Millisecond), "steps", stepsText(res.Steps))
		s.finish(j, res, false)
		if len(res.Pending) > 0 {
			s.confirmLater(serving, out, res)
		}
	case errors.Is(context.Cause(ctx), errClosing):
		res.State, res.Error = StateTempFailed, errClosing.Text
		s.finish(j, res, true)
	case errors.Is(context.Cause(ctx), errAbandoned) && s.queue.waitedFor(j):
		s.queue.again(j, time.Now()) // somebody came too late to stop its end
	case errors.Is(context.Cause(ctx), errAbandoned):
		res.State, res.Error = StateTempFailed, "Nobody waited for the build any more."
		s.finish(j, res, false)
	case errors.Is(context.Cause(ctx), errCrowded):
		res.State, res.Error = StateTempFailed, errCrowded.Text
		res.RetryAt = time.Now().Add(s.backoff(j.tries)).UTC()
		s.finish(j, res, false)
	case f.Permanent:
		res.State, res.Error, res.NotFound = StateFailed, f.Text, f.NotFound
		s.finish(j, res, false)
	case f.NotFound:
		res.State, res.Error, res.NotFound = StateFailed, f.Text, true
		res.RetryAt = time.Now().Add(unknownFor).UTC()
		s.finish(j, res, false)
	case errors.Is(f, sandbox.ErrMemory) && !j.large && s.memory(true) > s.memory(false):
		j.large = true
		s.queue.line(j, "The build needs more memory than its share; it is tried again when it can have all.")
		s.metrics.builds.WithLabelValues("retried").Inc()
		s.queue.again(j, time.Now())
	case j.tries < s.cfg.Tries && !errors.Is(f, sandbox.ErrTimeout):
		wait := s.backoff(j.tries)
		s.queue.line(j, f.Text)
		s.queue.line(j, fmt.Sprintf("Trying again in %v.", wait))
		s.metrics.builds.WithLabelValues("retried").Inc()
		s.queue.again(j, time.Now().Add(wait))
	default:
		res.State, res.Error = StateTempFailed, f.Text
		res.RetryAt = time.Now().Add(s.backoff(j.tries)).UTC()
		s.finish(j, res, false)
	}
}

// stepsText says how long each step took, and with how much processor time.
func stepsText(steps []Step) string {
	var b strings.Builder
	for i, st := range steps {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %.2fs", st.Name, st.Took.Seconds())
		if st.CPU > 0 {
			fmt.Fprintf(&b, " (CPU %.2fs)", st.CPU.Seconds())
		}
	}
	return b.String()
}

// backoff returns the time between one try and the next.
func (s *Service) backoff(tries int) time.Duration {
	return min(s.cfg.Backoff.D()<<(2*min(tries-1, 10)), time.Hour)
}

// record appends the record of a stored binary to the log.
func (s *Service) record(serving, ctx context.Context, out built, res *Result) error {
	// A removed binary that was built again has its record: verifiers that are down
	// now are no reason to withhold it.
	_, again := s.log.Find(out.record.Spec.String())
	var opinions []opinion
	if !again {
		var err error
		if opinions, err = s.agree(serving, ctx, out); err != nil {
			return err
		}
	}
	id, err := s.log.Append(ctx, tlog.Entry{Key: out.record.Spec.String(), Text: out.record.Line()})
	if errors.Is(err, tlog.ErrKeyExists) {
		return temporary("The build gave another sum than the log records: "+out.record.Sum+".", &alarmError{"sum_differs", err})
	}
	if err != nil {
		return temporary("The build server could not write its log.", err)
	}
	res.State, res.LogID, res.Agreed, res.Pending = StateSuccess, id, agreements(opinions), s.pending(opinions)
	res.Size, res.Sum, res.SHA256 = out.record.Size, out.record.Sum, fmt.Sprintf("%x", out.sha256)
	if again {
		kept, ok, err := s.results.load(out.record.Spec)
		if err != nil {
			s.logger.Error("reading a result; its verifiers are asked again", "err", err)
		} else if ok && kept.Sum == res.Sum {
			res.Agreed, res.Pending = kept.Agreed, kept.Pending
		}
	}
	return nil
}

// finish keeps a result and ends its job.
func (s *Service) finish(j *job, res Result, keep bool) {
	passing := !res.RetryAt.IsZero()
	if res.Done() && !passing {
		_, _, output, _, _ := s.queue.snapshot(j, 0)
		if err := s.results.save(res, []byte(joinLines(output))); err != nil {
			s.logger.Error("keeping a result", "spec", j.spec.String(), "err", err)
		}
		if res.State == StateSuccess {
			// The form that most clients download.
			s.background.Go(func() { s.afterStore(res.SHA256) })
		}
	}
	s.mu.Lock()
	delete(s.temp, res.Spec)
	if passing && len(s.temp) >= maxTemp {
		maps.DeleteFunc(s.temp, func(_ spec.Spec, r Result) bool { return time.Now().After(r.RetryAt) })
	}
	if passing && len(s.temp) < maxTemp {
		s.temp[res.Spec] = res
	}
	s.recent = slices.DeleteFunc(s.recent, func(r Result) bool { return r.Spec == res.Spec })
	s.recent = append([]Result{res}, s.recent[:min(len(s.recent), maxRecent-1)]...)
	s.mu.Unlock()
	s.metrics.builds.WithLabelValues(string(res.State)).Inc()
	if res.State == StateSuccess {
		s.metrics.seconds.Observe(res.Took.Seconds())
	}
	if err := s.queue.finish(j, res, keep); err != nil {
		s.logger.Error("ending a job", "spec", j.spec.String(), "err", err)
	}
}

// afterStore makes the form that most clients download, and room.
func (s *Service) afterStore(hex string) {
	if f, err := s.blobs.open(hex, gzipped); err == nil {
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.logger.Error("compressing a binary", "err", err)
	}
	if s.cfg.Quota == 0 {
		return
	}
	n, err := s.blobs.trim(int64(s.cfg.Quota)<<20, time.Now())
	if err != nil {
		s.logger.Error("removing binaries that are not used", "err", err)
	} else if n > 0 {
		s.logger.Info("removed binaries that are not used", "count", n)
	}
}

func joinLines(lines []string) string {
	var n int
	for _, l := range lines {
		n += len(l) + 1
	}
	b := make([]byte, 0, n)
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	return string(b)
}
