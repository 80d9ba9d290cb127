package builder

import (
	"context"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"example.org/upkeep/builder/spec"
)

// Records of verifiers are looked at after our own is logged where that was not
// done before: of those that only gave an opinion, of those that did not answer
// or not before enough others had, and of those that ask back, which have none
// earlier.

// pending returns the keys of the verifiers whose records are to be looked at,
// after they have said this.
func (s *Service) pending(opinions []opinion) []string {
	var keys []string
	for _, v := range s.verifiers {
		if !slices.ContainsFunc(opinions, func(o opinion) bool { return o.key == v.text && (o.differs || o.same && o.LogID >= 0) }) {
			keys = append(keys, v.text)
		}
	}
	return keys
}

// maxConfirms bounds how often a verifier is asked for its record; the pauses
// grow from a minute to seventeen hours.
const maxConfirms = 7

// hurry is how long verifiers have when there is no time for asking again.
const hurry = time.Minute

// confirmLater looks for the records that are pending. A verifier can be silent
// for a day: when that is so for too many builds already, all are asked once and
// not for long.
func (s *Service) confirmLater(ctx context.Context, out built, res Result) {
	if inBackground(&s.background, s.confirming, func() { s.confirm(ctx, out, res) }) {
		return
	}
	tooMany := func() {
		s.logger.Error("too many builds wait for verifiers' records; those of this one are not asked for before the next start", "spec", res.Spec.String(), "verifiers", res.Pending)
	}
	if !inBackground(&s.background, s.hurrying, func() {
		if res = s.confirmOnce(ctx, min(hurry, s.cfg.VerifyTimeout.D()), out, res); len(res.Pending) > 0 {
			tooMany()
		}
	}) {
		tooMany()
	}
}

// inBackground runs f if there is a place for it.
func inBackground(wg *sync.WaitGroup, places chan struct{}, f func()) bool {
	select {
	case places <- struct{}{}:
	default:
		return false
	}
	wg.Go(func() {
		defer func() { <-places }()
		f()
	})
	return true
}

// confirm looks for the records that are pending. A verifier that does not
// answer is asked again later.
func (s *Service) confirm(ctx context.Context, out built, res Result) {
	pause := s.pause
	for asked := 1; ; asked++ {
		if res = s.confirmOnce(ctx, s.cfg.VerifyTimeout.D(), out, res); len(res.Pending) == 0 {
			return
		}
		if asked == maxConfirms {
			break
		}
		select {
		case <-ctx.Done():
			return // the next start goes on
		case <-time.After(pause):
		}
		pause *= 4
	}
	s.logger.Error("verifiers have no record of a build; the next start asks again", "spec", out.record.Spec.String(), "verifiers", res.Pending)
}

// confirmOnce asks all whose records are pending; each answer counts at once,
// whatever the others do.
func (s *Service) confirmOnce(serving context.Context, patience time.Duration, out built, res Result) Result {
	ctx, cancel := context.WithTimeout(serving, patience)
	defer cancel()
	var list []*verifier
	for _, v := range s.verifiers {
		if slices.Contains(res.Pending, v.text) {
			list = append(list, v)
		}
	}
	answers := askAll(list, func(v *verifier) opinion { return v.lookup(ctx, out.record.Spec).compare(out.record) })
	for range list {
		a := <-answers
		if !a.same && !a.differs {
			if ctx.Err() == nil {
				s.logger.Warn("a verifier's log has no record of a build yet", "verifier", a.name, "spec", out.record.Spec.String(), "err", a.Error)
			}
			continue
		}
		if a.differs {
			s.differs(serving, a.verifier, out, a.opinion)
		} else {
			s.logger.Info("a verifier has logged the same", "spec", out.record.Spec.String(), "verifier", a.name, "record", a.LogID)
		}
		res = res.confirmed(a.opinion)
		s.keepConfirmed(res)
	}
	if len(list) == 0 { // none of them is a verifier any more
		res.Pending = nil
		s.keepConfirmed(res)
	}
	return res
}

// confirmed returns the result with what a verifier's log says.
func (r Result) confirmed(o opinion) Result {
	r.Pending = slices.DeleteFunc(slices.Clone(r.Pending), func(key string) bool { return key == o.key })
	r.Agreed = slices.Clone(r.Agreed)
	if !o.same {
		return r
	}
	if i := slices.IndexFunc(r.Agreed, func(a Agreement) bool { return a.Key == o.key }); i >= 0 {
		r.Agreed[i].LogID = o.LogID
	} else {
		r.Agreed = append(r.Agreed, agreements([]opinion{o})...)
	}
	return r
}

func (s *Service) keepConfirmed(res Result) {
	if err := s.results.saveResult(res); err != nil {
		s.logger.Error("keeping a result", "spec", res.Spec.String(), "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.recent {
		if r.Spec == res.Spec && r.LogID == res.LogID {
			s.recent[i].Agreed, s.recent[i].Pending = res.Agreed, res.Pending
		}
	}
}

// confirmRecent goes on with what an earlier process did not end.
func (s *Service) confirmRecent(ctx context.Context) {
	s.mu.Lock()
	recent := slices.Clone(s.recent)
	s.mu.Unlock()
	for _, res := range recent {
		sum, err := hex.DecodeString(res.SHA256)
		if res.State != StateSuccess || len(res.Pending) == 0 || err != nil || len(sum) != 32 {
			continue
		}
		out := built{record: spec.Record{Spec: res.Spec, Size: res.Size, Sum: res.Sum}, sha256: [32]byte(sum), toolchain: res.Toolchain}
		s.confirmLater(ctx, out, res)
	}
}
