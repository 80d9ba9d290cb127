package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"
)

// CheckLog reads the whole log in dir, which may be in use, and compares every
// record and every tile with the signed tree head. It changes nothing. Each
// record goes to each (unless nil), each thing that is wrong to problem.
func CheckLog(ctx context.Context, dir, verifierKey string, each func(id int64, e Entry) error, problem func(string)) (TreeHead, error) {
	v, err := note.NewVerifier(verifierKey)
	if err != nil {
		return TreeHead{}, fmt.Errorf("checking a log: verifier key %q: %w", verifierKey, err)
	}
	// The head first: what it covers was on disk before it.
	msg, err := os.ReadFile(filepath.Join(dir, "latest"))
	if err != nil {
		return TreeHead{}, fmt.Errorf("checking log %s: %w", v.Name(), err)
	}
	head, err := openHead(msg, v)
	if err != nil {
		return TreeHead{}, fmt.Errorf("checking log %s: file latest: %w", v.Name(), err)
	}
	w := treeWriter{dir: dir, log: slog.Default()}
	var tiles []string // that are wrong
	w.visit = func(c tileContent) {
		if len(tiles) == maxProblems {
			return
		}
		have, err := os.ReadFile(w.file(c.tile))
		switch {
		case err != nil:
			tiles = append(tiles, fmt.Sprintf("tile %s can't be read (%v)", c.tile.Path(), err))
		case !bytes.Equal(have, c.data):
			tiles = append(tiles, fmt.Sprintf("tile %s is not what the records say", c.tile.Path()))
		}
	}
	if head.Size > 0 {
		err = readRecords(filepath.Join(dir, "records"), func(e Entry, _ int64) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if each != nil {
				if err := each(w.edge.Size, e); err != nil {
					return err
				}
			}
			w.add(e.Text)
			if w.edge.Size == head.Size {
				return errEnough
			}
			return nil
		})
	}
	if err != nil && !errors.Is(err, errEnough) {
		return head, fmt.Errorf("checking log %s: %w", v.Name(), err)
	}
	advice := "remove it, and the next start of the server writes it again"
	if w.edge.Size < head.Size {
		advice = "see above"
		problem(fmt.Sprintf("record %d can't be read, and the tree head covers %d: restore the folder from a backup", w.edge.Size, head.Size))
	} else if w.edge.Root() != head.Hash {
		advice = "see above"
		problem(fmt.Sprintf("the %d records don't give the hash of the signed tree head: restore the folder from a backup", head.Size))
	}
	for _, tile := range tiles {
		problem(tile + ": " + advice)
	}
	return head, nil
}

// maxProblems bounds how many tiles are named.
const maxProblems = 100

var errEnough = errors.New("all records were read")

// readRecords calls each for the good records at the start of a file.
func readRecords(name string, each func(Entry, int64) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = scanRecords(f, each)
	return err
}
