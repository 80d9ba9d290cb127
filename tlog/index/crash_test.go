package index_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

const crashEnv = "UPKEEP_TEST_FOLLOW"

// A crashJob is what the test's own binary, started again, does and is killed at.
type crashJob struct {
	Key, URL, Dir, Tiles string

	Plain bool   // usual options and no tiles kept
	Serve string // ask an index instead, and write the result to this file
	Read  bool   // dump an index instead, again and again
	Die   string // at this step of renaming the index (see durable.Watch)
}

var serveJob, readJob func(crashJob) error

func TestMain(m *testing.M) {
	if env := os.Getenv(crashEnv); env != "" {
		if err := crashChild(env); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func crashChild(env string) error {
	var j crashJob
	if err := json.Unmarshal([]byte(env), &j); err != nil {
		return err
	}
	if j.Serve != "" {
		return serveJob(j)
	}
	if j.Read {
		return readJob(j)
	}
	if j.Die != "" {
		dieAt(j.Die)
	}
	var tiles *tlog.TileDir
	opts := index.Options{}
	if !j.Plain {
		opts = crashOptions
		if j.Die != "" { // a long journal leaves much of the file free
			opts = index.Options{JournalPeriod: time.Nanosecond}.CompactAt(1 << 10)
		}
		var err error
		if tiles, err = tlog.OpenTileDir(j.Tiles, nil); err != nil {
			return err
		}
	}
	c, err := tlog.NewClient(tlog.ClientConfig{Key: j.Key, URL: j.URL, Dir: j.Dir, Tiles: tiles})
	if err != nil {
		return err
	}
	s, err := index.Open(filepath.Join(j.Dir, "index.db"), opts)
	if err != nil {
		return err
	}
	head, err := c.Update(context.Background())
	if err != nil {
		return err
	}
	if err := s.Follow(context.Background(), c, head, 0, nil); err != nil {
		return err
	}
	return s.Close()
}

// dieAt kills this process just before an index is renamed, or just after.
func dieAt(step string) {
	renamed := false
	w := durable.Watcher(func(did, name string) {
		if did == "rename" {
			renamed = filepath.Base(name) == "index.db"
		}
		if renamed && did == step {
			if p, err := os.FindProcess(os.Getpid()); err == nil {
				p.Kill()
			}
			select {}
		}
	})
	durable.Watch(w)
}

// Journal and merge all the time, so that kills meet them.
var crashOptions = index.Options{MergeBytes: 300 << 10, MergeModules: 100, JournalPeriod: time.Nanosecond}.CompactAt(1 << 10)

// TestKill kills a follower at random instants, again and again, and wants the
// index to come out as one that was never disturbed.
func TestKill(t *testing.T) {
	const size, rounds = 12_345, 200
	srv, url := serve(t, small, size)
	want := func() string {
		s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
		follow(t, s, client(t, srv, url))
		return dump(t, s)
	}()
	// Each answer takes a little, so that there are many instants to kill at.
	asked := make(chan struct{}, 1)
	srv.SetFaults(logtest.Faults{Delay: 500 * time.Microsecond, Before: func(r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
	}})
	dir, tiles := t.TempDir(), t.TempDir()
	kills, finished, fresh := 0, 0, 0
	for kills < rounds || finished < 3 {
		env, err := json.Marshal(crashJob{Key: srv.VerifierKey(), URL: url, Dir: dir, Tiles: tiles})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+string(env))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		select {
		case <-asked:
		default:
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		killed := false
		select {
		case err = <-exited:
		case <-asked: // it has begun
			select {
			case err = <-exited:
			case <-time.After(delay(kills < rounds)):
				killed = cmd.Process.Kill() == nil
				err = <-exited
			}
		}
		var exit *exec.ExitError
		switch {
		case err == nil: // it came to the end
			s, err := index.Open(filepath.Join(dir, "index.db"), crashOptions)
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(t, s); got != want {
				t.Fatalf("after %d kills the index differs: %s", kills, difference(got, want))
			}
			s.Close()
			finished++
			dir = t.TempDir() // from the start
			if fresh++; fresh%2 == 0 {
				tiles = t.TempDir()
			}
		case killed && errors.As(err, &exit) && exit.ExitCode() == -1:
			kills++
		default:
			t.Fatalf("after %d kills the follower failed: %v\n%s", kills, err, stderr.String())
		}
	}
	t.Logf("%d kills, %d complete indexes compared", kills, finished)
}

// delay is how long a follower may live after its first request: not long
// while it is to be killed.
func delay(kill bool) time.Duration {
	if !kill {
		return 10 * time.Minute
	}
	return time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
}
