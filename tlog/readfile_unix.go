//go:build unix

package tlog

import (
	"io/fs"

	ct "golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// readInto reads a tile into buf, behind one spare byte. It saves the system
// calls that os.File makes to become pollable, which a plain file never is.
func (d *TileDir) readInto(buf []byte, t ct.Tile) ([]byte, error) {
	name := d.file(t)
	fd, err := retryEINTR(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return buf, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if cap(buf) < 64<<10 {
		buf = make([]byte, 64<<10)
	}
	buf = append(buf[:0], 0)
	for {
		if len(buf) == cap(buf) {
			if len(buf) > maxDataTile {
				return buf, errTile
			}
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := retryEINTR(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return buf, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return buf, nil
		}
		buf = buf[:len(buf)+n]
	}
}

func retryEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
