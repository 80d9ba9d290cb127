package discover

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"example.org/upkeep/dnsserver/name"
)

// A mark is what is remembered of a source: the largest log it has shown.
type mark struct {
	Size int64     `json:"size"`
	Hash [32]byte  `json:"hash"`
	At   time.Time `json:"at"`
}

// A record is what a source said of a module last.
type record struct {
	Versions string    `json:"versions"`
	Signed   time.Time `json:"signed"`
}

// seen is what is remembered of a module.
type seen struct {
	Records  map[string]record `json:"records,omitempty"` // by zone and source
	Versions []name.Entry      `json:"versions,omitempty"`
	Last     time.Time         `json:"last"`           // fresh verified answer
	Since    time.Time         `json:"since"`          // first asked for
	Stale    time.Time         `json:"stale,omitzero"` // since when there is no fresh answer
}

// rules are the parts of the configuration that judge needs.
type rules struct {
	agree      int
	maxAge     time.Duration
	maxSilence time.Duration
}

// tolerance is how far a source may lag before it is reported: caches keep
// answers for minutes.
const tolerance = 15 * time.Minute

// A verdict is what the answers of all sources mean together.
type verdict struct {
	versions, toolchain []name.Entry
	status              *name.StatusText
	used                []int // indexes of the sources that gave the versions
	marks               map[string]mark
	events              []Event
	conflict            []int // two sources that contradict each other
	forked              []int // sources that contradict what they said before
	err                 error
}

// judge decides what to believe. It changes the sources' Stale and Behind.
func judge(now time.Time, r rules, mod string, answers []SourceAnswer, marks map[string]mark, before seen) verdict {
	v := verdict{marks: map[string]mark{}}
	event := func(kind, source, format string, args ...any) {
		v.events = append(v.events, Event{Kind: kind, Source: source, Text: fmt.Sprintf(format, args...), At: now})
	}
	var fresh []int
	for i := range answers {
		a := &answers[i]
		if a.Err != nil && !errors.Is(a.Err, ErrNotFound) {
			event(errorKind(a.Err), a.Source, "%v", a.Err)
			continue
		}
		id := a.Zone + " " + a.Source
		m, known := marks[id]
		why, forked := staleness(now, r.maxAge, a.Status, m, known)
		if a.Stale = why; why != "" {
			kind := EventStale
			if forked {
				kind = EventConflict
				v.forked = append(v.forked, i)
			}
			event(kind, a.Source, "%s: %s", a.Source, why)
			continue
		}
		if old := before.Records[id]; !a.signed.IsZero() && old.Signed.Sub(a.signed) > tolerance && old.Versions != join(a.Versions) {
			a.Stale = fmt.Sprintf("it said %q, signed on %s, and now says %q, signed on %s: an old record is being replayed",
				old.Versions, stamp(old.Signed), join(a.Versions), stamp(a.signed))
			event(EventStale, a.Source, "%s: %s", a.Source, a.Stale)
			continue
		}
		if a.Status != nil {
			v.marks[id] = mark{a.Status.Size, a.Status.Hash, a.Status.At}
		}
		fresh = append(fresh, i)
	}
	if len(fresh) == 0 {
		v.err = noneFresh(answers)
		return v
	}
	fresh = v.replays(now, answers, fresh)
	best := fresh[0]
	for _, i := range fresh {
		if size(answers[i]) > size(answers[best]) {
			best = i
		}
	}
	v.status = answers[best].Status
	for _, i := range fresh {
		a, b := &answers[i], &answers[best]
		a.Behind = size(*a) < size(*b)
		if a.Behind && (a.Status == nil || b.Status.At.Sub(a.Status.At) > tolerance) {
			event(EventBehind, a.Source, "%s is behind: its log has %d records, that of %s %d", a.Source, size(*a), b.Source, size(*b))
		}
	}
	for x, i := range fresh {
		for _, j := range fresh[x+1:] {
			if why := contradiction(answers[i], answers[j]); why != "" {
				event(EventConflict, answers[i].Source, "%s and %s contradict each other: %s", answers[i].Source, answers[j].Source, why)
				v.conflict = []int{i, j}
			}
		}
	}
	if v.conflict != nil {
		v.err = fmt.Errorf("%w: %s", ErrDisagree, v.events[len(v.events)-1].Text)
		return v
	}

	denied := slices.DeleteFunc(slices.Clone(fresh), func(i int) bool { return answers[i].Err == nil })
	if len(denied) > 0 && (slices.Contains(denied, best) && r.agree <= 1 || paths(answers, denied) >= max(r.agree, 1) && len(denied) == len(fresh)) {
		v.used = denied
		v.err = answers[denied[0]].Err
		if len(before.Versions) > 0 {
			event(EventNotFound, answers[denied[0]].Source, "module %s was known with %s and is denied now", mod, before.Versions[0].Version)
		}
		return v
	}
	pool := fresh
	if r.agree <= 1 {
		pool = slices.DeleteFunc(slices.Clone(fresh), func(i int) bool { return size(answers[i]) < size(answers[best]) })
	}
	listed := false
	v.versions, v.used = agreed(answers, pool, max(r.agree, 1), func(i int) []name.Entry { listed = listed || len(answers[i].Versions) > 0; return answers[i].Versions }, semver.Major)
	v.toolchain, _ = agreed(answers, pool, max(r.agree, 1), func(i int) []name.Entry { return answers[i].Toolchain }, nil)
	if len(v.used) == 0 && !listed && paths(answers, pool) >= r.agree {
		v.used = pool // all say that it has no release
	} else if len(v.used) == 0 {
		var said []string
		for i, a := range answers {
			switch {
			case a.Err != nil || a.Stale != "":
				said = append(said, fmt.Sprintf("%s has no fresh answer", a.Source))
			case slices.Contains(fresh, i):
				said = append(said, fmt.Sprintf("%s says %s", a.Source, or(join(a.Versions), "none")))
			}
		}
		event(EventDisagree, "", "%d sources must agree on a version of %s and do not: %s", r.agree, mod, strings.Join(said, "; "))
		v.err = fmt.Errorf("%w: %s", ErrDisagree, v.events[len(v.events)-1].Text)
		return v
	}
	for _, old := range before.Versions {
		i := slices.IndexFunc(v.versions, func(e name.Entry) bool { return line0(e.Version) == line0(old.Version) })
		switch {
		case i < 0:
			event(EventVanished, answers[v.used[0]].Source, "%s %s was listed before and is not any more", mod, old.Version)
		case semver.Compare(v.versions[i].Version, old.Version) < 0:
			event(EventLower, answers[v.used[0]].Source, "the newest version of %s went down from %s to %s", mod, old.Version, v.versions[i].Version)
		}
	}
	return v
}

