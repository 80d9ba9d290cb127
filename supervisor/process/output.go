package process

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
)

// Limits of what is kept of the output.
const (
	keepLines   = 200
	keepLineLen = 2048
)

// Output passes a service's output on, unchanged and at once, and keeps the
// last lines. It survives the service's restarts.
type Output struct {
	out, err io.Writer

	mu    sync.Mutex
	lines []string // ring
	first int
	cut   map[io.Writer]*bytes.Buffer // unfinished line of each stream
	pipe  map[*os.File]*reading

	paused bool // another program is going to read on
}

// reading is a pipe from a service, and who reads it.
type reading struct {
	to   io.Writer
	done chan struct{} // closed when nobody reads it any more
}

// NewOutput returns an Output that passes on to these.
func NewOutput(stdout, stderr io.Writer) *Output {
	return &Output{out: stdout, err: stderr, cut: map[io.Writer]*bytes.Buffer{}, pipe: map[*os.File]*reading{}}
}

// Lines returns at most n of the last lines, oldest first.
func (o *Output) Lines(n int) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last(n)
}

func (o *Output) last(n int) []string {
	n = max(0, min(n, len(o.lines)))
	lines := make([]string, 0, n)
	for i := len(o.lines) - n; i < len(o.lines); i++ {
		lines = append(lines, o.lines[(o.first+i)%len(o.lines)])
	}
	return lines
}

// pipes returns the write ends for a process's stdout and stderr. Reading goes
// on until the last holder of a write end is gone, which can be a child that
// outlives the process: nobody waits for that.
func (o *Output) pipes() (stdout, stderr *os.File, err error) {
	rOut, stdout, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	rErr, stderr, err := os.Pipe()
	if err != nil {
		rOut.Close()
		stdout.Close()
		return nil, nil, err
	}
	o.read(rOut, o.out)
	o.read(rErr, o.err)
	return stdout, stderr, nil
}

func (o *Output) read(r *os.File, w io.Writer) {
	rd := &reading{w, make(chan struct{})}
	o.mu.Lock()
	o.pipe[r] = rd
	o.mu.Unlock()
	go func() {
		for o.copy(r, w) {
			o.mu.Lock()
			paused := o.paused
			if paused {
				close(rd.done) // to be read on by another program
			}
			o.mu.Unlock()
			if paused {
				return
			}
		}
		o.mu.Lock()
		delete(o.pipe, r)
		close(rd.done)
		o.mu.Unlock()
		r.Close()
	}()
}

// copy reads until the end, or until it is told to pause, which it reports.
func (o *Output) copy(r *os.File, w io.Writer) (paused bool) {
	buf := make([]byte, 8<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// Whoever reads our own output may be gone; the service isn't to
			// notice, so its pipe is emptied all the same.
			_, _ = w.Write(buf[:n])
			o.keep(w, buf[:n])
		}
		if err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
}

func (o *Output) keep(stream io.Writer, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cut := o.cut[stream]
	if cut == nil {
		cut = new(bytes.Buffer)
		o.cut[stream] = cut
	}
	for len(data) > 0 {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if room := keepLineLen - cut.Len(); room > 0 {
			cut.Write(line[:min(len(line), room)])
		}
		if !whole {
			return
		}
		o.add(cut.String())
		cut.Reset()
		data = rest
	}
}

func (o *Output) add(line string) {
	if len(o.lines) < keepLines {
		o.lines = append(o.lines, line)
		return
	}
	o.lines[o.first] = line
	o.first = (o.first + 1) % keepLines
}
