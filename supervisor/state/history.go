package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"example.org/upkeep/internal/durable"
)

// History is an append-only file with one JSON object a line. A crash can cut
// the last line off; such a line is skipped, never repaired.
type History[T any] struct{ Name string }

const maxLine = 64 << 10

// Append writes an entry durably.
func (h *History[T]) Append(v T) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	if len(line) > maxLine {
		return fmt.Errorf("writing the history: an entry of %d bytes is too long", len(line))
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	f, err := os.OpenFile(h.Name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	defer f.Close()
	// One write: a line of its own even behind one that was cut off.
	data := append(line, '\n')
	if cut, err := unfinished(f); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	} else if cut {
		data = append([]byte{'\n'}, data...)
	}
	if err := durable.Try("append", h.Name); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}

// check refuses what could make who opens it wait for ever.
func (h *History[T]) check() error {
	if fi, err := os.Stat(h.Name); err == nil && !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", h.Name)
	}
	return nil
}

func unfinished(f *os.File) (bool, error) {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// tail bounds what is read of a history that has grown for years.
const tail = 4 << 20

// Last returns at most n of the last entries, newest first.
func (h *History[T]) Last(n int) ([]T, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	f, err := os.Open(h.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	if _, err := f.Seek(max(0, fi.Size()-tail), io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	var all []T
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, maxLine+1)
	for sc.Scan() {
		line := bytes.TrimSpace(sc.Bytes())
		var v T
		if len(line) == 0 || json.Unmarshal(line, &v) != nil {
			continue
		}
		all = append(all, v)
		if len(all) > 2*n {
			all = append(all[:0], all[len(all)-n:]...)
		}
	}
	if err := sc.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	last := make([]T, 0, min(n, len(all)))
	for i := len(all) - 1; i >= 0 && len(last) < n; i-- {
		last = append(last, all[i])
	}
	return last, nil
}