// line0 is the line of versions that has one entry in a record.
func line0(v string) string { return semver.Major(v) + semver.Build(v) }

func size(a SourceAnswer) int64 {
	if a.Status == nil {
		return -1
	}
	return a.Status.Size
}

// staleness says why an answer with this status is not believed. forked means
// that the source shows another log than before.
func staleness(now time.Time, maxAge time.Duration, st *name.StatusText, m mark, known bool) (why string, forked bool) {
	switch {
	case st == nil && known:
		return fmt.Sprintf("it had a log of %d records and now does not say how many it has", m.Size), false
	case st == nil:
		return "", false // a zone of the format without status.v0
	case known && st.Size == m.Size && st.Hash != m.Hash:
		return fmt.Sprintf("its log of %d records has another hash than before: it shows different logs to different people", st.Size), true
	case known && st.Size < m.Size:
		return fmt.Sprintf("its log went back from %d to %d records: an old answer is being replayed", m.Size, st.Size), false
	case known && st.At.Before(m.At) && st.Size == m.Size && m.At.Sub(st.At) > tolerance:
		return fmt.Sprintf("its log was read at %s before and says %s now: an old answer is being replayed", stamp(m.At), stamp(st.At)), false
	case now.Sub(st.At) > maxAge:
		return fmt.Sprintf("its log was last read %s ago (%s); at most %s is fresh", ago(now.Sub(st.At)), stamp(st.At), maxAge), false
	case st.At.Sub(now) > clockSkew:
		return fmt.Sprintf("its log was read at %s, which is in the future: this machine's clock (%s) is behind, or the index's ahead", stamp(st.At), stamp(now)), false
	}
	return "", false
}

// replays drops, of two answers that differ at one size of one zone's log, the
// one that was signed much earlier: it is of the time before a change.
func (v *verdict) replays(now time.Time, answers []SourceAnswer, fresh []int) []int {
	return slices.DeleteFunc(slices.Clone(fresh), func(i int) bool {
		a := &answers[i]
		for _, j := range fresh {
			b := &answers[j]
			if a.Zone != b.Zone || a.Status == nil || b.Status == nil || *a.Status != *b.Status && (a.Status.Size != b.Status.Size || a.Status.Hash != b.Status.Hash) ||
				a.signed.IsZero() || b.signed.Sub(a.signed) <= tolerance || join(a.Versions) == join(b.Versions) && (a.Err == nil) == (b.Err == nil) {
				continue
			}
			a.Stale = fmt.Sprintf("at %d records it says %s, signed on %s; %s says %s, signed on %s: an old record is being replayed, or a cache is behind",
				a.Status.Size, or(join(a.Versions), "none"), stamp(a.signed), b.Source, or(join(b.Versions), "none"), stamp(b.signed))
			kind := EventStale
			if !a.uncached {
				kind = EventBehind
			}
			v.events = append(v.events, Event{Kind: kind, Source: a.Source, Text: a.Source + ": " + a.Stale, At: now})
			return true
		}
		return false
	})
}

