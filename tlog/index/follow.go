package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
)

// tileRecs are the parsed records of a tile.
type tileRecs struct {
	recs []rec
	nums []int32 // of the records in the tile
	bad  []int32 // records that are not well-formed
}

func prepare(t *tlog.Tile, out *tileRecs) {
	out.recs, out.nums, out.bad = out.recs[:0], out.nums[:0], out.bad[:0]
	for i, text := range t.Records {
		n := len(out.recs)
		if n == cap(out.recs) {
			out.recs = slices.Grow(out.recs, len(t.Records)-i)
		}
		out.recs = out.recs[:n+1]
		if !parseRecord(text, &out.recs[n]) {
			out.recs = out.recs[:n]
			out.bad = append(out.bad, int32(i))
			continue
		}
		out.nums = append(out.nums, int32(i))
	}
}

// Follow reads what the log has gained up to a tree head that the client has
// accepted, and stores it. progress, unless nil, is called now and then with
// the number of records processed.
func (s *Store) Follow(ctx context.Context, c *tlog.Client, head tlog.TreeHead, parallel int, progress func(done int64)) error {
	if s.opts.Kind != Following {
		return errors.New("index: only an index in mode follow can follow a log")
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.merged.IsZero() {
		s.merged = time.Now()
	}
	pending, failed := len(s.delta.mods) > 0 || s.pos.Merging, false
	// On a busy machine a journal entry takes long, and less is read meanwhile.
	next := time.Now().Add(s.opts.JournalPeriod)
	err := tlog.Follow(ctx, tlog.FollowConfig{Client: c, From: s.pos.edge, To: head, Parallel: parallel}, prepare,
		func(t *tlog.Tile, recs *tileRecs, edge *tlog.Edge) error {
			s.apply(t, recs)
			s.pos.edge.Size, s.pos.edge.Hashes = edge.Size, append(s.pos.edge.Hashes[:0], edge.Hashes...)
			pending = true
			if progress != nil {
				progress(edge.Size)
			}
			if s.behind != nil {
				if !s.behind.ended() && s.delta.size() < s.opts.MergeBytes {
					return nil
				}
				if err := s.endMerge(); err != nil {
					failed = true
					return err
				}
			}
			start := time.Now()
			show := worthShowing(start, s.pos.clock.now, s.merged, s.mergeTook)
			if !show && start.Before(next) && !s.full() {
				return nil
			}
			s.reached(head)
			if !show && s.full() {
				s.startMerge()
				next = start.Add(s.opts.JournalPeriod)
				return nil
			}
			err := s.commit(show)
			end := time.Now()
			next, failed = end.Add(max(s.opts.JournalPeriod, min(15*end.Sub(start), 10*s.opts.JournalPeriod))), err != nil
			return err
		})
	commitErr := s.endMerge()
	failed = failed || commitErr != nil
	switch {
	case !pending || commitErr != nil:
	case err == nil:
		// Only now: on the way, the state is that of an older log.
		s.pos.Note, s.pos.Accepted = head.Note, head.Accepted
		if commitErr = s.commit(true); commitErr == nil {
			s.slim()
			commitErr = s.compact()
		}
	case !failed:
		commitErr = s.writeJournal(&s.batch) // keep what was read before the error
	}
	s.metrics.time(s.pos.clock.now)
	if err = errors.Join(err, commitErr); err != nil {
		return fmt.Errorf("updating the index: %w", err)
	}
	return nil
}

// reached notes how old the state is that is about to be stored, on the way to
// a tree head: the time that the log itself tells is when it had no more.
func (s *Store) reached(head tlog.TreeHead) {
	if s.opts.SeenTime || s.pos.clock.now == 0 {
		return
	}
	at := time.Unix(s.pos.clock.now, 0).UTC()
	if at.After(head.Accepted) {
		at = head.Accepted
	}
	if at.After(s.pos.Accepted) {
		s.pos.Accepted = at
	}
}

// A server that has fallen behind shows what it has read, while it reads on.
// It costs a merge, and nothing is gained while the log's time is long ago.
const (
	showPeriod = 30 * time.Second
	showShare  = 20 // one part in so many of the time goes into such merges
	showAge    = 24 * time.Hour
)

func worthShowing(now time.Time, logTime int64, merged time.Time, took time.Duration) bool {
	return logTime != 0 && now.Sub(time.Unix(logTime, 0)) < showAge && now.Sub(merged) > max(showPeriod, showShare*took)
}

// apply takes in the records of a tile.
func (s *Store) apply(t *tlog.Tile, recs *tileRecs) {
	s.delta.warm(recs.recs)
	for k := range recs.recs {
		r := &recs.recs[k]
		m, ok := s.delta.find(r.hash, r.path)
		if !ok {
			recs.bad = append(recs.bad, recs.nums[k])
			continue
		}
		id := t.First + int64(recs.nums[k])
		if r.kind == pseudo && s.pos.clock.isNews(r.commit) {
			s.pos.clock.observe(id, ownerHash(r.path), r.commit)
		}
		now := s.pos.clock.now
		if s.opts.SeenTime {
			now = time.Now().Unix()
		}
		if r.toolchain {
			s.addToolchain(r.pre, id, now)
		}
		s.delta.add(m, r, id, now)
	}
	if len(recs.bad) > 0 {
		s.pos.Skipped += int64(len(recs.bad))
		s.metrics.skip(len(recs.bad))
		n := recs.bad[0]
		s.log.Warn("log has records that are not two well-formed lines of one module; they are skipped", "count", len(recs.bad), "one", t.First+int64(n), "text", httpget.Line(string(t.Records[n]), 200))
	}
}
