package index_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"example.org/upkeep/tlog/index"
	"example.org/upkeep/tlog/logtest"
)

// On a full disk the index answers from what it has and goes on when there is
// room again.
func TestFullDisk(t *testing.T) {
	srv, url := serve(t, small, 20_000)
	c := client(t, srv, url)
	want := func() string {
		s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
		follow(t, s, c)
		return dump(t, s)
	}()
	dir, resize := logtest.SmallDisk(t, 128<<10)
	file := filepath.Join(dir, "index.db")
	opts := index.Options{MergeBytes: 300 << 10, JournalPeriod: time.Nanosecond}
	s := open(t, file, opts)
	head, _ := c.Head()
	for i := range 3 {
		if err := s.Follow(t.Context(), c, head, 0, nil); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("following onto a full disk: %v; want an error that says so", err)
		}
		if _, _, err := s.Module("github.com/x/y"); err != nil {
			t.Fatalf("the index does not answer on a full disk: %v", err)
		}
		if i == 1 { // stopping and starting changes nothing
			s.Close()
			s = open(t, file, opts)
		}
	}
	resize(64 << 20)
	if err := s.Follow(t.Context(), c, head, 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, s); got != want {
		t.Errorf("after the disk was full the index differs: %s", difference(got, want))
	}
}

// A new index that finds no room says so, and what it left is no obstacle.
func TestNewOnFullDisk(t *testing.T) {
	dir, resize := logtest.SmallDisk(t, 128<<10)
	filler := filepath.Join(dir, "filler")
	for _, free := range []int64{0, 4, 8, 12, 16, 20, 24, 32} {
		resize(128 << 10)
		if err := os.WriteFile(filler, make([]byte, 128<<10-free<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "index.db")
		s, err := index.Open(file, index.Options{})
		if err == nil {
			t.Logf("%d kB were enough", free)
			s.Close()
		} else if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, index.ErrCorrupt) {
			t.Errorf("with %d kB: %v", free, err)
		}
		resize(64 << 20)
		if s, err = index.Open(file, index.Options{}); err != nil {
			t.Fatalf("when there is room again, after %d kB: %v", free, err)
		}
		s.Close()
		for _, name := range []string{file, filler, file + ".lock", file + ".readers"} {
			os.Remove(name)
		}
	}
}

func TestMalformedAndDuplicate(t *testing.T) {
	content := small
	content.Malformed, content.Duplicate = 100, 777
	srv, url := serve(t, content, 20_000)
	c := client(t, srv, url)
	reg := prometheus.NewRegistry()
	var events []index.Event
	s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{Metrics: reg, OnEvent: func(e index.Event) { events = append(events, e) }})
	follow(t, s, c)
	if got := dump(t, s); !strings.Contains(got, "\nskipped 200\n") || !strings.Contains(got, "\nsize 20000\n") {
		t.Errorf("dump starts with %.150q; want 200 skipped records of 20000", got)
	}
	if len(events) == 0 {
		t.Fatal("no event for a version with two different records")
	}
	stored, err := s.Events()
	if err != nil || len(stored) != len(events) {
		t.Errorf("%d events are stored, %v; want %d", len(stored), err, len(events))
	}
	for _, e := range events {
		a, b := content.AppendVersion(nil, e.Records[0]), content.AppendVersion(nil, e.Records[1])
		if e.Kind != "duplicate" || len(e.Records) != 2 || string(a)[:len(e.Module)] != e.Module {
			t.Fatalf("event %+v; the records are of %s and %s", e, a, b)
		}
	}
	if n, err := testutil.GatherAndCount(reg, "upkeep_index_security_events_total"); err != nil || n != 1 {
		t.Errorf("metric of security events: %d, %v", n, err)
	}
	// The record that came first counts.
	e := events[len(events)-1]
	if m, ok, err := s.Module(e.Module); err != nil || !ok {
		t.Error(err)
	} else {
		for _, v := range append(m.Majors, m.Minors...) {
			if v.Version == e.Version && v.Record != min(e.Records[0], e.Records[1]) {
				t.Errorf("%s %s is of record %d; want the first of %v", e.Module, v.Version, v.Record, e.Records)
			}
		}
	}
	// Following again, or opening again, tells nothing twice.
	n := len(events)
	follow(t, s, c)
	if len(events) != n {
		t.Errorf("%d events were told again", len(events)-n)
	}
}

func TestOneWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "index.db")
	if _, err := index.Open(file, index.Options{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file, read-only: %v", err)
	}
	s := open(t, file, index.Options{})
	if _, err := index.Open(file, index.Options{}); !errors.Is(err, index.ErrLocked) {
		t.Errorf("opened twice: %v; want ErrLocked", err)
	}
	s.Close()
	if _, _, err := s.Module("x"); err == nil {
		t.Error("a closed index answers")
	}
	s = open(t, file, index.Options{ReadOnly: true})
	if head, err := s.Head(); err != nil || head.Size != 0 {
		t.Errorf("empty index: %+v, %v", head, err)
	}
}

