package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"example.org/upkeep/internal/durable"
	"example.org/upkeep/supervisor/install"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/schedule"
	"example.org/upkeep/supervisor/state"
)

// ErrRunning is returned by [New] when another supervisor uses the state folder.
var ErrRunning = errors.New("another upkeep runs with this state folder")

// Engine supervises one service. All its fields below msgs belong to the
// goroutine of [Engine.Run]; everything else reaches them through [Engine.do].
type Engine struct {
	cfg     atomic.Pointer[Config] // never changed, only replaced
	deps    Deps
	log     *slog.Logger
	lock    *durable.Locked
	file    state.File[document]
	hist    state.History[Result]
	metrics *metrics
	place   install.Place

	listening   *listening
	front       *front      // the proxy before the service, nil = there is none
	companies   sync.Map    // process.Process → *company
	expectReady atomic.Bool // the version before has said READY=1

	msgs  chan func()
	began chan struct{} // closed when the service was started
	ended chan struct{} // closed when Run has returned
	kick  chan struct{} // discovery: ask now

	resting atomic.Bool // memory is going to be given back

	subsMu sync.Mutex
	subs   map[chan struct{}]bool

	doc       document
	stateErr  error     // the state folder can't be used
	dirty     bool      // doc has changes that aren't on disk
	saved     time.Time // last successful save
	info      Info
	infoErr   error
	current   string // file that runs or is to run
	sum       string // of it, "" until computed
	proc      process.Process
	lastExit  string
	health    Health
	restarts  int
	crashes   int // in a row
	listed    map[string][]policy.Release
	decision  policy.Decision
	windows   *schedule.Windows
	knowledge Knowledge
	history   []Result // newest first
	updateLog []string
	progress  Progress
	work      *work // the state's work under way
	planTimer *time.Timer

	selfDecision policy.Decision
	selfListed   []policy.Release
	selfErr      string // of the last question for upkeep's own versions
	selfWork     *work
	selfTimer    *time.Timer
	// For the goroutine that asks only.
	majorsOf    string
	majorsAsked time.Time
	majorsSeen  []policy.Release

	appointTimer *time.Timer
	trial        bool            // this is a version on trial: it changes nothing
	standIn      standIn         // this version stood by, and why it supervises
	taken        bool            // the version before handed everything over
	runCtx       context.Context // of Run: ends when upkeep is told to

	saveTimer *time.Timer
	stopping  bool            // the supervisor is to end
	exit      chan int        // the status to end with
	killCtx   context.Context // ends when the service is to be killed without grace
	kill      context.CancelFunc
}

// work is the work of one state, done in a goroutine of its own.
type work struct {
	cancel context.CancelFunc
	done   bool
	// then is what to do when it has ended after being overtaken by an event.
	then func()
}

// outcome is how a state's work ended.
type outcome struct {
	event  event
	reason string
	err    error
	apply  func(u *update) // done in any case, also when the work was overtaken and the update is over
}

// New takes the state folder and reads what is in it. It fails only when
// another supervisor has the folder or the configuration doesn't tell how to
// start the service.
func New(cfg Config, deps Deps) (*Engine, error) {
	_, trial := OnTrial(deps.Inherited)
	return newEngine(cfg, deps, trial)
}

