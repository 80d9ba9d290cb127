// Package state keeps one value in a file that survives crashes.
//
// The file is trusted only when its check sum is right. One that is truncated,
// garbled or missing is replaced by the copy before it; when that is bad too,
// the caller gets an empty value and an error to show, and the bad files are
// kept aside for people to look at.
//
// Files: NAME and NAME.prev, each with a first line "upkeep state 1 SHA256"
// (of what follows, in hex) and then the value as JSON. NAME.bad is the last
// one that could not be read.
package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"example.org/upkeep/internal/durable"
)

const (
	magic   = "upkeep state 1 "
	maxSize = 16 << 20
)

// A Disk writes files. It is an interface so that tests can let it fail.
type Disk interface {
	WriteFile(name string, data []byte, perm fs.FileMode) error
	Rename(old, new string) error
}

// RealDisk is the real one.
type RealDisk struct{}

// WriteFile writes durably.
func (RealDisk) WriteFile(name string, data []byte, perm fs.FileMode) error {
	return durable.WriteFile(name, data, perm)
}

// Rename renames; the folder is synced by the write that follows.
func (RealDisk) Rename(old, new string) error {
	if err := durable.Try("rename", new); err != nil {
		return err
	}
	return os.Rename(old, new)
}

// File is a value on disk.
type File[T any] struct {
	Name string
	Disk Disk
}

// Load reads the value. found is false when there is none, or none that can be
// read: then err says why.
func (f *File[T]) Load() (v T, found bool, err error) {
	if err := durable.Clean(f.Name); err != nil {
		return v, false, err // can't even list the folder
	}
	v, errNew := read[T](f.Name)
	if errNew == nil {
		return v, true, nil
	}
	v, errPrev := read[T](f.Name + ".prev")
	newMissing, prevMissing := errors.Is(errNew, fs.ErrNotExist), errors.Is(errPrev, fs.ErrNotExist)
	if !newMissing {
		_ = os.Rename(f.Name, f.Name+".bad") // for people; the value can't be read either way
	}
	switch {
	case newMissing && prevMissing:
		return v, false, nil
	case errPrev == nil && newMissing:
		// A crash between the two renames of Save: the copy is the newest.
		return v, true, nil
	case errPrev == nil:
		return v, true, &DamagedError{Err: errNew, Used: f.Name + ".prev"}
	case prevMissing:
		return v, false, &DamagedError{Err: errNew}
	case newMissing:
		return v, false, &DamagedError{Err: errPrev}
	}
	return v, false, &DamagedError{Err: errors.Join(errNew, errPrev)}
}

// Peek reads the value as Load does, and changes nothing: for whoever only
// looks, perhaps beside the one who writes.
func (f *File[T]) Peek() (v T, err error) {
	v, err = read[T](f.Name)
	if err == nil {
		return v, nil
	}
	prev, errPrev := read[T](f.Name + ".prev")
	switch {
	case errPrev == nil:
		return prev, nil
	case errors.Is(err, fs.ErrNotExist) && errors.Is(errPrev, fs.ErrNotExist):
		return v, nil
	}
	return v, &DamagedError{Err: errors.Join(err, errPrev)}
}

// Save writes the value durably. The value saved before stays as the copy.
func (f *File[T]) Save(v T) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	// The copy first. Between this and the write there is no file of the name,
	// which Load knows.
	if err := f.Disk.Rename(f.Name, f.Name+".prev"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("saving the state: %w", err)
	}
	if err := f.Disk.WriteFile(f.Name, data, 0o600); err != nil {
		// Put back, so that a full disk doesn't wear the copies down.
		_ = f.Disk.Rename(f.Name+".prev", f.Name)
		return fmt.Errorf("saving the state: %w", err)
	}
	return nil
}

// A DamagedError says that a state file could not be read.
type DamagedError struct {
	Err  error
	Used string // the copy that was used instead, "" when there was none
}

func (e *DamagedError) Error() string {
	s := "the state file is damaged: " + e.Err.Error()
	if e.Used != "" {
		return s + "; going on with " + e.Used
	}
	return s + "; going on without it: what was skipped, held or pinned is forgotten"
}

func (e *DamagedError) Unwrap() error { return e.Err }

func encode(v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return nil, fmt.Errorf("encoding the state: %w", err)
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

func read[T any](name string) (v T, err error) {
	fi, err := os.Stat(name)
	if err != nil {
		return v, err
	}
	if !fi.Mode().IsRegular() {
		return v, fmt.Errorf("%s is no regular file", name) // opening a pipe would wait for ever
	}
	if fi.Size() > maxSize {
		return v, fmt.Errorf("%s is %d bytes long, at most %d are believable", name, fi.Size(), maxSize)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return v, err
	}
	v, err = decode[T](data)
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

func decode[T any](data []byte) (v T, err error) {
	head, body, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || !strings.HasPrefix(string(head), magic) {
		return v, errors.New("is not a state file, or is empty or cut off")
	}
	sum := sha256.Sum256(body)
	if string(head[len(magic):]) != hex.EncodeToString(sum[:]) {
		return v, errors.New("its check sum is wrong")
	}
	if err := json.Unmarshal(body, &v); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}