// Queries run while the index is written; none waits, and all see whole states.
func TestReadersAndWriter(t *testing.T) {
	srv, url := serve(t, small, 1000)
	c := client(t, srv, url)
	s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{MergeBytes: 100 << 10, JournalPeriod: time.Nanosecond})
	follow(t, s, c)
	var paths []string
	for i := range int64(1000) {
		path, _, _ := strings.Cut(string(small.AppendVersion(nil, i)), " ")
		paths = append(paths, path)
	}
	stop := make(chan struct{})
	done := make(chan error, 2)
	for range cap(done) {
		go func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				path := paths[n%len(paths)]
				if _, ok, err := s.Module(path); err != nil || !ok {
					done <- fmt.Errorf("%s: %v, %w", path, ok, err)
					return
				}
				host, _, _ := strings.Cut(path, "/")
				if ok, err := s.HostSuffix(host); err != nil || !ok {
					done <- fmt.Errorf("%s: %v, %w", host, ok, err)
					return
				}
			}
		}()
	}
	for size := int64(2000); size <= 5000; size += 1000 {
		if err := srv.SetSize(size); err != nil {
			t.Fatal(err)
		}
		follow(t, s, c)
	}
	close(stop)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// While a log is caught up with, the index says how old its answers are, and
// they are those of the head that it states.
func TestHalfWay(t *testing.T) {
	srv, url := serve(t, small, 20_000)
	c := client(t, srv, url)
	head, err := c.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{MergeBytes: 32 << 10, MergeModules: 50, JournalPeriod: time.Nanosecond})
	dumps := map[int64]string{}
	dated := 0
	err = s.Follow(t.Context(), c, head, 0, func(done int64) {
		h, err := s.Head()
		if err != nil {
			t.Error(err)
		}
		if h.Size == 0 {
			return
		}
		if !h.Accepted.IsZero() {
			dated++
		}
		if truth := time.Unix(small.Time(h.Size), 0); h.Accepted.After(truth) {
			t.Errorf("after %d records the state of %d is said to be of %v; that was reached at %v", done, h.Size, h.Accepted, truth)
		}
		if dumps[h.Size] == "" {
			dumps[h.Size] = dump(t, s)
		}
	})
	if err != nil || len(dumps) < 3 || dated == 0 {
		t.Fatalf("%d states on the way were seen, %d times with a date, %v", len(dumps), dated, err)
	}
	if h, err := s.Head(); err != nil || h.Size != head.Size || !h.Accepted.Equal(head.Accepted) {
		t.Errorf("at the end the head is %+v, %v", h, err)
	}
	n := 0
	for size, got := range dumps {
		if n++; n > 3 {
			break
		}
		srv, url := serve(t, small, size)
		one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
		follow(t, one, client(t, srv, url))
		if want := dump(t, one); got != want {
			t.Errorf("on the way, at size %d, the dump differs: %s", size, difference(got, want))
		}
	}
}

// A log without news is still heard of.
func TestAgree(t *testing.T) {
	srv, url := serve(t, small, 1000)
	file := filepath.Join(t.TempDir(), "index.db")
	s := open(t, file, index.Options{})
	follow(t, s, client(t, srv, url))
	start, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	changed := s.Changed()
	var last time.Time
	for _, after := range []time.Duration{time.Second, 20 * time.Second, time.Hour} {
		last = start.Accepted.Add(after)
		if err := s.Agree(last); err != nil {
			t.Fatal(err)
		}
		head, err := s.Head()
		if got := head.Accepted.Sub(start.Accepted); err != nil || after > time.Minute && got != after || got > after || after-got > 15*time.Second {
			t.Errorf("agreed after %v: the head is of %v later, %v", after, got, err)
		}
		if head.Size != 1000 || head.Hash != start.Hash {
			t.Errorf("the head moved to %d", head.Size)
		}
	}
	select {
	case <-changed:
		t.Error("answers are said to have changed")
	default:
	}
	s.Close()
	s = open(t, file, index.Options{ReadOnly: true})
	if head, err := s.Head(); err != nil || !head.Accepted.Equal(last) {
		t.Errorf("opened again: %v, %v; want %v", head.Accepted, err, last)
	}
}

// A time noted by a clock that was ahead is given up when the clock is right again.
func TestAgreeClockSetBack(t *testing.T) {
	srv, url := serve(t, small, 1000)
	file := filepath.Join(t.TempDir(), "index.db")
	s := open(t, file, index.Options{})
	c := client(t, srv, url)
	follow(t, s, c)
	start, err := s.Head()
	if err != nil {
		t.Fatal(err)
	}
	accepted := func(want time.Time) {
		t.Helper()
		if head, err := s.Head(); err != nil || !head.Accepted.Equal(want) {
			t.Fatalf("the head is of %v, %v; want %v", head.Accepted, err, want)
		}
	}
	ahead, right := start.Accepted.Add(1000*time.Hour), start.Accepted.Add(time.Hour)
	for _, at := range []time.Time{ahead, right, ahead} {
		if err := s.Agree(at); err != nil {
			t.Fatal(err)
		}
		accepted(at)
	}
	s.Close()
	s = open(t, file, index.Options{})
	accepted(ahead)
	if err := s.Agree(right); err != nil {
		t.Fatal(err)
	}
	accepted(right)
	s.Close()
	s = open(t, file, index.Options{})
	accepted(right)
	if err := srv.SetSize(1300); err != nil {
		t.Fatal(err)
	}
	follow(t, s, c)
	if head, err := s.Head(); err != nil || head.Size != 1300 || !head.Accepted.Before(right) {
		t.Errorf("with more records: %+v, %v", head, err)
	}
}
