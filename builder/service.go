// Package builder is a service that builds Go programs reproducibly and
// records each result in a transparency log of its own.
//
// Not trusted: whoever asks, the module proxy, and above all the source of the
// modules and what compiling it does. Trusted: the checksum database, which
// every module and toolchain is checked against, the verified toolchains, the
// sandbox, and the key of the log, which no command of a build can reach.
//
// Files, below the service's folder:
//
//	log/         the transparency log; what is in it was built, once and for all
//	blobs/       binaries by their SHA-256, with compressed forms
//	results/     how each build went, and its output
//	queue/       one file for each build that is not done
//	toolchains/  verified Go toolchains
//	modcache/    downloaded modules, written by the fetch step only
//	gopath/      the go command's own state of the checksum database
//	verifiers/   what was seen of other builders' logs
//	mismatches/  results that another builder had otherwise, one file each
//	sumdb/       this program's state of the checksum database
//	std/         compiled standard libraries, from verified source only
//	deps/        compiled dependencies, each checked against its key; see share.go
//	work/        one folder for each running build, removed afterwards
//
// A crash at any instant loses nothing that was answered: a binary is stored
// before its record is logged, and the log is what counts.
package builder

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/module"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/source"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/builder/toolchain"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

// Options are what a service is made of.
type Options struct {
	Config    Config
	Dir       string // folder of all files
	SignerKey string // of the build log
	Sandbox   sandbox.Sandbox
	Source    *source.Source
	GOPROXY   string // for the go command, as Source has it; no "direct"
	GOSUMDB   string // for the go command
	Pages     Pages  // nil: pages are plain text
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
}

// Service builds on request and answers over HTTP.
type Service struct {
	cfg        Config
	logger     *slog.Logger
	lock       *durable.Locked
	sb         sandbox.Sandbox
	src        *source.Source
	toolchains *toolchain.Store
	log        *tlog.Log
	blobs      *blobs
	results    results
	queue      *queue
	std        *stdCaches
	deps       *stdCaches // nil: compiled dependencies are not shared
	background sync.WaitGroup
	watchers   atomic.Int64
	pages      Pages
	commands   *commandLists
	logHandler http.Handler
	metrics    *metrics
	clients    *clientLimits
	verifiers  []*verifier

	dir                       string
	modCache, goPath, workDir string
	goProxy, goSumDB          string
	netEnv                    []string
	netMounts                 []sandbox.Mount

	mu     sync.Mutex
	temp   map[spec.Spec]Result // temporary failures since the start
	recent []Result             // newest first
	alarms []Alarm              // newest first
}

// unknownFor is how long the answer stands that something does not exist: it
// may be published any minute.
const unknownFor = 15 * time.Second

// Bounds of what is kept in memory for the pages.
const (
	maxRecent = 50
	maxTemp   = 10_000
	maxAlarms = 100

	maxWatchers = 5000 // requests that wait for builds
)