func newEngine(cfg Config, deps Deps, trial bool) (*Engine, error) {
	if err := cfg.CheckStart(); err != nil {
		return nil, err
	}
	if err := cfg.findUser(); err != nil {
		return nil, err
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Inspect == nil {
		deps.Inspect = Inspect
	}
	if deps.Disk == nil {
		deps.Disk = state.RealDisk{}
	}
	e := &Engine{
		deps: deps, log: deps.Log,
		file:   state.File[document]{Name: filepath.Join(cfg.State, "state"), Disk: deps.Disk},
		hist:   state.History[Result]{Name: filepath.Join(cfg.State, "history")},
		place:  install.At(cfg.Service.Path),
		msgs:   make(chan func(), 16),
		began:  make(chan struct{}),
		ended:  make(chan struct{}),
		kick:   make(chan struct{}, 1),
		subs:   map[chan struct{}]bool{},
		listed: map[string][]policy.Release{},
		exit:   make(chan int, 1),
	}
	e.killCtx, e.kill = context.WithCancel(context.Background())
	e.deps.Self.Started = deps.Now()
	e.deps.Self.Pid = os.Getpid()
	deps.Inherited.Get(standInKey, &e.standIn)
	if e.trial = trial; !trial {
		if err := e.takeFolder(cfg.State); err != nil {
			return nil, err
		}
	}
	e.metrics = newMetrics(deps.Metrics, append(deps.Kinds[:len(deps.Kinds):len(deps.Kinds)], kindChanged, kindOther))
	e.metrics.selfInfo.With(valid(deps.Self.Version), valid(deps.Self.GoVersion)).Set(1)
	e.listening = newListening(&cfg, &e.deps)
	e.useConfig(cfg)
	return e, nil
}

// lockTime is for how long one that was killed may still have the state folder.
const lockTime = 2 * time.Second

// takeFolder makes the state folder ours.
func (e *Engine) takeFolder(dir string) error {
	if f := e.deps.Inherited.Take(lockFile); f != nil {
		e.lock = durable.Adopt(f)
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		e.stateErr = fmt.Errorf("making the state folder: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(dir, "lock"))
	for end := time.Now().Add(lockTime); errors.Is(err, durable.ErrLocked) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		lock, err = durable.Lock(filepath.Join(dir, "lock"))
	}
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("%w: %s is in use; one upkeep supervises one service, with a state folder of its own", ErrRunning, dir)
	}
	if err != nil && e.stateErr == nil {
		e.stateErr = err
	}
	e.lock = lock
	return nil
}

// useConfig takes what depends on the configuration alone.
func (e *Engine) useConfig(cfg Config) {
	e.cfg.Store(&cfg)
	w, err := schedule.ParseWindows(cfg.Updates.Windows, cfg.Updates.Timezone)
	if err != nil {
		w = nil // said by CheckUpdates, and then nothing is installed by itself
	}
	e.windows = w
	e.health.Configured = e.checker().Configured()
	e.listening.configure(&cfg)
}

func (e *Engine) conf() *Config { return e.cfg.Load() }

func (e *Engine) checker() Checker {
	if e.deps.Checker != nil {
		return e.deps.Checker
	}
	cfg := e.conf().Health
	if c := e.company(e.proc); c != nil {
		cfg = cfg.direct(e.conf().Proxy.Listen, c.backends)
	}
	h := newHealth(cfg, e.deps.Commands)
	h.vacant = e.listening.vacant
	return h
}

// Run supervises until the service ends by itself or ctx does, and returns the
// exit status to end with.
func (e *Engine) Run(ctx context.Context) (status int, err error) {
	bg, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	status, err = e.run(ctx, func() { wg.Go(func() { e.poll(bg) }) })
	e.deps.Standby.Leave()
	e.front.close()
	// Nobody reads messages any more: say so before waiting for those who send some.
	close(e.ended)
	cancel()
	wg.Wait()
	if e.lock != nil {
		err = errors.Join(err, e.lock.Unlock())
	}
	return status, err
}

func (e *Engine) run(ctx context.Context, poll func()) (status int, err error) {
	e.runCtx = ctx
	e.load()
	taken, err := e.resume()
	if err != nil {
		e.addEvent(Event{Kind: "left_over", Text: err.Error()})
	}
	if e.standIn.Stop {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		stop()
	}
	if taken {
		e.recoverSelf()
		return e.loop(ctx, poll)
	}
	if said, err := e.deps.Runner.Recover(); err != nil {
		e.addEvent(Event{Kind: "left_over", Text: err.Error()})
	} else if said != "" {
		e.log.Warn(said)
	}
	e.recoverGroups()
	if e.standIn.Stop {
		return 0, nil // the service has ended, as it was to
	}
	// Before anything is written there: what is being written looks the same.
	if err := e.place.Clean(); err != nil {
		e.log.Warn("left-over files stay", "err", err)
	}
	// The service first; everything else can wait until it runs.
	if err := e.begin(); err != nil {
		return 1, err
	}
	e.recoverSelf()
	return e.loop(ctx, poll)
}

// resume goes on with what the version before handed over, if it did.
func (e *Engine) resume() (taken bool, err error) {
	if e.deps.Inherited == nil {
		return false, nil
	}
	var h handedEngine
	if e.deps.Inherited.Get(engineKey, &h) {
		e.use(h.Current)
	}
	if taken, err = e.takeOver(e.deps.Inherited); !taken {
		return false, err
	}
	if u := e.doc.Update; u != nil && u.State == StateScheduled {
		e.event(evRecover, "")
	}
	e.replan()
	return true, nil
}

func (e *Engine) loop(ctx context.Context, poll func()) (status int, err error) {
	close(e.began)
	if text := accessWarning(e.conf().cred, e.place.Path, e.current); text != "" {
		e.addEvent(Event{Kind: "service_user", Text: text})
	}
	file := e.current
	go func() {
		sum, _, err := install.Sum(file)
		e.post(func() { e.summed(file, sum, err) })
	}()
	poll()
	if e.standIn.Alone {
		giving, end := context.WithCancel(ctx)
		defer end()
		go e.giveWay(giving)
	}
	stop := ctx.Done()
	for {
		select {
		case f := <-e.msgs:
			f()
		case <-stop:
			stop = nil
			e.stop()
		case status := <-e.exit:
			return status, nil
		}
	}
}

// WaitStarted returns true when the service was started, false when ctx or the
// engine ended before.
func (e *Engine) WaitStarted(ctx context.Context) bool {
	select {
	case <-e.began:
		return true
	case <-e.ended:
	case <-ctx.Done():
	}
	return false
}

// begin starts the service, first undoing an update that was under way.
func (e *Engine) begin() error {
	e.look()
	if err := errors.Join(e.listening.open(), e.openFront()); err != nil {
		return err
	}
	u := e.doc.Update
	if u != nil && u.State.touched() {
		e.log.Warn("undoing an update that was interrupted", "from", u.From.String(), "to", u.To.String(), "state", u.State)
		e.event(evRecover, fmt.Sprintf("upkeep ended while the update was in state %q", u.State))
		return nil
	}
	if err := e.startCurrent(); err != nil {
		return err
	}
	switch {
	case u == nil:
		e.replan()
	default:
		if u.State == StateCommitted || u.State == StateRolledBack {
			e.finishRecord(u)
		}
		e.event(evRecover, "")
	}
	return nil
}

// running returns what runs, or is to run.
func (e *Engine) running() Pair { return e.info.Pair() }

func (e *Engine) now() time.Time { return e.deps.Now() }

// do runs f on the engine's goroutine and waits for it.
func (e *Engine) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case e.msgs <- func() { f(); close(done) }:
	case <-e.ended:
		return errors.New("upkeep is ending")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-e.ended:
		return errors.New("upkeep is ending")
	}
}

