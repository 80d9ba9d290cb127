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
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	"example.org/upkeep/internal/metric/prom"
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
	patient    time.Duration // with clients that take answers slowly
	trimDue    atomic.Bool   // nothing starts until space was given back
	looking    atomic.Bool   // for newer versions
	pages      Pages
	commands   *commandLists
	logHandler http.Handler
	metrics    *metrics
	clients    *clientLimits
	verifiers  []*verifier
	circles    *circles
	confirming chan struct{} // one for each build whose verifiers' records are looked at
	hurrying   chan struct{} // one for each where that is done in a hurry
	comparing  chan struct{} // one for each binary of a verifier that is fetched
	pause      time.Duration // between asking for a verifier's record and asking again

	dir                       string
	modCache, goPath, workDir string
	goProxy, goSumDB          string
	netEnv                    []string
	netMounts                 []sandbox.Mount

	mu     sync.Mutex
	temp   map[spec.Spec]Result // temporary failures since the start
	recent []Result             // newest first
	ahead  []spec.Spec          // to build when nothing else is to do
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
		temp: map[spec.Spec]Result{}, patient: patient, circles: newCircles(), pause: time.Minute, metrics: newMetrics(o.Metrics)}
	s.confirming, s.hurrying = make(chan struct{}, o.Config.MaxQueue), make(chan struct{}, o.Config.MaxQueue)
	s.comparing = make(chan struct{}, maxCompared)
	if s.pages == nil {
		s.pages = plainPages{s}
	}
	if s.lock, err = lockFolder(o.Dir, moment); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.removeLeftOvers(); err != nil {
		return nil, err
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
	logs := prom.Bridge(o.Metrics)
	if s.log, err = tlog.OpenLog(filepath.Join(o.Dir, "log"), o.SignerKey, tlog.LogOptions{Logger: o.Logger, Metrics: logs}); err != nil {
		return nil, err
	}
	s.logHandler = http.StripPrefix("/tlog", s.log.Handler(func(ctx context.Context, key string) error {
		return s.lookup(ctx, key, askerOf(ctx))
	}))
	s.commands = &commandLists{src: o.Source, dir: s.workDir, slots: make(chan struct{}, 2), known: map[module.Version][]Command{}}
	if s.blobs, err = openBlobs(filepath.Join(o.Dir, "blobs")); err != nil {
		return nil, err
	}
	s.results = results{filepath.Join(o.Dir, "results")}
	if s.toolchains, err = toolchain.Open(filepath.Join(o.Dir, "toolchains"), o.Source, o.Config.GoRoot, o.Logger); err != nil {
		return nil, err
	}
	s.toolchains.SetIndex(toolchain.Index{Zone: o.Config.GoIndex, Server: o.Config.GoIndexServer})
	if s.clients, err = newClientLimits(o.Config.Limit, o.Logger); err != nil {
		return nil, err
	}
	for _, v := range o.Config.Verifiers {
		if v.Key == s.log.VerifierKey() {
			return nil, errors.New("verifiers: one has the key of this server's own log; its word proves nothing")
		}
		ver, err := openVerifier(v, filepath.Join(o.Dir, "verifiers"), o.Logger, logs)
		if err != nil {
			return nil, err
		}
		s.verifiers = append(s.verifiers, ver)
	}
	if s.queue, err = openQueue(filepath.Join(o.Dir, "queue"), o.Config.MaxQueue); err != nil {
		return nil, err
	}
	if err := errors.Join(s.loadRecent(), s.loadAlarms()); err != nil {
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
		// Nothing is lost with it that a new build does not find again.
		s.logger.Error("reading a result; it counts as none", "err", err)
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

var _ http.Handler = (*Service)(nil)
