package index

import (
	"runtime"
	"slices"
	"time"
)

// A merging is a merge that goes on while records are read into the next
// batch. Its batch goes to the journal first, nothing else is written meanwhile,
// and Follow waits for it before it returns.
type merging struct {
	batch
	started time.Time
	took    time.Duration
	err     error
	done    chan struct{}
}

func (m *merging) ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// startMerge merges what was collected while more is read.
func (s *Store) startMerge() {
	m := &merging{batch: s.batch, started: time.Now(), done: make(chan struct{})}
	m.pos = s.pos.clone()
	m.delta.conflict = s.conflictOf(&m.batch)
	s.startBatch()
	s.behind = m
	go func() {
		defer close(m.done)
		if m.err = s.writeJournal(&m.batch); m.err != nil {
			return
		}
		collectGarbage(m.delta)
		m.err = s.mergeBatch(&m.batch, m.delta.sorted())
		m.took = time.Since(m.started)
	}()
}

// endMerge waits for a merge. When it failed, what it had is collected again.
func (s *Store) endMerge() error {
	m := s.behind
	if m == nil {
		return nil
	}
	<-m.done
	s.behind = nil
	s.pos.Merging = m.pos.Merging // the blocks hold a part of the journal if it failed
	if m.err == nil {
		s.journalSize = 0
		s.merged, s.mergeTook = m.started.Add(m.took), m.took
		m.delta.reset()
		collectGarbage(m.delta)
		s.spare = m.delta
		return nil
	}
	newer := s.batch
	s.delta, s.tools, s.events = m.delta, m.tools, append(m.events, newer.events...)
	s.adopt()
	s.delta.addAll(newer.delta)
	for v, t := range newer.tools {
		s.noteToolchain(v, t)
	}
	return m.err
}

// collectGarbage frees what a large journal entry or merge has left behind. The
// collector itself would wait until that is as much as two deltas, and take
// what it finds then for the measure of the next time.
func collectGarbage(d *delta) {
	if cap(d.mods) > slimModules {
		runtime.GC()
	}
}

// addAll takes in what another delta holds.
func (d *delta) addAll(from *delta) {
	for i := range from.mods {
		path := from.mods[i].path.of(from.arena)
		m, _ := d.find(from.mods[i].hash, path) // it is a path, as it was there
		for _, e := range from.list(uint32(i)) {
			if e.kind != release {
				e.pre = d.keep(e.pre.of(from.arena))
			}
			d.put(m, e)
		}
	}
}

// clone returns a copy that shares nothing that changes.
func (p *position) clone() position {
	c := *p
	c.edge = p.edge.Clone()
	c.clock.claims, c.clock.later = slices.Clone(p.clock.claims), slices.Clone(p.clock.later)
	return c
}
