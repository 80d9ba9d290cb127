package index

import (
	"encoding/binary"
	"errors"
	"slices"
)

// The log carries no timestamps. A clock tells, from the records alone, no
// later than when a record was added, and the same on every machine.
//
// Pseudo-versions carry the time of their commit, which its author chooses
// freely: most are honest, some are wrong, some are forged. A record is added
// after its commit was made, so an honest commit time is a lower bound for the
// time of its record and of all that follow; and in a busy log some commit is
// always only minutes old. So the clock is the running maximum of commit times
// on which several unrelated owners agree:
//
//   - A claim is a commit time later than the clock less an hour. Claims of the
//     last claimWindow records count, of each owner only the latest.
//   - With n owners making claims, the clock moves up to the k-th latest claim,
//     k = max(minOwners, n/agreePart): fewer than k owners can forge as they
//     like without moving it past what an honest owner claims.
//   - It never goes back.
//
// Until minOwners owners were seen the time is 0, unknown.
type clock struct {
	now    int64
	claims []claim // oldest record first, one for each owner
	later  []int64 // times of the claims later than now, earliest first
}

type claim struct {
	owner  uint64
	time   int64
	record int64
}

const (
	claimWindow = 4096 // records
	minOwners   = 5
	agreePart   = 8
	fresh       = 3600 // seconds
)

// isNews reports whether a commit time is a claim.
func (c *clock) isNews(commit int64) bool { return commit > c.now-fresh }

// observe takes the commit time in a record's version.
func (c *clock) observe(record int64, owner uint64, commit int64) {
	if !c.isNews(commit) {
		return
	}
	for len(c.claims) > 0 && c.claims[0].record <= record-claimWindow {
		c.forget(c.claims[0].time)
		c.claims = c.claims[1:]
	}
	// The owner's earlier claim goes, unless it says more.
	for i := range c.claims {
		if o := &c.claims[i]; o.owner == owner {
			commit = max(commit, o.time)
			c.forget(o.time)
			c.claims = append(c.claims[:i], c.claims[i+1:]...)
			break
		}
	}
	c.claims = append(c.claims, claim{owner, commit, record})
	if commit <= c.now {
		return
	}
	i, _ := slices.BinarySearch(c.later, commit)
	c.later = slices.Insert(c.later, i, commit)
	k := max(minOwners, len(c.claims)/agreePart)
	if len(c.later) < k { // then the k-th latest claim is no news
		return
	}
	c.now = c.later[len(c.later)-k]
	i, _ = slices.BinarySearch(c.later, c.now+1)
	c.later = slices.Delete(c.later, 0, i)
	c.claims = slices.DeleteFunc(c.claims, func(o claim) bool { return !c.isNews(o.time) })
}

// forget takes the time of a claim that goes from those later than now.
func (c *clock) forget(time int64) {
	if i, ok := slices.BinarySearch(c.later, time); ok {
		c.later = slices.Delete(c.later, i, i+1)
	}
}

func (c *clock) append(b []byte) []byte {
	b = binary.AppendVarint(b, c.now)
	b = binary.AppendUvarint(b, uint64(len(c.claims)))
	for _, o := range c.claims {
		b = binary.LittleEndian.AppendUint64(b, o.owner)
		b = binary.AppendVarint(b, o.time)
		b = binary.AppendVarint(b, o.record)
	}
	return b
}

var errClock = errors.New("state of the clock is malformed")

func (c *clock) read(b []byte) ([]byte, error) {
	r := reader{b: b}
	c.now = r.varint()
	n := r.uvarint()
	c.claims, c.later = nil, nil
	for range n {
		if r.bad {
			break
		}
		o := claim{r.uint64(), r.varint(), r.varint()}
		c.claims = append(c.claims, o)
		if o.time > c.now {
			c.later = append(c.later, o.time)
		}
	}
	if r.bad {
		return nil, errClock
	}
	slices.Sort(c.later)
	return r.b, nil
}