// New opens the service's folder. Call [Service.Run] to build and
// [Service.Close] at the end.
func New(o Options) (_ *Service, err error) {
	if err := o.Config.Check(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	// Folders are looked into by the user that builds run as; secrets have their own modes.
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("making the service's folder: %w", err)
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	s := &Service{cfg: o.Config, logger: o.Logger, sb: o.Sandbox, src: o.Source, pages: o.Pages,
		goProxy: o.GOPROXY, goSumDB: o.GOSUMDB, dir: o.Dir,
		modCache: filepath.Join(o.Dir, "modcache"), goPath: filepath.Join(o.Dir, "gopath"), workDir: filepath.Join(o.Dir, "work"),
		std:  &stdCaches{dir: filepath.Join(o.Dir, "std"), all: map[string]*stdCache{}},
		temp: map[spec.Spec]Result{}, metrics: newMetrics(o.Metrics)}
	if s.pages == nil {
		s.pages = plainPages{s}
	}
	s.lock, err = durable.Lock(filepath.Join(o.Dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("another build service uses the folder %s", o.Dir)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	// Left by builds that were running when the process was killed.
	if err := removeAll(s.workDir); err != nil {
		return nil, fmt.Errorf("removing left-over builds: %w", err)
	}
	if err := s.std.clean(0); err != nil {
		return nil, err
	}
	if s.cfg.Share > 0 && s.sb.Tool() != "" {
		s.deps = &stdCaches{dir: filepath.Join(o.Dir, "deps"), all: map[string]*stdCache{}}
		if err := s.deps.clean(int64(s.cfg.Share) << 20); err != nil {
			return nil, err
		}
	}
	for _, dir := range []string{s.modCache, s.goPath, s.workDir, s.std.dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making the service's folder: %w", err)
		}
	}
	for _, dir := range []string{s.modCache, s.goPath} {
		if err := s.sb.Own(dir); err != nil {
			return nil, fmt.Errorf("giving %s to the user that builds run as: %w", dir, err)
		}
	}
	if err := s.sb.Probe(context.Background(), s.workDir); err != nil {
		return nil, err
	}
	s.netEnv, s.netMounts = network()
	if s.log, err = tlog.OpenLog(filepath.Join(o.Dir, "log"), o.SignerKey, tlog.LogOptions{Logger: o.Logger, Metrics: o.Metrics}); err != nil {
		return nil, err
	}
	s.logHandler = http.StripPrefix("/tlog", s.log.Handler(func(ctx context.Context, key string) error {
		client, _ := ctx.Value(clientKey{}).(string)
		return s.lookup(ctx, key, client)
	}))
	s.commands = &commandLists{src: o.Source, dir: s.workDir, slots: make(chan struct{}, 2), known: map[module.Version][]Command{}}
	if s.blobs, err = openBlobs(filepath.Join(o.Dir, "blobs")); err != nil {
		return nil, err
	}
	s.results = results{filepath.Join(o.Dir, "results")}
	if s.toolchains, err = toolchain.Open(filepath.Join(o.Dir, "toolchains"), o.Source, o.Config.GoRoot, o.Logger); err != nil {
		return nil, err
	}
	s.clients = newClientLimits(o.Config.Limit)
	for _, v := range o.Config.Verifiers {
		ver, err := openVerifier(v, filepath.Join(o.Dir, "verifiers"), o.Logger, o.Metrics)
		if err != nil {
			return nil, err
		}
		s.verifiers = append(s.verifiers, ver)
	}
	if s.queue, err = openQueue(filepath.Join(o.Dir, "queue"), o.Config.MaxQueue); err != nil {
		return nil, err
	}
	if err := s.loadRecent(); err != nil {
		return nil, err
	}
	s.metrics.observe(s)
	return s, nil
}

// Close releases the folder.
func (s *Service) Close() error {
	var errs []error
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}

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

// Run builds what is asked for until ctx ends; then the builds that run get
// some time to end.
func (s *Service) Run(ctx context.Context) error {
	buildCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var wg sync.WaitGroup
	var running atomic.Int64
	parallel := int64(s.cfg.parallel())
	fits := func(large bool) bool { return running.Load() == 0 || !large && running.Load() < parallel }
	timer := time.NewTimer(0)
	defer timer.Stop()
	janitor := time.NewTicker(max(s.cfg.Abandon.D()/4, 50*time.Millisecond))
	defer janitor.Stop()
	idle := make(chan struct{}, 1) // a build ended
	var trimmed time.Time
	for ctx.Err() == nil {
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
			wg.Go(func() {
				s.work(buildCtx, j)
				running.Add(-weight)
				select {
				case idle <- struct{}{}:
				default:
				}
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

// work runs one job.
func (s *Service) work(ctx context.Context, j *job) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.queue.setCancel(j, cancel)
	j.tries++
	started := time.Now()
	logger := s.logger.With("spec", j.spec.String())
	logger.Info("build starts", "try", j.tries, "client", j.client)
	b := &build{s: s, spec: j.spec, large: j.large, live: func(l string) { s.queue.line(j, l) }}
	var out built
	err := s.room()
	if err == nil {
		out, err = b.run(ctx)
	}
	res := Result{Spec: j.spec, Started: started.UTC(), Took: time.Since(started), Steps: b.steps, Missing: s.sb.Missing(), Tries: j.tries}
	if err == nil {
		res.Toolchain = out.toolchain
		err = s.record(ctx, out, &res)
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
		logger.Info("build done", "sum", res.Sum, "size", res.Size, "took", res.Took.Round(time.Millisecond), "steps", stepsText(res.Steps))
		s.finish(j, res, false)
	case errors.Is(context.Cause(ctx), errClosing):
		res.State, res.Error = StateTempFailed, errClosing.Text
		s.finish(j, res, true)
	case errors.Is(context.Cause(ctx), errAbandoned):
		res.State, res.Error = StateTempFailed, "Nobody waited for the build any more."
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
func (s *Service) record(ctx context.Context, out built, res *Result) error {
	if err := s.agree(ctx, out.record); err != nil {
		return err
	}
	id, err := s.log.Append(ctx, tlog.Entry{Key: out.record.Spec.String(), Text: out.record.Line()})
	if errors.Is(err, tlog.ErrKeyExists) {
		return temporary("The build gave another sum than the log records: "+out.record.Sum+".", &alarmError{"sum_differs", err})
	}
	if err != nil {
		return temporary("The build server could not write its log.", err)
	}
	res.State, res.LogID = StateSuccess, id
	res.Size, res.Sum, res.SHA256 = out.record.Size, out.record.Sum, fmt.Sprintf("%x", out.sha256)
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

// Result returns what is known of a spec. It starts nothing.
func (s *Service) Result(sp spec.Spec) (Result, error) {
	if id, ok := s.log.Find(sp.String()); ok {
		return s.logged(sp, id)
	}
	if res, ok := s.queue.find(sp); ok {
		return res, nil
	}
	res, ok, err := s.results.load(sp)
	if err != nil {
		return Result{}, err
	}
	if ok && res.State == StateFailed {
		return res, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if res, ok := s.temp[sp]; ok {
		return res, nil
	}
	return Result{Spec: sp}, nil
}

// logged returns the result of a record in the log, which counts whatever else is kept.
func (s *Service) logged(sp spec.Spec, id int64) (Result, error) {
	text, err := s.log.Record(id)
	if err != nil {
		return Result{}, err
	}
	rec, err := spec.ParseRecord(text)
	if err != nil {
		return Result{}, fmt.Errorf("record %d of the log: %w", id, err)
	}
	if rec.Spec != sp {
		return Result{}, fmt.Errorf("record %d of the log is of %s, not of %s", id, rec.Spec, sp)
	}
	res, ok, err := s.results.load(sp)
	if err != nil {
		s.logger.Error("reading a result", "err", err)
	}
	if !ok || res.State != StateSuccess || res.Sum != rec.Sum {
		res = Result{Spec: sp, State: StateSuccess}
	}
	res.Size, res.Sum, res.LogID = rec.Size, rec.Sum, id
	res.Removed = res.SHA256 == "" || !s.blobs.has(res.SHA256)
	return res, nil
}

func (s *Service) loadRecent() error {
	size := s.log.Head().Size
	for id := size - 1; id >= 0 && id >= size-maxRecent; id-- {
		text, err := s.log.Record(id)
		if err != nil {
			return err
		}
		rec, err := spec.ParseRecord(text)
		if err != nil {
			return fmt.Errorf("record %d of the log: %w", id, err)
		}
		res, err := s.logged(rec.Spec, id)
		if err != nil {
			return err
		}
		s.recent = append(s.recent, res)
	}
	return nil
}

// Output returns the lines that a build has written so far, or wrote.
func (s *Service) Output(sp spec.Spec) ([]string, error) {
	s.queue.mu.Lock()
	j, ok := s.queue.jobs[sp]
	s.queue.mu.Unlock()
	if ok {
		_, _, out, _, _ := s.queue.snapshot(j, 0)
		return out, nil
	}
	data, err := s.results.output(sp)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the output of a build: %w", err)
	}
	return splitLines(string(data)), nil
}

// Status returns the state of the service.
func (s *Service) Status(ctx context.Context) Status {
	st := Status{VerifierKey: s.log.VerifierKey(), LogSize: s.log.Head().Size, Missing: s.sb.Missing()}
	if line, err := s.toolchains.Line(ctx); err == nil {
		st.GoVersion, st.Previous, st.Next = line.Current, line.Previous, line.Next
	}
	st.Building, st.Queued = s.queue.list()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Recent, st.Alarms = slices.Clone(s.recent), slices.Clone(s.alarms)
	return st
}

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
	if res.State == StateSuccess || res.State == StateFailed && res.RetryAt.IsZero() || time.Now().Before(res.RetryAt) {
		return res, emit(finalEvent(res))
	}
	return s.follow(ctx, sp, client, emit)
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
		res := Result{Spec: sp, State: StateTempFailed, Error: f.Text, NotFound: f.NotFound, status: f.Status}
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
	if !allowed(s.cfg.Allow, s.cfg.Deny, sp.Module) {
		return nil, unknown("This server does not build " + sp.Module + ".")
	}
	if err := s.clients.take(client, func() bool { return s.recentGo(ctx, sp.GoVersion) }, time.Now()); err != nil {
		return nil, err
	}
	return s.queue.add(sp, client)
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
func (s *Service) lookup(ctx context.Context, key, client string) error {
	sp, err := spec.Parse(key)
	if err != nil {
		return notFound(sentence(printable(err.Error())))
	}
	res, err := s.Watch(ctx, sp, client, nil)
	if err != nil {
		return err
	}
	if res.State == StateSuccess {
		return nil
	}
	return &Failure{Permanent: res.State == StateFailed, NotFound: res.NotFound, Text: res.Error, Status: res.status}
}

var _ http.Handler = (*Service)(nil)
