package tlog

import (
	"errors"
	"fmt"
)

// maxGroup bounds the entries of one group commit.
const maxGroup = 4096

// write is the goroutine that writes.
func (l *Log) write() {
	defer close(l.closed)
	for {
		var group []*appendRequest
		select {
		case req := <-l.requests:
			group = append(group, req)
		case <-l.closing:
			return
		}
		for n := len(group[0].entries); n < maxGroup; {
			select {
			case req := <-l.requests:
				group = append(group, req)
				n += len(req.entries)
				continue
			default:
			}
			break
		}
		l.commit(group)
		for _, req := range group {
			close(req.done)
		}
	}
}

// commit appends the entries of a group and sets the requests' results.
func (l *Log) commit(group []*appendRequest) {
	b := batch{next: l.tree.edge.Size, keys: map[string]int64{}, old: map[string]int64{}}
	for _, req := range group {
		if req.err = l.conflict(&b, req.entries); req.err != nil {
			continue
		}
		for i, e := range req.entries {
			id := l.place(&b, e)
			if i == 0 {
				req.first = id
			}
		}
	}
	err := l.store(&b)
	if err != nil {
		l.log.Error("append to the log failed", "log", l.signer.Name(), "err", err)
		for _, req := range group {
			if req.err == nil {
				req.first, req.err = 0, fmt.Errorf("appending to log %s: %w", l.signer.Name(), err)
			}
		}
		return
	}
	l.metrics.appended(len(b.texts))
}

// A batch is what one group commit adds.
type batch struct {
	next   int64 // number of the next record
	frames []byte
	starts []int64 // of the frames
	texts  [][]byte
	keys   map[string]int64
	old    map[string]int64 // keys that were there before
}

// known returns the record of a key, in the batch, on disk or in the log.
func (l *Log) known(b *batch, key string) (id int64, ok bool, err error) {
	if key == "" {
		return 0, false, nil
	}
	if id, ok = b.keys[key]; ok {
		return id, true, nil
	}
	if id, ok = b.old[key]; ok {
		return id, true, nil
	}
	if p, ok := l.fresh[key]; ok {
		return p.id, true, nil
	}
	id, _, err = l.lookup(key)
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err == nil {
		b.old[key] = id
	}
	return id, err == nil, err
}

// place adds an entry that conflict has looked at to the batch, unless its key
// is known.
func (l *Log) place(b *batch, e Entry) (id int64) {
	if e.Key != "" {
		if id, ok := b.keys[e.Key]; ok {
			return id
		}
		if id, ok := b.old[e.Key]; ok {
			return id
		}
		if p, ok := l.fresh[e.Key]; ok {
			return p.id
		}
	}
	id = b.next
	b.next++
	if e.Key != "" {
		b.keys[e.Key] = id
	}
	b.starts = append(b.starts, int64(len(b.frames)))
	b.frames = appendFrame(b.frames, e)
	b.texts = append(b.texts, e.Text)
	return id
}

// conflict returns an error if a key has another text already, in the log or
// among the entries themselves.
func (l *Log) conflict(b *batch, entries []Entry) error {
	own := map[string][]byte{}
	for _, e := range entries {
		have, ok := own[e.Key]
		id, known, err := l.known(b, e.Key)
		if err != nil {
			return fmt.Errorf("appending %s: %w", e.Key, err)
		}
		if known {
			ok = true
			if i := id - l.tree.edge.Size; i >= 0 {
				have = b.texts[i]
			} else if rec, err := l.recordAt(id); err != nil {
				return err
			} else {
				have = rec.Text
			}
		}
		if ok && string(have) != string(e.Text) {
			return fmt.Errorf("appending %s: %w", e.Key, ErrKeyExists)
		}
		if e.Key != "" {
			own[e.Key] = e.Text
		}
	}
	return nil
}

// store writes a batch and publishes. Records that are on disk stay there when
// publishing fails (the disk is full): the next store publishes them too.
func (l *Log) store(b *batch) error {
	if l.broken != nil {
		return fmt.Errorf("an earlier error makes it unsafe to go on before a restart: %w", l.broken)
	}
	if len(b.texts) > 0 {
		first, base := l.tree.edge.Size, l.records.size
		l.mu.Lock() // recordAt reads the marks
		err := l.records.append(b.frames, b.starts)
		l.mu.Unlock()
		if err != nil {
			if !isFull(err) {
				l.broken = err // after a failed sync nobody knows what is on disk
			}
			return err
		}
		for _, text := range b.texts {
			l.tree.add(text)
		}
		for k, id := range b.keys {
			l.fresh[k] = place{id, base + b.starts[id-first]}
		}
	}
	if l.tree.edge.Size == l.Head().Size {
		return nil // all of it was in the log already
	}
	return l.publish()
}
