package builder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
)

// A job is one spec that is waited for, in the queue or building.
type job struct {
	spec   spec.Spec
	client string // network of who asked first
	seq    int64
	added  time.Time

	// Guarded by queue.mu.
	state     State
	position  int
	tries     int
	out       *built // of a good build that too few verifiers agreed with; only its runner's
	large     bool   // needs more than one build's share of the memory
	notBefore time.Time
	started   time.Time
	lines     []string
	size      int
	waiters   int
	idle      time.Time // since when nobody waits; zero: somebody does
	kept      bool      // queued by an earlier process: nobody needs to wait
	ahead     bool      // nobody has asked for it
	cancel    context.CancelCauseFunc
	crowded   bool          // it was told to give up
	change    chan struct{} // closed at the next change
	made      *spec.Record  // what was built, also before verifiers were asked
	res       Result        // when done
	done      bool
}

// queue holds the jobs that are not done.
type queue struct {
	dir string // one file for each job, so that a restart goes on with them
	max int    // of those to be built, and apart from them of those that wait for verifiers

	mu       sync.Mutex
	jobs     map[spec.Spec]*job
	seq      int64
	turns    int64
	lastTurn map[string]int64
	wake     chan struct{} // holds a token when there may be something to start
	closed   bool
}

// errQueueFull refuses a job.
var errQueueFull = temporary("The build server's queue is full; try again later.", nil)

// errCrowded ends a job's wait for verifiers in favour of another's.
var errCrowded = temporary("The result is not logged: too many builds wait for what other builders say; try again later.", errNotAgreed)

// errClosing refuses a job while the server stops.
var errClosing = temporary("The build server is stopping; try again in a minute.", nil)

type keptJob struct {
	Spec   string
	Client string
	Added  time.Time
}

func openQueue(dir string, max int) (*queue, error) {
	q := &queue{dir: dir, max: max, jobs: map[spec.Spec]*job{}, lastTurn: map[string]int64{}, wake: make(chan struct{}, 1)}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the queue: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the queue: %w", err)
	}
	var kept []keptJob
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the queue: %w", err)
		}
		var k keptJob
		_, specErr := spec.Parse("")
		if err := json.Unmarshal(data, &k); err == nil {
			_, specErr = spec.Parse(k.Spec)
		}
		if specErr != nil || !strings.HasSuffix(name, ".json") {
			// A write that a crash cut short. Whoever waited for it asks again.
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("cleaning the queue: %w", err)
			}
			continue
		}
		kept = append(kept, k)
	}
	slices.SortFunc(kept, func(a, b keptJob) int { return a.Added.Compare(b.Added) })
	for _, k := range kept {
		sp, _ := spec.Parse(k.Spec) // parsed above
		q.seq++
		q.jobs[sp] = &job{spec: sp, client: k.Client, seq: q.seq, added: k.Added, state: StateQueued, kept: true, change: make(chan struct{})}
	}
	q.update()
	return q, nil
}

func (q *queue) file(s spec.Spec) string {
	return filepath.Join(q.dir, filepath.Base(results{}.file(s, ".json")))
}

// add returns the job for a spec, new or merged with one that is there, and
// counts the caller as waiting for it. The caller calls leave.
func (q *queue) add(s spec.Spec, client string) (*job, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, errClosing
	}
	if j, ok := q.jobs[s]; ok {
		j.join()
		return j, nil
	}
	if q.unbuilt() >= q.max {
		return nil, errQueueFull
	}
	q.seq++
	j := &job{spec: s, client: client, seq: q.seq, added: time.Now().UTC(), state: StateQueued, waiters: 1, change: make(chan struct{})}
	data, err := json.Marshal(keptJob{s.String(), client, j.added})
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(q.file(s), data, 0o644); err != nil {
		return nil, temporary("The build server can't keep its queue.", err)
	}
	q.jobs[s] = j
	q.update()
	return j, nil
}

// join returns the job for a spec if there is one, as add does.
func (q *queue) join(s spec.Spec) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	j, ok := q.jobs[s]
	if !ok || q.closed {
		return nil
	}
	j.join()
	return j
}

func (j *job) join() {
	j.waiters++
	j.idle, j.ahead = time.Time{}, false
}

// unbuilt counts the jobs that need a place for a build. Verifiers can be silent
// for long, which is no reason to build nothing else.
func (q *queue) unbuilt() int {
	n := 0
	for _, j := range q.jobs {
		if j.made == nil {
			n++
		}
	}
	return n
}

// addAhead adds a job that nobody waits for, if there is no other. The next
// start forgets it.
func (q *queue) addAhead(s spec.Spec) (added bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.jobs) > 0 {
		return false
	}
	q.seq++
	q.jobs[s] = &job{spec: s, client: aheadClient, seq: q.seq, added: time.Now().UTC(), state: StateQueued, kept: true, ahead: true, change: make(chan struct{})}
	q.update()
	return true
}

// waitedFor reports whether somebody waits for a job.
func (q *queue) waitedFor(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return j.waiters > 0
}

// isAhead reports whether nobody has asked for a job so far.
func (q *queue) isAhead(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return j.ahead
}

// leave ends the interest of a caller of add.
func (q *queue) leave(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.waiters--
	if j.waiters == 0 {
		j.idle = time.Now()
	}
}

