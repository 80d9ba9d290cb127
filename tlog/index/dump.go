package index

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

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
// bytes. It is the state that queries see.
func (s *Store) Dump(w io.Writer) (err error) {
	defer catch(&err)()
	bw := bufio.NewWriterSize(w, 1<<20)
	for {
		changed := s.Changed()
		err := s.db.View(func(tx *bbolt.Tx) error { return dump(bw, tx) })
		if !errors.Is(err, errMerging) {
			return errors.Join(err, bw.Flush())
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
}

var errMerging = errors.New("a merge is going on")

func dump(w *bufio.Writer, tx *bbolt.Tx) error {
	if tx.Bucket(bucketMeta) == nil {
		return fmt.Errorf("%w (it is empty)", ErrCorrupt)
	}
	var newest, pos position
	if err := newest.decode(tx.Bucket(bucketMeta).Get(keyPosition)); err != nil {
		return err
	}
	if newest.Merging {
		return errMerging
	}
	if err := pos.decode(tx.Bucket(bucketMeta).Get(keyView)); err != nil {
		return err
	}
	head := pos.head(tx)
	fmt.Fprintf(w, "upkeep index dump 1\nsize %d\nhash %s\nskipped %d\n", head.Size, ct.Hash(head.Hash), pos.Skipped)
	err := tx.Bucket(bucketTools).ForEach(func(k, v []byte) error {
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
	var br blockReader
	var list []entry
	var arena, line []byte
	return tx.Bucket(bucketModules).ForEach(func(k, b []byte) error {
		if err := br.open(k, b); err != nil {
			return err
		}
		for {
			ok, err := br.next()
			if err != nil || !ok {
				return err
			}
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
		}
	})
}
