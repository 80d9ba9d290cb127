package builder

import (
	"cmp"
	"slices"
	"time"
)

// A waiting is what the choice of the next job depends on.
type waiting struct {
	client    string
	seq       int64
	notBefore time.Time
}

// order returns the indexes of the jobs in the order in which they should run:
// each client's own in order of arrival, clients taking turns, first the one
// whose last turn is longest ago. Jobs that must wait come last.
func order(jobs []waiting, lastTurn map[string]int64, now time.Time) []int {
	type entry struct{ index, round int }
	perClient := map[string]int{}
	entries := make([]entry, len(jobs))
	bySeq := make([]int, len(jobs))
	for i := range jobs {
		bySeq[i] = i
	}
	slices.SortFunc(bySeq, func(a, b int) int { return cmp.Compare(jobs[a].seq, jobs[b].seq) })
	for k, i := range bySeq {
		entries[k] = entry{i, perClient[jobs[i].client]}
		if !jobs[i].notBefore.After(now) {
			perClient[jobs[i].client]++
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		ja, jb := jobs[a.index], jobs[b.index]
		la, lb := ja.notBefore.After(now), jb.notBefore.After(now)
		switch {
		case la != lb && la:
			return 1
		case la != lb:
			return -1
		case la:
			return ja.notBefore.Compare(jb.notBefore)
		}
		return cmp.Or(cmp.Compare(a.round, b.round), cmp.Compare(lastTurn[ja.client], lastTurn[jb.client]), cmp.Compare(ja.seq, jb.seq))
	})
	out := make([]int, len(entries))
	for k, e := range entries {
		out[k] = e.index
	}
	return out
}

// crowded returns the index of the job that has to go: of the client who has
// most of them, the first.
func crowded(jobs []waiting) int {
	count := map[string]int{}
	for _, j := range jobs {
		count[j.client]++
	}
	first := 0
	for i, j := range jobs {
		f := jobs[first]
		if cmp.Or(cmp.Compare(count[f.client], count[j.client]), cmp.Compare(j.seq, f.seq)) < 0 {
			first = i
		}
	}
	return first
}
