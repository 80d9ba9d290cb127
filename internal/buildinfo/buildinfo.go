// Package buildinfo reads the build information that the Go linker leaves in
// programs, as debug/buildinfo does, without that package's readers of every
// object format: they would be a twentieth of the supervisor's binary.
//
// It trusts nothing in the file. It takes the one place that holds complete
// information; a file with two such places is refused, since another reader
// may take the other one.
//
// Files: none of its own.
package buildinfo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

const (
	align     = 16
	headerLen = 32
	inline    = 2       // flag: the texts follow the header, as they do since Go 1.18
	maxText   = 1 << 20 // of the module information; it has one line for each module
	chunk     = 1 << 20
)

var (
	// The linker's mark. It is put together here, so that a program with this
	// package has it at one place only.
	magic = append([]byte("\xff Go "), "buildinf:"...)

	// ErrNone says that the file holds no build information of a Go program.
	ErrNone = errors.New("no build information of a Go program (built by Go 1.18 or newer) in it")
)

// ReadFile reads the build information in the named file.
func ReadFile(name string) (*debug.BuildInfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	bi, err := Read(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return bi, nil
}

// Read reads the build information in a file of the given size.
func Read(r io.ReaderAt, size int64) (*debug.BuildInfo, error) {
	var found *debug.BuildInfo
	for _, part := range parts(r, size) {
		for at := part.from; at < part.to; {
			n := min(chunk+int64(len(magic))-1, part.to-at) // no mark is in two reads
			buf := make([]byte, n)
			if _, err := r.ReadAt(buf, at); err != nil {
				return nil, fmt.Errorf("reading build information: %w", err)
			}
			for i := 0; ; {
				j := bytes.Index(buf[i:], magic)
				if j < 0 {
					break
				}
				pos := at + int64(i+j)
				i += j + 1
				if (pos-part.from)%align != 0 {
					continue
				}
				bi, ok := parse(r, pos, size)
				if ok && found != nil {
					return nil, errors.New("build information at two places in it, which no linker writes")
				}
				if ok {
					found = bi
				}
			}
			if at += chunk; n < chunk {
				break
			}
		}
	}
	if found == nil {
		return nil, ErrNone
	}
	return found, nil
}

// parse reads what follows a mark.
func parse(r io.ReaderAt, at, size int64) (*debug.BuildInfo, bool) {
	head := make([]byte, headerLen+binary.MaxVarintLen64)
	n, _ := r.ReadAt(head, at)
	if n < headerLen || head[15]&inline == 0 {
		return nil, false
	}
	version, at, ok := text(r, at+headerLen, size)
	if !ok || !bytes.HasPrefix(version, []byte("go")) && !bytes.HasPrefix(version, []byte("devel ")) {
		return nil, false
	}
	mod, _, ok := text(r, at, size)
	if !ok {
		return nil, false
	}
	// 16 bytes before and after, so that the linked text can be found in memory.
	if len(mod) >= 33 && mod[len(mod)-17] == '\n' {
		mod = mod[16 : len(mod)-16]
	} else {
		mod = nil
	}
	bi, err := debug.ParseBuildInfo(string(mod))
	if err != nil {
		return nil, false
	}
	bi.GoVersion = string(version)
	return bi, true
}

// text reads a length and a text of that length.
func text(r io.ReaderAt, at, size int64) (b []byte, next int64, ok bool) {
	var lenBuf [binary.MaxVarintLen64]byte
	n, _ := r.ReadAt(lenBuf[:], at)
	length, k := binary.Uvarint(lenBuf[:n])
	if k <= 0 || length > maxText || int64(length) > size-at-int64(k) {
		return nil, 0, false
	}
	b = make([]byte, length)
	if _, err := r.ReadAt(b, at+int64(k)); err != nil && !(errors.Is(err, io.EOF) && length == 0) {
		return nil, 0, false
	}
	return b, at + int64(k) + int64(length), true
}

type part struct{ from, to int64 }

// parts returns where to look: in an ELF file the writable segments, which is
// where the linker puts it, and otherwise everywhere.
func parts(r io.ReaderAt, size int64) []part {
	all := []part{{0, size}}
	h := make([]byte, 64)
	if n, _ := r.ReadAt(h, 0); n < len(h) || !bytes.HasPrefix(h, []byte("\x7fELF")) {
		return all
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	var off, entry, count int64
	wide := h[4] == 2
	if wide {
		off, entry, count = int64(order.Uint64(h[32:])), int64(order.Uint16(h[54:])), int64(order.Uint16(h[56:]))
	} else {
		off, entry, count = int64(order.Uint32(h[28:])), int64(order.Uint16(h[42:])), int64(order.Uint16(h[44:]))
	}
	if off < 0 || count > 256 || wide && entry < 56 || entry < 32 {
		return all
	}
	table := make([]byte, entry*count)
	if n, _ := r.ReadAt(table, off); n < len(table) {
		return all
	}
	var l []part
	for ; len(table) > 0; table = table[entry:] {
		var kind, flags uint32
		var p part
		if kind = order.Uint32(table); wide {
			flags, p = order.Uint32(table[4:]), part{int64(order.Uint64(table[8:])), int64(order.Uint64(table[32:]))}
		} else {
			flags, p = order.Uint32(table[24:]), part{int64(order.Uint32(table[4:])), int64(order.Uint32(table[16:]))}
		}
		const load, writable = 1, 2
		if kind != load || flags&writable == 0 {
			continue
		}
		if p.from < 0 || p.to < 0 || p.from > size || p.to > size-p.from {
			return all
		}
		p.to += p.from
		for _, other := range l {
			if p.from < other.to && other.from < p.to {
				return all
			}
		}
		l = append(l, p)
	}
	if l == nil {
		return all
	}
	return l
}
