package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

const (
	outputKey  = "output"
	stdoutPipe = "stdout/"
	stderrPipe = "stderr/"
)

// handedOutput is what is kept of the output, for the next program.
type handedOutput struct {
	Lines  []string `json:"lines"`
	Stdout string   `json:"stdout"` // unfinished lines
	Stderr string   `json:"stderr"`
}

// pauseTime bounds waiting for whoever reads our own output to take what was
// read from the service.
const pauseTime = time.Second

// Handoff stops reading the service's output and puts the pipes into the
// bundle. What the service writes in the meantime waits in them. [Output.Resume]
// takes that back.
func (o *Output) Handoff(b *handoff.Bundle) error {
	o.mu.Lock()
	o.paused = true
	pipes := maps.Clone(o.pipe)
	o.mu.Unlock()
	timeout := time.After(pauseTime)
	for r, rd := range pipes {
		if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("handing over the service's output: %w", err)
		}
		select {
		case <-rd.done:
		case <-timeout:
			return errors.New("handing over the service's output: what it wrote can't be passed on, since nobody reads upkeep's own output")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	i := 0
	for r, rd := range o.pipe {
		name := stdoutPipe
		if rd.to == o.err {
			name = stderrPipe
		}
		if err := b.Add(fmt.Sprint(name, i), r); err != nil {
			return err
		}
		i++
	}
	return b.Put(outputKey, handedOutput{o.last(keepLines), o.unfinished(o.out), o.unfinished(o.err)})
}

// Show puts only what was kept into the bundle, for a program on trial.
func (o *Output) Show(b *handoff.Bundle) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return b.Put(outputKey, handedOutput{Lines: o.last(keepLines)})
}

func (o *Output) unfinished(w io.Writer) string {
	if cut := o.cut[w]; cut != nil {
		return cut.String()
	}
	return ""
}

// Resume reads on, when the handover came to nothing.
func (o *Output) Resume() {
	o.mu.Lock()
	o.paused = false
	pipes := maps.Clone(o.pipe)
	o.mu.Unlock()
	for r, rd := range pipes {
		_ = r.SetReadDeadline(time.Time{})
		select {
		case <-rd.done:
			o.read(r, rd.to)
		default: // still read, and goes on by itself
		}
	}
}

// Attach reads on where the program before stopped.
func (o *Output) Attach(b *handoff.Bundle) {
	var h handedOutput
	if b.Get(outputKey, &h) {
		o.mu.Lock()
		for _, l := range h.Lines {
			o.add(l)
		}
		o.cut[o.out], o.cut[o.err] = bytes.NewBufferString(h.Stdout), bytes.NewBufferString(h.Stderr)
		o.mu.Unlock()
	}
	for _, name := range b.Names() {
		switch {
		case strings.HasPrefix(name, stdoutPipe):
			o.read(b.Take(name), o.out)
		case strings.HasPrefix(name, stderrPipe):
			o.read(b.Take(name), o.err)
		}
	}
}
