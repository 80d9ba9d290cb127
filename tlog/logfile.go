package tlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// The file "records" is a row of frames: length and CRC-32C of the payload
// (4 bytes each, little-endian), then the payload: length of the key
// (uvarint), key, text.

const (
	maxKey  = 4 << 10
	maxText = 64 << 10

	frameHeader = 8
	maxFrame    = binary.MaxVarintLen64 + maxKey + maxText
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendFrame(b []byte, e Entry) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	b = append(b, e.Text...)
	payload := b[start+frameHeader:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b
}

// errTorn says that a frame is incomplete or damaged.
var errTorn = errors.New("is incomplete or damaged")

// readFrame reads the next frame; io.EOF means that there is none.
func readFrame(r io.Reader) (e Entry, size int64, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errTorn
		}
		return e, 0, err
	}
	n := binary.LittleEndian.Uint32(header[:])
	if n > maxFrame {
		return e, 0, errTorn
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errTorn
		}
		return e, 0, err
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
		return e, 0, errTorn
	}
	keyLen, k := binary.Uvarint(payload)
	if k <= 0 || keyLen > uint64(len(payload)-k) || k > 1 && keyLen>>(7*(k-1)) == 0 {
		return e, 0, errTorn
	}
	rest := payload[k:]
	return Entry{Key: string(rest[:keyLen]), Text: rest[keyLen:]}, frameHeader + int64(n), nil
}

// A recordFile is the file "records" and where its records are.
type recordFile struct {
	f     *os.File
	marks []int64 // offset of every markEvery-th record
	count int64
	size  int64 // end of the last good record
}

// markEvery bounds how many frames are skipped to find a record by its number,
// and the memory of a large log: half a megabyte for a million records.
const markEvery = 16

// openRecords opens the file and calls each for every good record in it, with
// its offset. What follows the last good record may be what a crash left of an
// append that was never confirmed; once that is sure, cut removes it.
func openRecords(name string, each func(Entry, int64) error) (*recordFile, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	rf, err := scanRecords(f, each)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return rf, nil
}

// scanRecords reads the good records of a file.
func scanRecords(f *os.File, each func(Entry, int64) error) (*recordFile, error) {
	rf := &recordFile{f: f}
	r := bufio.NewReaderSize(f, 256<<10)
	for {
		e, n, err := readFrame(r)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			return rf, nil
		}
		if err == nil {
			offset := rf.size
			rf.added(n)
			err = each(e, offset)
		}
		if err != nil {
			return nil, err
		}
	}
}

// added takes note of a record of n bytes behind the last one.
func (rf *recordFile) added(n int64) {
	if rf.count%markEvery == 0 {
		rf.marks = append(rf.marks, rf.size)
	}
	rf.count++
	rf.size += n
}

// cut removes what follows the last good record.
func (rf *recordFile) cut() error { return rf.f.Truncate(rf.size) }

// append writes frames behind the last good record and syncs.
func (rf *recordFile) append(frames []byte, starts []int64) error {
	if err := rf.cut(); err != nil { // what a failed write left
		return err
	}
	if _, err := rf.f.WriteAt(frames, rf.size); err != nil {
		return errors.Join(err, rf.cut())
	}
	if err := rf.f.Sync(); err != nil {
		return err
	}
	for i, s := range starts {
		end := int64(len(frames))
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		rf.added(end - s)
	}
	return nil
}

var framePool = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// read returns the record at an offset, or one that follows it by skip records.
func (rf *recordFile) read(offset, skip int64) (Entry, error) {
	r := framePool.Get().(*bufio.Reader)
	defer framePool.Put(r)
	r.Reset(io.NewSectionReader(rf.f, offset, (skip+1)*(frameHeader+maxFrame)))
	defer r.Reset(nil)
	e, err := readAfter(r, skip)
	if err != nil {
		return e, fmt.Errorf("record %d after offset %d of %s: %w", skip, offset, rf.f.Name(), err)
	}
	return e, nil
}

func readAfter(r *bufio.Reader, skip int64) (Entry, error) {
	for range skip {
		header, err := r.Peek(frameHeader)
		if err != nil {
			return Entry{}, err
		}
		n := binary.LittleEndian.Uint32(header)
		if n > maxFrame {
			return Entry{}, errTorn
		}
		if _, err := r.Discard(frameHeader + int(n)); err != nil {
			return Entry{}, err
		}
	}
	e, _, err := readFrame(r)
	return e, err
}
