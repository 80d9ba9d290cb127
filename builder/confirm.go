package builder

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"example.org/upkeep/builder/spec"
)

// Records of verifiers are looked at after our own is logged where that was not
// done before: of those that only gave an opinion, and of those that ask back,
// which have none earlier.

// open reports whether the other side's record was not seen yet.
func (a Agreement) open() bool { return a.LogID < 0 }

// pending returns the keys of the verifiers whose records are to be looked at.
func (s *Service) pending(agreed []Agreement) []string {
	var keys []string
	for _, v := range s.verifiers {
		if v.asksBack || slices.ContainsFunc(agreed, func(a Agreement) bool { return a.open() && a.Key == v.text }) {
			keys = append(keys, v.text)
		}
	}
	return keys
}

// maxConfirms bounds how often a verifier is asked for its record; the pauses
// grow from a minute to seventeen hours.
const maxConfirms = 7

// confirm looks for the records that are pending. A verifier that does not
// answer is asked again later.
func (s *Service) confirm(ctx context.Context, out built, res Result) {
	pause := s.pause
	for asked := 1; ; asked++ {
		if res = s.confirmOnce(ctx, out, res); len(res.Pending) == 0 {
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

func (s *Service) confirmOnce(ctx context.Context, out built, res Result) Result {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.VerifyTimeout.D())
	defer cancel()
	agreed, pending := slices.Clone(res.Agreed), []string(nil)
	for _, v := range s.verifiers {
		if !slices.Contains(res.Pending, v.text) {
			continue
		}
		o := v.lookup(ctx, out.record.Spec).compare(out.record)
		switch {
		case o.differs:
			s.differs(ctx, v, out, o)
			continue
		case !o.same:
			pending = append(pending, v.text)
			if ctx.Err() == nil {
				s.logger.Warn("a verifier's log has no record of a build yet", "verifier", v.name, "spec", out.record.Spec.String(), "err", o.Error)
			}
			continue
		}
		s.logger.Info("a verifier has logged the same", "spec", out.record.Spec.String(), "verifier", v.name, "record", o.LogID)
		if i := slices.IndexFunc(agreed, func(a Agreement) bool { return a.Key == v.text }); i >= 0 {
			agreed[i].LogID = o.LogID
		} else {
			agreed = append(agreed, agreements([]opinion{o})...)
		}
	}
	if len(pending) == len(res.Pending) {
		return res
	}
	res.Agreed, res.Pending = agreed, pending
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
	return res
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
		s.background.Go(func() { s.confirm(ctx, out, res) })
	}
}
