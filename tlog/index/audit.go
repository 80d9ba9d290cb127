package index

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"example.org/upkeep/tlog"
)

// An Audited version has more than one record.
type Audited struct {
	Module, Version string
	Records         []AuditedRecord // the first ones, in the order of the log
	Count           int64           // of all
	Differ          bool            // some have different hashes, which an honest log never shows
}

// An AuditedRecord is one record of a version.
type AuditedRecord struct {
	Number     int64
	Zip, GoMod string // hashes
}

// An Audit is what reading all of a log for versions with several records told.
type Audit struct {
	Records   int64     // read, all proven to be under the tree head
	Malformed int64     // not two well-formed lines of one module
	Versions  []Audited // in the order of their first records
	More      bool      // there are more versions than were kept
}

// Differ returns how many of the versions have records that differ.
func (a *Audit) Differ() (n int) {
	for _, v := range a.Versions {
		if v.Differ {
			n++
		}
	}
	return n
}

// Bounds of an audit, whatever the log holds.
const (
	auditPrints   = 128 << 20 // kept in memory at once, of 8 bytes; of a larger log the versions are looked at part by part
	auditVersions = 10_000
	auditRecords  = 8 // of one version
)

// An Auditor reads a whole log and finds every version that has more than one
// record. (An index notices that only while it holds the version.)
//
// It keeps a short hash of each module and version, sorts them, and reads the
// log a second time if two are equal. Each record takes 8 bytes of memory.
type Auditor struct {
	Client   *tlog.Client
	Head     tlog.TreeHead // accepted by the client
	Parallel int           // as for [tlog.Follow]
	Progress func(pass string, done int64)

	prints int // instead of auditPrints, for tests
}

// tilePrints are the hashes of the versions in a tile, 0 for a malformed record.
type tilePrints []uint64

// Run reads the log.
func (a Auditor) Run(ctx context.Context) (*Audit, error) {
	if a.prints == 0 {
		a.prints = auditPrints
	}
	parts := 1 + uint64(a.Head.Size)/uint64(a.prints)
	var result Audit
	var again []uint64
	for part := range parts {
		result.Malformed = 0
		prints := make([]uint64, 0, min(a.Head.Size, int64(float64(a.prints)*1.01)))
		useHugePages(prints)
		err := a.read(ctx, fmt.Sprintf("hashes, part %d of %d", part+1, parts), func(_ *tlog.Tile, t tilePrints) {
			for _, h := range t {
				switch {
				case h == 0:
					result.Malformed++
				case partOf(h, parts) == part:
					prints = append(prints, h)
				}
			}
		})
		if err != nil {
			return nil, err
		}
		slices.Sort(prints)
		for i, h := range prints {
			if i > 0 && h == prints[i-1] && (len(again) == 0 || again[len(again)-1] != h) {
				if len(again) == auditVersions {
					result.More = true
					break
				}
				again = append(again, h)
			}
		}
	}
	result.Records = a.Head.Size
	if len(again) == 0 {
		return &result, nil
	}
	slices.Sort(again)
	found := map[string]*Audited{}
	err := a.read(ctx, "records", func(tile *tlog.Tile, t tilePrints) {
		for i, h := range t {
			if _, ok := slices.BinarySearch(again, h); ok {
				note(found, tile.First+int64(i), tile.Records[i])
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, v := range found {
		if v.Count > 1 { // else its hash is that of another
			result.Versions = append(result.Versions, *v)
		}
	}
	slices.SortFunc(result.Versions, func(a, b Audited) int { return int(a.Records[0].Number - b.Records[0].Number) })
	return &result, nil
}

// read reads the whole log, tile by tile.
func (a Auditor) read(ctx context.Context, pass string, each func(*tlog.Tile, tilePrints)) error {
	prepare := func(t *tlog.Tile, prints *tilePrints) {
		*prints = (*prints)[:0]
		var r rec
		for _, text := range t.Records {
			h := uint64(0)
			if parseRecord(text, &r) && validPath(r.path) {
				h = versionPrint(text)
			}
			*prints = append(*prints, h)
		}
	}
	err := tlog.Follow(ctx, tlog.FollowConfig{Client: a.Client, To: a.Head, Parallel: a.Parallel}, prepare,
		func(t *tlog.Tile, prints *tilePrints, edge *tlog.Edge) error {
			each(t, *prints)
			if a.Progress != nil {
				a.Progress(pass, edge.Size)
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("auditing log %s: %w", a.Client.Name(), err)
	}
	return nil
}

// versionPrint hashes the module and version of a well-formed record, never to 0.
func versionPrint(record []byte) uint64 {
	version, _, _ := bytes.Cut(record, []byte(" h1:"))
	return maphash.Bytes(seed, version) | 1
}

// partOf says which part of the versions a hash belongs to. Its lowest bit is
// always set.
func partOf(h, parts uint64) uint64 { return h >> 1 % parts }

// note adds a well-formed record to those of its version.
func note(found map[string]*Audited, number int64, record []byte) {
	first, second, _ := strings.Cut(strings.TrimSuffix(string(record), "\n"), "\n")
	f := strings.Fields(first)
	path, version, zip := f[0], f[1], f[2]
	v := found[path+" "+version]
	if v == nil {
		v = &Audited{Module: path, Version: version}
		found[path+" "+version] = v
	}
	r := AuditedRecord{number, zip, second[strings.LastIndexByte(second, ' ')+1:]}
	if v.Count++; v.Count > 1 {
		v.Differ = v.Differ || r.Zip != v.Records[0].Zip || r.GoMod != v.Records[0].GoMod
	}
	if len(v.Records) < auditRecords {
		v.Records = append(v.Records, r)
	}
}