// update recomputes the positions and tells those whose position changed.
func (q *queue) update() {
	var queued []*job
	for _, j := range q.jobs {
		if j.state == StateQueued {
			queued = append(queued, j)
		}
	}
	in := make([]waiting, len(queued))
	for i, j := range queued {
		in[i] = waiting{j.client, j.seq, j.notBefore}
	}
	for pos, i := range order(in, q.lastTurn, time.Now()) {
		if j := queued[i]; j.position != pos+1 {
			j.position = pos + 1
			j.changed()
		}
	}
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (j *job) changed() {
	close(j.change)
	j.change = make(chan struct{})
}

// next takes the first job that may run, if fits lets it; when there is none
// it returns how long to wait for the first that may run later (0: none).
func (q *queue) next(fits func(large bool) bool) (j *job, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, 0
	}
	now := time.Now()
	for _, c := range q.jobs {
		if c.state != StateQueued {
			continue
		}
		if d := c.notBefore.Sub(now); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		if j == nil || c.position < j.position {
			j = c
		}
	}
	if j == nil {
		return nil, wait
	}
	if !fits(j.large) {
		return nil, 0 // those behind it wait as well, or a large one would for ever
	}
	q.turns++
	q.lastTurn[j.client] = q.turns
	if len(q.lastTurn) > maxClients {
		q.forgetTurns()
	}
	j.state, j.position, j.started = StateBuilding, 0, now
	j.tries++
	j.changed()
	q.update()
	return j, 0
}

// forgetTurns leaves the turns of those that have a job.
func (q *queue) forgetTurns() {
	here := map[string]bool{}
	for _, j := range q.jobs {
		here[j.client] = true
	}
	maps.DeleteFunc(q.lastTurn, func(client string, _ int64) bool { return !here[client] })
}

// again puts a job back into the queue, not to run before a time.
func (q *queue) again(j *job, notBefore time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.state, j.notBefore, j.cancel, j.crowded = StateQueued, notBefore, nil, false
	j.changed()
	q.update()
}

// finish ends a job. keep leaves its file for the next start.
func (q *queue) finish(j *job, res Result, keep bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.res, j.state, j.done = res, res.State, true
	delete(q.jobs, j.spec)
	j.changed()
	q.update()
	if keep {
		return nil
	}
	if err := os.Remove(q.file(j.spec)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the queue: %w", err)
	}
	return nil
}

// line adds a line of output to a job.
func (q *queue) line(j *job, s string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.size > maxOutput {
		return
	}
	j.size += len(s) + 1
	if j.size > maxOutput {
		s = "(more output is left out)"
	}
	j.lines = append(j.lines, s)
	j.changed()
}

// built tells those who want to know what was built, logged or not. When too
// many wait for verifiers one of them gives up.
func (q *queue) built(j *job, rec spec.Record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.made = &rec
	j.changed()
	var asking []*job
	var in []waiting
	for _, j := range q.jobs {
		if j.made != nil && j.cancel != nil && !j.crowded {
			asking = append(asking, j)
			in = append(in, waiting{client: j.client, seq: j.seq})
		}
	}
	if len(asking) > q.max {
		j := asking[crowded(in)]
		j.crowded = true
		j.cancel(errCrowded)
	}
}

// made returns what a job has built, whether it is done, and the channel that is
// closed at the next change.
func (q *queue) made(j *job) (rec *spec.Record, done bool, change <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return j.made, j.done, j.change
}

// setCancel gives a running job its end.
func (q *queue) setCancel(j *job, cancel context.CancelCauseFunc) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j.cancel = cancel
}

// abandoned returns the jobs that nobody has waited for since a time, and
// cancels those that run.
func (q *queue) abandoned(since time.Time) (queued []*job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.jobs {
		if j.kept || j.waiters > 0 || j.idle.IsZero() || j.idle.After(since) {
			continue
		}
		if j.state == StateQueued {
			j.state = StateBuilding // nobody else takes it
			queued = append(queued, j)
		} else if j.cancel != nil {
			j.cancel(errAbandoned)
		}
	}
	return queued
}

// errAbandoned ends a build that nobody waits for any more.
var errAbandoned = fmt.Errorf("nobody waits for it any more: %w", context.Canceled)

// snapshot returns what a watcher sees: the state, the output from line from
// on, and the channel that is closed at the next change.
func (q *queue) snapshot(j *job, from int) (state State, position int, lines []string, done bool, change <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return j.state, j.position, slices.Clone(j.lines[min(from, len(j.lines)):]), j.done, j.change
}

// find returns the result of a job that is not done.
func (q *queue) find(s spec.Spec) (Result, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	j, ok := q.jobs[s]
	if !ok {
		return Result{}, false
	}
	return j.result(), true
}

func (j *job) result() Result {
	return Result{Spec: j.spec, State: j.state, Position: j.position, Started: j.started, Tries: j.tries}
}

// list returns all jobs: those that run, then the queue in its order.
func (q *queue) list() (building, queued []Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, j := range q.jobs {
		if j.state == StateQueued {
			queued = append(queued, j.result())
		} else {
			building = append(building, j.result())
		}
	}
	slices.SortFunc(building, func(a, b Result) int { return a.Started.Compare(b.Started) })
	slices.SortFunc(queued, func(a, b Result) int { return cmp.Compare(a.Position, b.Position) })
	return building, queued
}

// close stops giving out jobs.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.poke()
}
