package dnsserver

import "sync/atomic"

// A cache holds answers by question. Its slots are fixed in number; a newer
// answer takes the place of an older one. Readers take no lock and allocate
// nothing.
type cache struct {
	slots []atomic.Pointer[answer]
	tags  []atomic.Uint32 // parts of their hashes, so that few answers are looked at in vain
	next  atomic.Uint32
}

func newCache(slots int) *cache {
	n := tableSize(slots)
	return &cache{slots: make([]atomic.Pointer[answer], n), tags: make([]atomic.Uint32, n)}
}

// bucket returns where the slots for a hash begin.
func (c *cache) bucket(hash uint64) int { return int(hash%uint64(len(c.slots)/ways)) * ways }

func tag(hash uint64) uint32 { return uint32(hash >> 32) }

// get returns the answer to a question, nil if there is none that is good now;
// known says that there is one at all.
func (c *cache) get(key []byte, hash, gen uint64, now int64) (a *answer, known bool) {
	at := c.bucket(hash)
	for i := at; i < at+ways; i++ {
		if c.tags[i].Load() != tag(hash) {
			continue
		}
		if a := c.slots[i].Load(); a != nil && a.hash == hash && a.key == string(key) {
			if a.gen != gen || now >= a.refresh {
				return nil, true
			}
			return a, true
		}
	}
	return nil, false
}

func (c *cache) put(a *answer) {
	at := c.bucket(a.hash)
	victim := -1
	for i := at; i < at+ways; i++ {
		old := c.slots[i].Load()
		if old != nil && old.hash == a.hash && old.key == a.key {
			victim = i
			break
		}
		if victim < 0 && (old == nil || old.gen != a.gen) {
			victim = i
		}
	}
	if victim < 0 {
		victim = at + int(c.next.Add(1)%ways)
	}
	c.slots[victim].Store(a)
	c.tags[victim].Store(tag(a.hash))
}

// cacheKey completes the name in the query to a key: the same name, type and
// kind of answer.
func (q *query) cacheKey() []byte {
	kind := byte(0)
	if q.do {
		kind |= 1
	}
	if q.co {
		kind |= 2
	}
	n := q.nameLen
	q.lower[n], q.lower[n+1], q.lower[n+2] = byte(q.qtype>>8), byte(q.qtype), kind
	return q.lower[:n+3]
}