// contradiction says how two fresh answers of one zone cannot both be right:
// at one log size there is one truth.
func contradiction(a, b SourceAnswer) string {
	if a.Zone != b.Zone || a.Status == nil || b.Status == nil || a.Status.Size != b.Status.Size {
		return ""
	}
	if a.Status.Hash != b.Status.Hash {
		return fmt.Sprintf("at %d records their logs have different hashes", a.Status.Size)
	}
	va, vb := join(a.Versions), join(b.Versions)
	if a.exact() && b.exact() && va != vb {
		return fmt.Sprintf("at %d records one says %s, the other %s, both validly signed", a.Status.Size, or(va, "none"), or(vb, "none"))
	}
	return ""
}

// exact reports whether the versions were read from the zone when its log had
// the size that the answer says. Parts from a cache can be of different times.
func (a SourceAnswer) exact() bool { return a.uncached }

func join(entries []name.Entry) string {
	var s []string
	for _, e := range entries {
		s = append(s, e.Version)
	}
	return strings.Join(s, " ")
}

// path is the way that an answer came. One server that is asked twice, as over
// UDP and over TCP, is one path: it would only agree with itself.
func (a SourceAnswer) path() string {
	if a.Server == "" {
		return a.Zone + " " + a.Source
	}
	return a.Zone + " " + pathOf(a.Server)
}

// pathOf is the machine of an address. On loopback each port is a server of its own.
func pathOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || loopback(addr) {
		return addr
	}
	return host
}

// paths counts the different paths of some sources.
func paths(answers []SourceAnswer, which []int) int {
	seen := map[string]bool{}
	for _, i := range which {
		seen[answers[i].path()] = true
	}
	return len(seen)
}

// agreed returns the highest version of each line that sources in the pool list
// over at least n different paths, in the order of the first that lists it, and the
// sources that list any of them. With lines nil every entry is its own line.
func agreed(answers []SourceAnswer, pool []int, n int, entries func(int) []name.Entry, lines func(string) string) (out []name.Entry, used []int) {
	lists := map[string][]int{}
	at := map[string]name.Entry{}
	var order []string
	for _, i := range pool {
		for _, e := range entries(i) {
			k := e.Kind + " " + e.Version
			old, ok := at[k]
			if !ok {
				order = append(order, k)
			}
			// The latest time of discovery counts: a false early one would cut the cooldown short.
			if !ok || e.Time.After(old.Time) {
				at[k] = e
			}
			lists[k] = append(lists[k], i)
		}
	}
	bestOf := map[string]string{}
	for _, k := range order {
		if paths(answers, lists[k]) < n {
			continue
		}
		l := k
		if lines != nil {
			l = line0(at[k].Version)
		}
		if b, ok := bestOf[l]; !ok || semver.Compare(at[k].Version, at[b].Version) > 0 {
			bestOf[l] = k
		}
	}
	for _, k := range order {
		l := k
		if lines != nil {
			l = line0(at[k].Version)
		}
		if bestOf[l] == k {
			out = append(out, at[k])
		}
	}
	if lines != nil {
		slices.SortStableFunc(out, func(a, b name.Entry) int { return semver.Compare(b.Version, a.Version) })
	}
	for _, i := range pool {
		if slices.ContainsFunc(entries(i), func(e name.Entry) bool {
			return slices.ContainsFunc(out, func(o name.Entry) bool { return o.Version == e.Version && o.Kind == e.Kind })
		}) {
			used = append(used, i)
		}
	}
	return out, used
}

// errorKind is the kind of event for a source's failure.
func errorKind(err error) string {
	var bogus *BogusError
	var insecure *InsecureError
	var malformed *malformedError
	switch {
	case errors.As(err, &bogus):
		return EventBogus
	case errors.As(err, &insecure):
		return EventInsecure
	case errors.As(err, &malformed):
		return EventMalformed
	}
	return EventUnreachable
}

// noneFresh is the error when no source has a fresh answer: the gravest first,
// since an attack matters more than a timeout beside it.
func noneFresh(answers []SourceAnswer) error {
	var errs, grave []error
	for _, a := range answers {
		err := a.Err
		if a.Stale != "" {
			err = fmt.Errorf("%w: %s: %s", ErrStale, a.Source, a.Stale)
		} else if err != nil && len(answers) > 1 {
			err = fmt.Errorf("%s: %w", a.Source, err)
		}
		if k := errorKind(err); k == EventBogus || k == EventInsecure {
			grave = append(grave, err)
		} else {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(grave, errs...)...)
}
