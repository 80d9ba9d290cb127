package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

// An Audit follows another builder's log and builds what it records again.
type Audit struct {
	Log      *tlog.Client
	Service  *Service // builds; its own log records the results
	File     string   // keeps how far the log was audited
	Sample   float64  // part of the records that are built, 0 to 1
	FromNow  bool     // at the first start, skip the records that are there
	Interval time.Duration
	Once     bool // return at the log's tree head
	HTTP     *http.Client
	Report   func(Finding)
}

// A Finding is what the audit says of one record.
type Finding struct {
	ID     int64
	Record spec.Record
	Same   bool
	Ours   string   // our sum, "" when it could not be built
	Error  string   // why it could not be built
	Diff   []string // in what the binaries differ
}

// Differs reports whether the record is wrong, or ours is.
func (f Finding) Differs() bool { return !f.Same && f.Ours != "" }

// chosen decides whether a record is in the sample: by its content, so that
// nobody who logs it can know without knowing the salt, and a restart decides
// the same.
func chosen(salt []byte, id int64, sample float64) bool {
	if sample >= 1 {
		return true
	}
	h := sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte{}, salt...), uint64(id)))
	return float64(binary.BigEndian.Uint64(h[:8])>>11)/(1<<53) < sample
}

// audited is the content of Audit.File.
type audited struct {
	Edge    tlog.Edge
	Salt    []byte
	Unknown []unknownRecord `json:",omitempty"`
}

// An unknownRecord could not be built, and is tried again: the reason may have
// been the network's or ours.
type unknownRecord struct {
	ID    int64
	Text  []byte
	Tries int
	Next  time.Time
}

const (
	maxUnknown      = 10_000
	unknownPause    = time.Hour // doubled after each try
	maxUnknownPause = 7 * 24 * time.Hour
)

// due reports whether it is time for another try.
func (u unknownRecord) due(now time.Time) bool { return !now.Before(u.Next) }

// failed returns the record with the time of its next try.
func (u unknownRecord) failed(now time.Time) unknownRecord {
	u.Next = now.Add(min(unknownPause<<min(u.Tries, 20), maxUnknownPause))
	u.Tries++
	return u
}

// Run audits until ctx ends, or with Once until the log's tree head.
func (a *Audit) Run(ctx context.Context, salt func() ([]byte, error)) error {
	var st audited
	data, err := os.ReadFile(a.File)
	first := errors.Is(err, fs.ErrNotExist)
	switch {
	case first:
		if st.Salt, err = salt(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("reading how far the log was audited: %w", err)
	default:
		if err := json.Unmarshal(data, &st); err != nil {
			return fmt.Errorf("reading how far the log was audited, from %s: %w", a.File, err)
		}
	}
	skip := first && a.FromNow
	for {
		err := a.round(ctx, &st, skip)
		skip = skip && err != nil
		if a.Once || ctx.Err() != nil {
			return err
		}
		var fork *tlog.ForkError
		if errors.As(err, &fork) || errors.Is(err, tlog.ErrSignature) {
			return err
		}
		if err != nil {
			a.Service.logger.Warn("auditing", "log", a.Log.Name(), "err", err)
		}
		select {
		case <-time.After(a.Interval):
		case <-ctx.Done():
			return nil
		}
	}
}

// save writes down how far the audit is.
func (a *Audit) save(st *audited) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return durable.WriteFile(a.File, data, 0o644)
}

// again builds what could not be built before. With Once it does not wait for
// the time to come: nobody may start it again then.
func (a *Audit) again(ctx context.Context, st *audited) error {
	for i := 0; i < len(st.Unknown); {
		u := st.Unknown[i]
		now := time.Now()
		if !a.Once && !u.due(now) {
			i++
			continue
		}
		if rec, err := spec.ParseRecord(u.Text); err == nil {
			if err := a.Service.Forget(rec.Spec); err != nil {
				return err
			}
		}
		known, err := a.record(ctx, u.ID, u.Text)
		if err != nil {
			return err
		}
		if known {
			st.Unknown = slices.Delete(st.Unknown, i, i+1)
		} else {
			st.Unknown[i] = u.failed(now)
			i++
		}
		if err := a.save(st); err != nil {
			return err
		}
	}
	return nil
}

func (a *Audit) round(ctx context.Context, st *audited, skip bool) error {
	if err := a.again(ctx, st); err != nil {
		return err
	}
	head, err := a.Log.Update(ctx)
	if err != nil {
		return err
	}
	cfg := tlog.FollowConfig{Client: a.Log, From: st.Edge, To: head}
	return tlog.Follow(ctx, cfg, func(*tlog.Tile, *struct{}) {}, func(t *tlog.Tile, _ *struct{}, edge *tlog.Edge) error {
		for i, text := range t.Records {
			id := t.First + int64(i)
			if skip || !chosen(st.Salt, id, a.Sample) {
				continue
			}
			known, err := a.record(ctx, id, text)
			if err != nil {
				return err
			}
			u := unknownRecord{ID: id, Text: bytes.Clone(text)}
			if !known && !slices.ContainsFunc(st.Unknown, func(o unknownRecord) bool { return o.ID == id }) {
				if len(st.Unknown) == maxUnknown {
					st.Unknown = st.Unknown[1:]
				}
				st.Unknown = append(st.Unknown, u.failed(time.Now()))
			}
		}
		st.Edge = edge.Clone()
		return a.save(st)
	})
}

// record builds one record again and reports whether that gave an answer. Its
// error ends the round, not the audit.
func (a *Audit) record(ctx context.Context, id int64, text []byte) (known bool, err error) {
	rec, err := spec.ParseRecord(text)
	if err != nil {
		a.Report(Finding{ID: id, Error: "The log holds what is no record: " + printable(err.Error())})
		return true, nil
	}
	f := Finding{ID: id, Record: rec}
	res, err := a.Service.Watch(ctx, rec.Spec, "audit", nil)
	if err != nil {
		return false, err
	}
	switch {
	case res.State != StateSuccess:
		f.Error = res.Error
	case res.Sum == rec.Sum && res.Size == rec.Size:
		f.Same, f.Ours = true, res.Sum
	default:
		f.Ours = res.Sum
		if f.Diff, err = a.Service.diff(ctx, a.HTTP, strings.TrimSuffix(a.Log.URL(), "/tlog"), rec, res.SHA256, res.Size); err != nil {
			f.Diff = []string{"The other binary can't be compared: " + printable(err.Error())}
		}
		a.Service.alarm(alarmDiffers, fmt.Sprintf("The log %s records %s with the sum %s; here it has the sum %s.", a.Log.Name(), rec.Spec, rec.Sum, res.Sum))
	}
	a.Report(f)
	return f.Ours != "", nil
}
