package index

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
)

// An Event is something that an honest log never shows.
type Event struct {
	Kind    string // "duplicate": two records with different hashes for one version
	Module  string
	Version string
	Records []int64
	Text    string // a sentence for people
	Time    time.Time
}

// maxEvents bounds the events that are kept.
const maxEvents = 1000

// conflictOf returns what a delta calls for two records of one version, whose
// event is stored with a batch.
func (s *Store) conflictOf(b *batch) func(path []byte, have, got entry, arena []byte) {
	return func(path []byte, have, got entry, arena []byte) {
		v := string(appendVersion(nil, got.ver, got.pre.of(arena)))
		s.event(b, Event{Kind: "duplicate", Module: string(path), Version: v, Records: []int64{have.record, got.record},
			Text: fmt.Sprintf("the log has two records with different hashes for %s %s: %d and %d", path, v, have.record, got.record)})
	}
}

func (s *Store) event(b *batch, e Event) {
	s.telling.Lock() // records are read while others are merged
	defer s.telling.Unlock()
	// Merging again after an interruption meets the same records again.
	if key := fmt.Sprint(e.Kind, e.Module, e.Version, e.Records); s.told[key] {
		return
	} else if len(s.told) < maxEvents {
		s.told[key] = true
	}
	e.Time = time.Now().UTC()
	s.log.Error("security event: "+e.Text, e.logAttrs()...)
	s.metrics.event(e.Kind)
	if len(b.events) < maxEvents {
		b.events = append(b.events, e)
	}
	if s.opts.OnEvent != nil {
		s.opts.OnEvent(e)
	}
}

// logAttrs of an event.
func (e Event) logAttrs() []any {
	return []any{slog.String("kind", e.Kind), slog.String("module", e.Module), slog.String("version", e.Version), slog.Any("records", e.Records)}
}

// storeEvents adds new events, and drops the oldest when there are too many.
func storeEvents(b *bbolt.Bucket, sum *sum, events []Event) error {
	c := b.Cursor()
	for _, e := range events {
		value, err := json.Marshal(e)
		if err != nil {
			return err
		}
		n := uint64(0)
		if k, _ := c.Last(); k != nil {
			n = binary.BigEndian.Uint64(k)
		}
		if err := sum.put(b, binary.BigEndian.AppendUint64(nil, n+1), value); err != nil {
			return err
		}
		if sum.Count > maxEvents {
			k, v := c.First()
			sum.remove(k, v)
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// Events returns the security events that are stored, oldest first.
func (s *Store) Events() ([]Event, error) {
	var events []Event
	err := s.read(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketEvents).ForEach(func(_, v []byte) error {
			var e Event
			if err := json.Unmarshal(v, &e); err != nil {
				return fmt.Errorf("%w (events: %w)", ErrCorrupt, err)
			}
			events = append(events, e)
			return nil
		})
	})
	return events, err
}
