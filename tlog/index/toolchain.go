package index

import (
	"bytes"
	"encoding/binary"
	"go/version"
	"sort"
	"strings"

	"go.etcd.io/bbolt"
)

// maxToolchains bounds the versions of Go that are kept.
const maxToolchains = 4096

type toolchainRecord struct{ time, record int64 }

// toolchainVersion returns the Go version in the pre-release text of a version
// of golang.org/toolchain ("go1.27.4.linux-amd64"), "" if there is none.
func toolchainVersion(pre []byte) string {
	i := bytes.LastIndexByte(pre, '.')
	if i < 0 {
		return ""
	}
	v := string(pre[:i])
	if !version.IsValid(v) || len(v) > 40 || version.Lang(v) == v && !strings.Contains(v, ".") {
		return ""
	}
	return v
}

// addToolchain notes the first record of a Go version.
func (s *Store) addToolchain(pre []byte, record, time int64) {
	v := toolchainVersion(pre)
	if v == "" || len(s.tools) >= maxToolchains {
		return
	}
	s.noteToolchain(v, toolchainRecord{time, record})
}

func (s *Store) noteToolchain(v string, t toolchainRecord) {
	if have, ok := s.tools[v]; !ok || t.record < have.record {
		s.tools[v] = t
	}
}

func mergeToolchains(b *bbolt.Bucket, sum *sum, tools map[string]toolchainRecord) error {
	for v, r := range tools {
		old := b.Get([]byte(v))
		if have, ok := decodeToolchain(old); ok && have.record <= r.record {
			continue
		}
		if old != nil {
			sum.remove([]byte(v), old)
		}
		value := binary.AppendVarint(binary.AppendVarint(nil, r.time), r.record)
		if err := sum.put(b, []byte(v), value); err != nil {
			return err
		}
	}
	return nil
}

func decodeToolchain(b []byte) (toolchainRecord, bool) {
	r := reader{b: b}
	t := toolchainRecord{r.varint(), r.varint()}
	return t, !r.bad
}

func readToolchains(b *bbolt.Bucket) ([]Toolchain, error) {
	var all []Toolchain
	err := b.ForEach(func(k, v []byte) error {
		r, ok := decodeToolchain(v)
		if !ok {
			return ErrCorrupt
		}
		all = append(all, Toolchain{Version: string(k), Time: r.time, Record: r.record})
		return nil
	})
	return selectToolchains(all), err
}

// selectToolchains returns the newest release (cur), the newest of the release
// line before it (prev), and a pre-release if it is newer (next).
func selectToolchains(all []Toolchain) []Toolchain {
	sort.Slice(all, func(i, j int) bool { return version.Compare(all[i].Version, all[j].Version) > 0 })
	var next, cur, prev *Toolchain
	for i := range all {
		t := &all[i]
		switch isRelease := !strings.Contains(t.Version, "rc") && !strings.Contains(t.Version, "beta"); {
		case !isRelease && cur == nil && next == nil:
			next = t
		case isRelease && cur == nil:
			cur = t
		case isRelease && prev == nil && version.Lang(t.Version) != version.Lang(cur.Version):
			prev = t
		}
	}
	var out []Toolchain
	for _, p := range []struct {
		t    *Toolchain
		kind string
	}{{cur, "cur"}, {prev, "prev"}, {next, "next"}} {
		if p.t != nil {
			p.t.Kind = p.kind
			out = append(out, *p.t)
		}
	}
	return out
}
