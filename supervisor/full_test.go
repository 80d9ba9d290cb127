//go:build unix

package supervisor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
)

// A write is one step that a full disk can refuse: of those of the state file by
// the save and the step within it, of the others by number. All count from 1.
type write struct{ n, save, step int }

// A nearlyFull disk refuses one single write below a folder.
type nearlyFull struct {
	at write

	mu    sync.Mutex
	now   write
	where string // what was refused
}

func (d *nearlyFull) try(step, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	this := write{}
	switch base := filepath.Base(name); {
	case base == "state.prev": // a save begins with it
		d.now.save, d.now.step = d.now.save+1, 1
		this = write{0, d.now.save, 1}
	case strings.HasPrefix(base, "state"): // the file, or its folder
		d.now.step++
		this = write{0, d.now.save, d.now.step}
	default:
		d.now.n++
		this.n = d.now.n
	}
	if this != d.at || d.where != "" {
		return nil
	}
	d.where = step + " " + name
	return &fs.PathError{Op: step, Path: name, Err: syscall.ENOSPC}
}

func (d *nearlyFull) refused() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.where
}

// nearlyFulls are by folder: what breaks writes is one for the whole process.
var nearlyFulls sync.Map

func init() {
	durable.Break(func(step, name string) (err error) {
		nearlyFulls.Range(func(dir, d any) bool {
			if strings.HasPrefix(name, dir.(string)) {
				err = d.(*nearlyFull).try(step, name)
				return false
			}
			return true
		})
		return err
	})
}

// Each single write of an update is refused once, of the binary, its name, the
// journal, the history and the record of the process. The service runs, and in
// the end the update goes through, with nobody blamed.
func testEachWrite(t *testing.T) {
	var mu sync.Mutex
	kinds := map[string]bool{}
	refuse := func(t *testing.T, w write) bool {
		where := refuseWrite(t, w)
		mu.Lock()
		defer mu.Unlock()
		kinds[where] = true
		return where != "" && !t.Failed()
	}
	t.Run("refused", func(t *testing.T) {
		t.Run("binary, name, history, process", func(t *testing.T) {
			t.Parallel()
			for n := 1; refuse(t, write{n: n}); n++ {
			}
		})
		t.Run("journal", func(t *testing.T) {
			t.Parallel()
			// All saves are the same code, so that one step of each is refused, another
			// one each time, unless there is time for all.
			for save := 1; ; save++ {
				first, last := save%stepsOfSave+1, save%stepsOfSave+1
				if os.Getenv("UPKEEP_TEST_LONG") != "" {
					first, last = 1, stepsOfSave
				}
				for step := first; step <= last; step++ {
					if !refuse(t, write{save: save, step: step}) {
						if save <= stepsOfSave && !t.Failed() {
							t.Errorf("there was no step %d of save %d", step, save)
						}
						return
					}
				}
			}
		})
	})
	for _, want := range []string{"create hello-v1.0.1", "sync hello-v1.0.1", "create hello", "rename hello", "create state", "write state", "rename state", "append history", "create process"} {
		if !kinds[want] {
			t.Errorf("%q was not refused, of %v", want, kinds)
		}
	}
}

// stepsOfSave: the copy's name, then file, content, sync, name and folder.
const stepsOfSave = 6

// refuseWrite goes through an update of which one write is refused, and returns which.
func refuseWrite(t *testing.T, at write) string {
	b := newBench(t, "")
	b.cfg.Updates.BackoffMin, b.cfg.Updates.BackoffMax = config.Duration(20*time.Millisecond), config.Duration(100*time.Millisecond)
	b.cfg.Updates.Interval = config.Duration(50 * time.Millisecond)
	b.cfg.Health.Probation, b.cfg.Health.Interval = config.Duration(20*time.Millisecond), config.Duration(10*time.Millisecond)
	b.syncs = true
	d := &nearlyFull{at: at}
	nearlyFulls.Store(b.dir+"/", d)
	defer nearlyFulls.Delete(b.dir + "/")
	b.publish("v1.0.1")
	b.start()
	s := b.until(fmt.Sprintf("update after write %+v was refused (%s)", at, d.refused()), func(s Status, v string) bool {
		return v == "v1.0.1" && s.Update == nil && s.Code == CodeCurrent
	})
	where := d.refused()
	if len(s.Skips) != 0 || b.target() != "v1.0.1" || s.LastResult == nil || s.LastResult.Result != ResultInstalled || s.Self.StateErr != "" {
		t.Errorf("write %+v (%s): link to %s, skips %+v, result %+v, state %q", at, where, b.target(), s.Skips, s.LastResult, s.Self.StateErr)
	}
	pids := processesOf(t, b.cfg.State)
	if len(pids) != 1 || pids[0] != s.Service.Pid {
		t.Errorf("write %+v (%s): processes %v; want %d", at, where, pids, s.Service.Pid)
	}
	b.stop()
	// What was refused left nothing behind.
	list, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.Contains(e.Name(), ".tmp-") {
			t.Errorf("write %+v (%s): %s is left", at, where, e.Name())
		}
	}
	step, name, _ := strings.Cut(where, " ")
	name = name[strings.LastIndexByte(name, '/')+1:]
	name, _, _ = strings.Cut(name, ".tmp-")
	return strings.TrimSpace(step + " " + strings.TrimSuffix(name, "-"+testGo))
}
