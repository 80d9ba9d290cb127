package index

import (
	"bufio"
	"fmt"
	"io"
	"strconv"

	ct "golang.org/x/mod/sumdb/tlog"
)

// Dump writes the whole index as sorted text:
//
//	upkeep index dump 1
//	size <records>
//	hash <base64>
//	skipped <malformed records>
//	toolchain <version> <record> <Unix time>
//	<path> <version> <record> <Unix time>
//
// Two indexes that followed the same log to the same size write the same
// bytes. It is the state that queries see when it begins.
func (s *Store) Dump(w io.Writer) (err error) {
	v, err := s.hold()
	if err != nil {
		return err
	}
	defer v.release()
	defer catch(&err)()
	bw := bufio.NewWriterSize(w, 1<<20)
	if err := dump(bw, v); err != nil {
		return err
	}
	return bw.Flush()
}

func dump(w *bufio.Writer, v *view) error {
	fmt.Fprintf(w, "upkeep index dump 1\nsize %d\nhash %s\nskipped %d\n", v.head.Size, ct.Hash(v.head.Hash), v.skipped)
	err := v.tx.Bucket(bucketTools).ForEach(func(k, v []byte) error {
		t, ok := decodeToolchain(v)
		if !ok {
			return ErrCorrupt
		}
		_, err := fmt.Fprintf(w, "toolchain %s %d %d\n", k, t.record, t.time)
		return err
	})
	if err != nil {
		return err
	}
	var list []entry
	var arena, line []byte
	return eachModule(v.modules, func(br *blockReader) error {
		if list, arena, err = br.list(list[:0], arena[:0]); err != nil {
			return err
		}
		for i := range list {
			e := &list[i]
			line = append(append(line[:0], br.path...), ' ')
			line = append(appendVersion(line, e.ver, e.pre.of(arena)), ' ')
			line = append(strconv.AppendInt(line, e.record, 10), ' ')
			line = append(strconv.AppendInt(line, e.time, 10), '\n')
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		return nil
	})
}
