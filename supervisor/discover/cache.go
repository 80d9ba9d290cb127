package discover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// A cache is a folder that the supervisors of one host share. It holds messages
// as received: whoever reads them validates them, so another user's files are
// worth as much as packets from the network.
type cache struct{ dir string }

const (
	maxCacheFile  = 256 << 10
	maxCacheFiles = 1000
)

type cached struct {
	At       time.Time         `json:"at"`
	Server   string            `json:"server"`
	Via      string            `json:"via"`
	Messages map[string][]byte `json:"messages"` // by "name type"
}

func (q question) key() string { return q.name + " " + typeName(q.typ) }

func (c cache) file(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+".json")
}

// load returns those messages of a file whose TTL is not over.
func (c cache) load(now time.Time, parts ...string) map[question]result {
	if c.dir == "" {
		return nil
	}
	file := c.file(parts...)
	if fi, err := os.Lstat(file); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxCacheFile {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCacheFile))
	var got cached
	if err != nil || json.Unmarshal(data, &got) != nil || got.At.After(now) {
		return nil
	}
	age := now.Sub(got.At)
	out := map[question]result{}
	for key, wire := range got.Messages {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil || len(m.Question) != 1 {
			continue
		}
		q := question{dns.CanonicalName(m.Question[0].Name), m.Question[0].Qtype}
		if q.key() != key || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError || age >= lowestTTL(m) {
			continue
		}
		lowerTTL(m, age)
		out[q] = result{reply: reply{msg: m, server: got.Server, via: got.Via + ", kept"}}
	}
	return out
}

// store keeps messages that were validated. Failing to is no failure.
func (c cache) store(now time.Time, messages map[question]result, parts ...string) {
	if c.dir == "" || len(messages) == 0 {
		return
	}
	v := cached{At: now, Messages: map[string][]byte{}}
	for q, r := range messages {
		if r.err != nil || r.msg == nil {
			continue
		}
		wire, err := r.msg.Pack()
		if err != nil {
			return
		}
		v.Server, v.Via = r.server, r.via
		v.Messages[q.key()] = wire
	}
	data, err := json.Marshal(v)
	if err != nil || len(data) > maxCacheFile {
		return
	}
	if entries, err := os.ReadDir(c.dir); err != nil || len(entries) >= maxCacheFiles {
		c.prune(now, entries)
	}
	f, err := os.CreateTemp(c.dir, "new-*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	f.Chmod(0o644)
	if f.Close(); err == nil {
		err = os.Rename(f.Name(), c.file(parts...))
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

// prune removes files that nobody has written for a day.
func (c cache) prune(now time.Time, entries []os.DirEntry) {
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && now.Sub(fi.ModTime()) > maxTTL {
			os.Remove(filepath.Join(c.dir, e.Name()))
		}
	}
}

func lowestTTL(m *dns.Msg) time.Duration {
	low := maxTTL
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, r := range section {
			low = min(low, time.Duration(r.Header().Ttl)*time.Second)
		}
	}
	if len(m.Answer)+len(m.Ns) == 0 {
		return 0
	}
	return low
}

func lowerTTL(m *dns.Msg, age time.Duration) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, r := range section {
			h := r.Header()
			h.Ttl -= min(uint32(age/time.Second), h.Ttl)
		}
	}
}
