// Package bindiff says in what two binaries of the same program differ.
//
// Neither binary is trusted: they are read, never run, and sizes are bounded
// by the files' own. The package keeps no files.
package bindiff

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
)

// maxSections bounds what is said of a file that is made to be long.
const maxSections = 500

// A section is a named part of a binary.
type section struct {
	name string
	size uint64
	sum  [32]byte
}

// Compare returns one sentence for each difference, none for equal files. The
// sentences call the first binary ours and the second one theirs.
func Compare(a, b io.ReaderAt, sizeA, sizeB int64) ([]string, error) {
	var out []string
	at, equal, err := firstDifference(io.NewSectionReader(a, 0, sizeA), io.NewSectionReader(b, 0, sizeB))
	if err != nil {
		return nil, fmt.Errorf("comparing binaries: %w", err)
	}
	if equal {
		return nil, nil
	}
	out = append(out, fmt.Sprintf("The first different byte is at %#x; the sizes are %d (ours) and %d (theirs).", at, sizeA, sizeB))
	out = append(out, infoDifferences(a, b)...)
	sa, errA := sections(a)
	sb, errB := sections(b)
	if errA != nil || errB != nil {
		return append(out, fmt.Sprintf("The sections can't be compared: %v.", errors.Join(errA, errB))), nil
	}
	return append(out, sectionDifferences(sa, sb)...), nil
}

func firstDifference(a, b io.Reader) (at int64, equal bool, err error) {
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if bytes.Equal(bufA[:n], bufB[:m]) {
			endA, endB := ended(errA), ended(errB)
			switch {
			case endA && endB:
				return 0, true, nil
			case errA != nil && !endA || errB != nil && !endB:
				return 0, false, errors.Join(errA, errB)
			}
			at += int64(n)
			continue
		}
		for i := range min(n, m) {
			if bufA[i] != bufB[i] {
				return at + int64(i), false, nil
			}
		}
		return at + int64(min(n, m)), false, nil
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// infoDifferences compares what the binaries say of how they were built.
func infoDifferences(a, b io.ReaderAt) []string {
	ia, errA := readInfo(a)
	ib, errB := readInfo(b)
	if errA != nil || errB != nil {
		return []string{"The build information of one of them can't be read."}
	}
	la, lb := infoLines(ia), infoLines(ib)
	var out []string
	for _, l := range la {
		if !slices.Contains(lb, l) {
			out = append(out, fmt.Sprintf("Only our build information has %.300q.", l))
		}
	}
	for _, l := range lb {
		if !slices.Contains(la, l) {
			out = append(out, fmt.Sprintf("Only their build information has %.300q.", l))
		}
	}
	if len(out) > maxSections {
		out = append(out[:maxSections], "More differences are left out.")
	}
	if len(out) == 0 {
		out = append(out, "The build information is the same.")
	}
	return out
}

func readInfo(r io.ReaderAt) (bi *debug.BuildInfo, err error) {
	defer func() {
		if recover() != nil { // the debug packages are not made for hostile files
			err = errors.New("it can't be read")
		}
	}()
	return buildinfo.Read(r)
}

func infoLines(bi *debug.BuildInfo) []string {
	lines := []string{"go " + bi.GoVersion, "path " + bi.Path, "mod " + bi.Main.Path + " " + bi.Main.Version + " " + bi.Main.Sum}
	for _, d := range bi.Deps {
		lines = append(lines, "dep "+d.Path+" "+d.Version+" "+d.Sum)
	}
	for _, s := range bi.Settings {
		lines = append(lines, "build "+s.Key+"="+s.Value)
	}
	return lines
}

func sections(r io.ReaderAt) (list []section, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a file can't be read")
		}
	}()
	add := func(name string, size uint64, open func() io.ReadSeeker) error {
		if len(list) >= maxSections {
			return errors.New("a file has too many sections")
		}
		h := sha256.New()
		if open != nil {
			if _, err := io.Copy(h, open()); err != nil {
				return fmt.Errorf("section %.100q: %w", name, err)
			}
		}
		list = append(list, section{name, size, [32]byte(h.Sum(nil))})
		return nil
	}
	if f, err := elf.NewFile(r); err == nil {
		for _, s := range f.Sections {
			open := func() io.ReadSeeker { return s.Open() }
			if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
				open = nil
			}
			if err := add(s.Name, s.Size, open); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	if f, err := macho.NewFile(r); err == nil {
		for _, s := range f.Sections {
			open := func() io.ReadSeeker { return s.Open() }
			if s.Offset == 0 {
				open = nil
			}
			if err := add(s.Seg+" "+s.Name, s.Size, open); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	if f, err := pe.NewFile(r); err == nil {
		for _, s := range f.Sections {
			if err := add(s.Name, uint64(s.Size), func() io.ReadSeeker { return s.Open() }); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return nil, errors.New("a file is neither ELF, Mach-O nor PE")
}

func sectionDifferences(a, b []section) []string {
	var out []string
	find := func(list []section, name string) (section, bool) {
		i := slices.IndexFunc(list, func(s section) bool { return s.name == name })
		if i < 0 {
			return section{}, false
		}
		return list[i], true
	}
	for _, s := range a {
		t, ok := find(b, s.name)
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("Only ours has a section %.100q (%d bytes).", s.name, s.size))
		case s.size != t.size:
			out = append(out, fmt.Sprintf("Section %.100q differs: %d bytes in ours, %d in theirs.", s.name, s.size, t.size))
		case s.sum != t.sum:
			out = append(out, fmt.Sprintf("Section %.100q differs: %d bytes in both.", s.name, s.size))
		}
	}
	for _, t := range b {
		if _, ok := find(a, t.name); !ok {
			out = append(out, fmt.Sprintf("Only theirs has a section %.100q (%d bytes).", t.name, t.size))
		}
	}
	if len(out) == 0 {
		out = append(out, "All sections are the same: the difference is in headers or between sections.")
	}
	return out
}
