package index_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

var quiet = slog.New(slog.DiscardHandler)

// A victim is an index whose file gets damaged.
type victim struct {
	t      *testing.T
	file   string
	good   []byte
	client *tlog.Client
	head   tlog.TreeHead
	dumps  []string // of the states that it may be in: that which was stored last and, where that one's meta page is damaged, the one before
	final  string   // dump after following to head
	paths  []string
	truth  []index.Module // of each path
	hosts  []string
	counts struct{ refused, noticed, unharmed int }
}

// newVictim makes an index with all that there can be in it: a journal, events,
// toolchains, free pages and branch pages.
func newVictim(t *testing.T, size int64) *victim {
	content := small
	content.Duplicate, content.Malformed = 777, 500
	srv, url := serve(t, content, size)
	v := &victim{t: t, file: filepath.Join(t.TempDir(), "index.db"), client: client(t, srv, url)}
	opts := index.Options{MergeModules: 300, JournalPeriod: time.Nanosecond, Logger: quiet}
	s := open(t, v.file, opts)
	follow(t, s, v.client)
	if err := srv.SetSize(size + size/4); err != nil {
		t.Fatal(err)
	}
	follow(t, s, v.client)
	v.dumps = append(v.dumps, dump(t, s))
	if err := srv.SetSize(2 * size); err != nil {
		t.Fatal(err)
	}
	var err error
	if v.head, err = v.client.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.Follow(ctx, v.client, v.head, 1, func(done int64) {
		if done > size+size/2 {
			cancel()
		}
	}); err == nil {
		t.Fatal("following was not interrupted")
	}
	v.learn(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if v.good, err = os.ReadFile(v.file); err != nil {
		t.Fatal(err)
	}
	one := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{Logger: quiet})
	if err := one.Follow(t.Context(), v.client, v.head, 0, nil); err != nil {
		t.Fatal(err)
	}
	v.final = dump(t, one)
	return v
}

// learn asks an undamaged index for everything.
func (v *victim) learn(s *index.Store) {
	hosts := map[string]bool{}
	last := ""
	for line := range strings.Lines(dump(v.t, s)) {
		path, _, ok := strings.Cut(line, " v")
		if !ok || !strings.Contains(path, "/") || path == last {
			continue
		}
		last = path
		m, ok, err := s.Module(path)
		if err != nil || !ok {
			v.t.Fatal(path, ok, err)
		}
		v.paths, v.truth = append(v.paths, path), append(v.truth, m)
		if host := path[:strings.IndexByte(path, '/')]; !hosts[host] {
			hosts[host] = true
			v.hosts = append(v.hosts, host)
		}
	}
}

func equal(a, b index.Module) bool {
	same := func(a, b *index.Version) bool { return a == b || a != nil && b != nil && *a == *b }
	return a.Path == b.Path && slices.Equal(a.Majors, b.Majors) && slices.Equal(a.Minors, b.Minors) && same(a.Pre, b.Pre) && same(a.Pseudo, b.Pseudo)
}

// questions asks for everything and returns how many answers failed; none may be wrong.
func (v *victim) questions(s *index.Store, where string) (errs int) {
	wrong := func(err error, ok bool, what, name string) {
		switch {
		case err != nil && !errors.Is(err, index.ErrCorrupt):
			v.t.Fatalf("%s: %s %s: %v; want ErrCorrupt", where, what, name, err)
		case err != nil:
			errs++
		case !ok:
			v.t.Fatalf("%s: %s %s is gone or another", where, what, name)
		}
	}
	for i, path := range v.paths {
		m, ok, err := s.Module(path)
		wrong(err, ok && equal(m, v.truth[i]), "module", path)
		prefix := path[:strings.LastIndexByte(path, '/')]
		ok, err = s.IsPrefix(prefix)
		wrong(err, ok, "prefix", prefix)
	}
	for _, host := range v.hosts {
		ok, err := s.HostSuffix(host)
		wrong(err, ok, "host", host)
	}
	return errs
}