// post is do for goroutines of the engine, which don't wait.
func (e *Engine) post(f func()) {
	select {
	case e.msgs <- f:
	case <-e.ended:
	}
}

// event takes an event through the machine: the next state is journalled, then
// its work begins.
func (e *Engine) event(ev event, reason string) {
	from := StateIdle
	if e.doc.Update != nil {
		from = e.doc.Update.State
	}
	to, err := next(from, ev)
	if err != nil {
		e.log.Error(err.Error()) // an error of this program: the state stays
		return
	}
	if to == from && ev != evPlan && ev != evRecover {
		return
	}
	u := e.doc.Update
	if u == nil {
		return // idle stays idle
	}
	now := e.now()
	if reason != "" && (to == StateRollingBack || to == StateIdle) {
		u.Reason = reason
	}
	if to != from {
		if from != StateIdle && from != StateScheduled {
			u.StepsDone = append(u.StepsDone, Step{State: from, Name: stepNames[from], Done: true, Took: now.Sub(u.StepFrom)})
		}
		u.StepFrom = now
		e.progress = Progress{}
		e.note(u, to, reason)
	}
	u.State = to
	last := e.doc.Last
	switch to {
	case StateIdle:
		e.leave(u, from, ev)
		if u.open != nil {
			u.open.Close()
			u.open = nil
		}
	case StateCommitted:
		e.commit(u)
	case StateRolledBack:
		e.rolledBack(u)
	}
	if err := e.save(); err != nil && !e.journalFailed(u, from, to, err) {
		if to == StateCommitted {
			e.doc.Last = last // not yet
		}
		return
	}
	e.overtake(func() { e.enter(u, to) })
	e.changed()
}

// overtake ends the work under way, then does what follows.
func (e *Engine) overtake(then func()) {
	w := e.work
	if w == nil || w.done {
		then()
		return
	}
	w.then = then
	w.cancel()
}

// start runs a state's work.
func (e *Engine) start(u *update, f func(ctx context.Context) outcome) {
	ctx, cancel := context.WithCancel(e.killCtx)
	w := &work{cancel: cancel}
	e.work = w
	go func() {
		out := f(ctx)
		cancel()
		e.post(func() {
			w.done = true
			if out.apply != nil {
				out.apply(u)
			}
			if w.then != nil {
				w.then()
				return
			}
			if out.err != nil {
				e.failed(out)
				return
			}
			e.event(out.event, out.reason)
		})
	}()
}
