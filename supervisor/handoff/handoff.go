// Package handoff passes descriptors and facts from a program to the one that
// takes its place in the same process, or to a child that is to try that.
//
// What is passed is trusted: it comes from the program that runs in this very
// process. The two programs are different versions, so whatever one side
// doesn't know is left out: names that nobody takes are closed, and values that
// nobody asks for are dropped.
//
// Files: the list of what is passed is in a file without a name, whose
// descriptor the environment variable UPKEEP_HANDOFF tells.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

const (
	envName = "UPKEEP_HANDOFF"
	maxList = 16 << 20
)

// A Bundle is what is passed.
type Bundle struct {
	mu     sync.Mutex
	files  map[string]*os.File
	values map[string]json.RawMessage
}

// list is a bundle as it is written down.
type list struct {
	Files  map[string]int             `json:"files"`
	Values map[string]json.RawMessage `json:"values"`
}

// New returns an empty bundle, to be closed.
func New() *Bundle {
	return &Bundle{files: map[string]*os.File{}, values: map[string]json.RawMessage{}}
}

// Add puts a duplicate of a descriptor in under a name. The caller's stays as
// it is.
func (b *Bundle) Add(name string, c syscall.Conn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.files[name] != nil {
		return fmt.Errorf("handing over: there is a descriptor called %q already", name)
	}
	f, err := duplicate(c, name)
	if err != nil {
		return fmt.Errorf("handing over %s: %w", name, err)
	}
	b.files[name] = f
	return nil
}

// Put puts a value in, as JSON.
func (b *Bundle) Put(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("handing over %s: %w", key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[key] = data
	return nil
}

// Take returns the descriptor of a name, nil when there is none. It belongs to
// the caller. A nil bundle is an empty one.
func (b *Bundle) Take(name string) *os.File {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.files[name]
	delete(b.files, name)
	return f
}

// Names returns the names of the descriptors that are left, sorted.
func (b *Bundle) Names() []string {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for n := range b.files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Get reads a value and reports whether there was one that could be read.
func (b *Bundle) Get(key string, v any) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return json.Unmarshal(b.values[key], v) == nil
}

// Close closes the descriptors that nobody took.
func (b *Bundle) Close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, f := range b.files {
		f.Close()
		delete(b.files, name)
	}
}

// write writes the list to a file without a name, in a folder that can be written.
func (b *Bundle) write(dir string, numbers map[string]int) (*os.File, error) {
	data, err := json.Marshal(list{numbers, b.values})
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "handoff.tmp-*")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name()) // it lives on as long as it is open
	if _, err = f.Write(data); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Receive returns what was handed to this program, nil when it was started in
// the ordinary way. It is to be called once, before anything else is opened.
func Receive() (*Bundle, error) {
	text := os.Getenv(envName)
	if text == "" {
		return nil, nil
	}
	_ = os.Unsetenv(envName) // not for children
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("taking over: %s=%q is no descriptor", envName, text)
	}
	f := os.NewFile(uintptr(fd), "handoff")
	if f == nil {
		return nil, fmt.Errorf("taking over: descriptor %d is not open", fd)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err != nil {
		return nil, fmt.Errorf("taking over: %w", err)
	}
	if len(data) > maxList {
		return nil, errors.New("taking over: the list is too long")
	}
	var l list
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("taking over: %w", err)
	}
	b := New()
	for name, fd := range l.Files {
		keepFromChildren(fd)
		if f := os.NewFile(uintptr(fd), name); f != nil {
			b.files[name] = f
		}
	}
	for k, v := range l.Values {
		b.values[k] = v
	}
	return b, nil
}
