//go:build linux || darwin || freebsd

package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// On these systems a mapped file shows at once what is written to it, and a
// lock can be changed while it is held.

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// newReaders is for the writer.
func newReaders(file string) (*readers, error) {
	f, err := os.OpenFile(file+".readers", os.O_RDWR|os.O_CREATE, 0o644)
	return &readers{file: f}, err
}

func (r *readers) there() (bool, error) {
	err := flock(r.file, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err == nil {
		err = flock(r.file, unix.LOCK_UN)
	}
	return false, err
}

// joinReaders is for a process that only reads. Where the lock file can't be
// made, nobody writes either.
func joinReaders(file string) (*readers, error) {
	f, err := os.OpenFile(file+".readers", os.O_RDONLY|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		f, err = os.Open(file + ".readers")
		if err != nil {
			return &readers{}, nil
		}
	}
	if err == nil {
		err = flock(f, unix.LOCK_SH)
	}
	return &readers{file: f}, err
}

// shareFile lets others have the file that bbolt has locked for itself.
func shareFile(f *os.File, readOnly bool) error {
	if readOnly {
		return flock(f, unix.LOCK_UN) // a writer may start
	}
	return flock(f, unix.LOCK_SH)
}

// mergeWait is how long a reader waits for a merge of a writer that it can't
// see; else it waits as long as there is a writer.
const mergeWait = time.Minute

func (s *Store) openToRead() (err error) {
	if s.readers, err = joinReaders(s.file); err != nil {
		return fmt.Errorf("telling the writer that it is read: %w", err)
	}
	if err := s.openPages(); err != nil {
		return err
	}
	if err := s.init(); err != nil {
		return err
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		writer, known := writerThere(s.file)
		err := s.newView()
		if !errors.Is(err, errMerging) || known && !writer || !known && time.Since(start) > mergeWait {
			return err
		}
	}
}

// writerThere reports whether a process has the file open for writing.
func writerThere(file string) (there, known bool) {
	f, err := os.Open(file + ".lock")
	if err != nil {
		return false, errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	return errors.Is(err, unix.EWOULDBLOCK), true
}
