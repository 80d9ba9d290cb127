//go:build linux || darwin || freebsd

package index_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.org/upkeep/tlog/index"
)

func init() { readJob = readChild }

// readChild dumps an index that another process writes, again and again, and
// writes each dump with its length to standard output, until standard input ends.
func readChild(j crashJob) error {
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	for {
		s, err := index.Open(filepath.Join(j.Dir, "index.db"), index.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := s.Dump(&b); err != nil {
			return err
		}
		if err := s.Verify(); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		fmt.Printf("%d\n%s", b.Len(), b.Bytes())
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// Processes read an index while this one writes it: each dump is that of one
// size of the log, to the byte.
func TestReadersElsewhere(t *testing.T) {
	srv, url := serve(t, small, 2000)
	c := client(t, srv, url)
	dir := t.TempDir()
	// Merges in many transactions, each of them soon.
	s := open(t, filepath.Join(dir, "index.db"), index.Options{MergeBytes: 100 << 10, MergeModules: 200, JournalPeriod: time.Nanosecond}.CompactAt(4<<10))
	follow(t, s, c)
	env, err := json.Marshal(crashJob{Dir: dir, Read: true})
	if err != nil {
		t.Fatal(err)
	}
	type reader struct {
		cmd   *exec.Cmd
		stdin io.Closer
		done  chan error
	}
	dumps := make(chan string, 1000)
	var readers []reader
	for range 2 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+string(env))
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		r := reader{cmd, stdin, make(chan error, 1)}
		readers = append(readers, r)
		go func() {
			stdout := bufio.NewReaderSize(stdout, 1<<20)
			for {
				var n int
				if _, err := fmt.Fscanf(stdout, "%d\n", &n); errors.Is(err, io.EOF) {
					r.done <- nil
					return
				} else if err != nil {
					r.done <- err
					return
				}
				b := make([]byte, n)
				if _, err := io.ReadFull(stdout, b); err != nil {
					r.done <- err
					return
				}
				dumps <- string(b)
			}
		}()
	}
	next := func() string {
		select {
		case d := <-dumps:
			return d
		case err := <-readers[0].done:
			t.Fatal("a reader has ended: ", err)
		case err := <-readers[1].done:
			t.Fatal("a reader has ended: ", err)
		}
		return ""
	}
	bySize := map[int64]string{}
	take := func(d string) (size int64) {
		if _, err := fmt.Sscanf(d, "upkeep index dump 1\nsize %d\n", &size); err != nil {
			t.Fatalf("a dump starts with %.100q", d)
		}
		if have := bySize[size]; have != "" && have != d {
			t.Fatalf("two dumps at size %d differ: %s", size, difference(d, have))
		}
		bySize[size] = d
		return size
	}
	take(next())
	for size := int64(4000); size <= 12_000; size += 2000 {
		if err := srv.SetSize(size); err != nil {
			t.Fatal(err)
		}
		follow(t, s, c)
		for len(dumps) > 0 {
			take(<-dumps)
		}
		for size%4000 == 0 && take(next()) < size { // until one is of this state
		}
	}
	for _, r := range readers {
		r.stdin.Close()
	}
	for _, r := range readers {
		for ended := false; !ended; {
			select {
			case d := <-dumps:
				take(d)
			case err := <-r.done:
				if err := errors.Join(err, r.cmd.Wait()); err != nil {
					t.Fatal(err)
				}
				ended = true
			}
		}
	}
	for len(dumps) > 0 {
		take(<-dumps)
	}
	for _, size := range []int64{2000, 4000, 8000, 12_000} {
		if bySize[size] == "" {
			t.Errorf("no dump at size %d was taken", size)
		}
	}
	for size, got := range bySize {
		srv, url := serve(t, small, size)
		one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{})
		follow(t, one, client(t, srv, url))
		if want := dump(t, one); got != want {
			t.Errorf("the dump at size %d differs: %s", size, difference(got, want))
		}
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
	t.Logf("dumps of %d states", len(bySize))
}
