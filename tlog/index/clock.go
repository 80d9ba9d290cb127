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
	// Drop what fell out of the window or is no longer a claim, and the owner's
	// earlier claim unless it says more.
	keep := c.claims[:0]
	for _, o := range c.claims {
		switch {
		case o.record <= record-claimWindow || o.time <= c.now-fresh:
		case o.owner == owner:
			commit = max(commit, o.time)
		default:
			keep = append(keep, o)
		}
	}
	c.claims = append(keep, claim{owner, commit, record})
	if commit <= c.now {
		return
	}
	k, later := max(minOwners, len(c.claims)/agreePart), 0
	for _, o := range c.claims {
		if o.time > c.now {
			later++
		}
	}
	if later < k { // then the k-th latest claim is no news
		return
	}
	times := make([]int64, 0, 256)
	for _, o := range c.claims {
		if o.time > c.now {
			times = append(times, o.time)
		}
	}
	slices.Sort(times)
	c.now = times[len(times)-k]
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
	c.claims = nil
	for range n {
		if r.bad {
			break
		}
		c.claims = append(c.claims, claim{r.uint64(), r.varint(), r.varint()})
	}
	if r.bad {
		return nil, errClock
	}
	return r.b, nil
}