// try flips a bit of the file and wants the index to be refused, to fail, or to
// answer as if nothing had happened.
func (v *victim) try(at int, bit int) {
	t := v.t
	t.Helper()
	where := fmt.Sprintf("bit %d of byte %d (page %d, byte %d) flipped", bit, at, at/4096, at%4096)
	f, err := os.OpenFile(v.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{v.good[at] ^ 1<<bit}, int64(at)); err != nil {
		t.Fatal(err)
	}
	whole := false
	defer func() {
		if !whole { // then it was not written to
			if _, err := f.WriteAt(v.good[at:at+1], int64(at)); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := os.WriteFile(v.file, v.good, 0o644); err != nil {
			t.Fatal(err)
		}
	}()
	s, err := index.OpenUnverified(v.file, index.Options{Logger: quiet})
	if err != nil {
		if !errors.Is(err, index.ErrCorrupt) && !strings.Contains(err.Error(), "its format is") && !strings.Contains(err.Error(), "was made in mode") {
			t.Fatalf("%s: %v; want ErrCorrupt", where, err)
		}
		v.counts.refused++
		return
	}
	defer s.Close()
	errs := v.questions(s, where) // before anything is verified
	if err := s.Verify(); err != nil {
		if !errors.Is(err, index.ErrCorrupt) {
			t.Fatalf("%s: Verify: %v; want ErrCorrupt", where, err)
		}
		if _, _, err := s.Module(v.paths[0]); !errors.Is(err, index.ErrCorrupt) {
			t.Fatalf("%s: the index answers after damage was found: %v", where, err)
		}
		v.counts.noticed++
		return
	}
	if errs > 0 {
		t.Fatalf("%s: %d questions failed, and Verify finds nothing", where, errs)
	}
	var b bytes.Buffer
	if err := s.Dump(&b); err != nil || !slices.Contains(v.dumps, b.String()) {
		t.Fatalf("%s: nothing was noticed, and the dump differs: %v", where, err)
	}
	whole = true
	if v.counts.unharmed++; v.counts.unharmed%16 != 1 { // it takes its time
		return
	}
	if err := s.Follow(t.Context(), v.client, v.head, 0, nil); err != nil {
		t.Fatalf("%s: nothing was noticed, and following fails: %v", where, err)
	}
	if err := s.Verify(); err != nil {
		t.Fatalf("%s: nothing was noticed until something was written: %v", where, err)
	}
	if got := dump(t, s); got != v.final {
		t.Fatalf("%s: after following the dump differs: %s", where, difference(got, v.final))
	}
}

// Every bit of what bbolt keeps beside the data: meta pages, headers of all
// pages, branch pages, the list of free pages, and the page of buckets. Unless
// UPKEEP_TEST_LONG is set, every 5th of them.
func TestEveryFlippedBit(t *testing.T) {
	v := newVictim(t, 1600)
	step := 5
	if os.Getenv("UPKEEP_TEST_LONG") != "" {
		step = 1
	}
	kinds, free := map[uint16]int{}, freePages(v.good)
	n := 0
	for page := 0; page < len(v.good)/4096; page++ {
		b := v.good[page*4096 : (page+1)*4096]
		flags := binary.NativeEndian.Uint16(b[8:])
		if binary.NativeEndian.Uint64(b) != uint64(page) || free[uint64(page)] {
			continue // the continuation of another, or not in use
		}
		kinds[flags]++
		bytes := 16
		switch {
		case flags == 4:
			bytes = 80
		case flags != 2 || bytesContainBuckets(b):
			bytes = len(strings.TrimRight(string(b), "\x00"))
		}
		for bit := range bytes * 8 {
			if n++; n%step == 0 {
				v.try(page*4096+bit/8, bit%8)
			}
		}
	}
	for flags, name := range map[uint16]string{1: "branch", 2: "leaf", 4: "meta", 16: "free list"} {
		if kinds[flags] == 0 {
			t.Errorf("the file has no %s pages", name)
		}
	}
	t.Logf("of %d bits %d were refused at once, %d by the check, %d did no harm; pages by kind: %v", n/step, v.counts.refused, v.counts.noticed, v.counts.unharmed, kinds)
	if v.counts.refused == 0 || v.counts.noticed == 0 || v.counts.unharmed == 0 {
		t.Error("some kind of outcome was never met")
	}
}

// freePages returns the pages in the newest list of free pages.
func freePages(file []byte) map[uint64]bool {
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(file[at:]) }
	meta := 0
	if u64(4096+64) > u64(64) { // transactions
		meta = 4096
	}
	list := int(u64(meta+48)) * 4096
	free := map[uint64]bool{}
	for i := range int(binary.NativeEndian.Uint16(file[list+10:])) {
		free[u64(list+16+8*i)] = true
	}
	return free
}

func bytesContainBuckets(b []byte) bool { return bytes.Contains(b, []byte("toolchains")) }

// Any bit. The seed is printed when it fails; UPKEEP_TEST_LONG takes more.
func TestRandomFlippedBits(t *testing.T) {
	v := newVictim(t, 1600)
	rounds := 500
	if os.Getenv("UPKEEP_TEST_LONG") != "" {
		rounds = 20_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	used := len(bytes.TrimRight(v.good, "\x00"))
	for range rounds {
		v.try(random.IntN(used), random.IntN(8))
	}
	t.Logf("of %d bits %d were refused at once, %d by the check, %d did no harm", rounds, v.counts.refused, v.counts.noticed, v.counts.unharmed)
}

// A file that is no index of this kind is refused and left alone.
func TestRefused(t *testing.T) {
	srv, url := serve(t, small, 3000)
	dir := t.TempDir()
	file := filepath.Join(dir, "index.db")
	s := open(t, file, index.Options{})
	follow(t, s, client(t, srv, url))
	s.Close()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.db")
	if err := os.WriteFile(bad, good[:len(bytes.TrimRight(good, "\x00"))/2], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := index.Open(bad, index.Options{}); !errors.Is(err, index.ErrCorrupt) {
		t.Errorf("cut short: %v; want ErrCorrupt", err)
	}
	if _, err := index.Open(file, index.Options{Kind: index.Watching}); err == nil || !strings.Contains(err.Error(), `mode "follow"`) {
		t.Errorf("another mode: %v", err)
	}
	db, err := bbolt.Open(file, 0o644, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("upkeep index 9"))
	}); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := index.Open(file, index.Options{}); err == nil || !strings.Contains(err.Error(), `"upkeep index 9"`) {
		t.Errorf("another format: %v", err)
	}
	if err := os.WriteFile(bad, []byte("not a database"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := index.Open(bad, index.Options{}); !errors.Is(err, index.ErrCorrupt) {
		t.Errorf("no database: %v; want ErrCorrupt", err)
	}
	if now, _ := os.ReadFile(bad); string(now) != "not a database" {
		t.Error("a file that is no index was changed")
	}
}
