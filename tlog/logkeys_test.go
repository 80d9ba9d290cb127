package tlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// findAll returns the records that a table names for a key.
func findAll(t *testing.T, kt *keyTable, key string) map[int64]int64 {
	t.Helper()
	got := map[int64]int64{}
	err := kt.find(key, func(e keyEntry) (bool, error) {
		got[e.id] = e.offset
		return false, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The table finds every key after any number of doublings, also when all is
// added twice, in batches of any size.
func TestKeyTable(t *testing.T) {
	kt, err := newKeyTable(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer kt.close()
	const n = 20_000
	offset := func(id int64) int64 { return id*181 + id<<30 } // needs all of the slot
	var batch []keyEntry
	for id := range int64(n) {
		batch = append(batch, keyEntry{kt.hash(fmt.Sprint("key", id)), id, offset(id)})
		if rand.IntN(500) == 0 || id == n-1 {
			again := append([]keyEntry{}, batch...)
			if err := errors.Join(kt.add(batch), kt.add(again)); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
	}
	if kt.bits < 5 {
		t.Errorf("the table of %d keys has %d buckets", n, 1<<kt.bits)
	}
	slots := 0
	for b := range int64(1) << kt.bits {
		var buf [bucketSize]byte
		if _, err := kt.f.ReadAt(buf[:], b*bucketSize); err != nil {
			t.Fatal(err)
		}
		for i := range bucketSlots {
			if getSlot(buf[i*slotSize:(i+1)*slotSize]).id >= 0 {
				slots++
			}
		}
	}
	if slots != n {
		t.Errorf("%d slots are taken; want %d", slots, n)
	}
	for id := range int64(n) {
		if got := findAll(t, kt, fmt.Sprint("key", id)); got[id] != offset(id) {
			t.Fatalf("key %d: got %v", id, got)
		}
	}
}

func TestSlot(t *testing.T) {
	for _, e := range []keyEntry{{0, 0, 0}, {1<<32 - 1, 1<<40 - 2, 1<<56 - 1}, {7, 1 << 32, 1 << 33}, {7, 1<<32 - 2, 3}, {7, 1<<32 - 1, 3}} {
		var slot [slotSize]byte
		e.put(slot[:])
		if got := getSlot(slot[:]); got != e {
			t.Errorf("got %+v; want %+v", got, e)
		}
	}
	if got := getSlot(make([]byte, slotSize)); got.id != -1 {
		t.Errorf("a free slot is record %d", got.id)
	}
}

// Records whose keys have the same hash are told apart by the records.
func TestSameHash(t *testing.T) {
	signer, _, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(t.TempDir(), signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 40 {
		if _, err := l.Append(t.Context(), Entry{fmt.Sprint("key", i), fmt.Appendf(nil, "text %d\n", i)}); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock() // as if the hash of key 7 was that of another record, too, and of one behind the tree head
	hash := l.keys.hash("key7")
	place := findAll(t, l.keys, "key7")
	err = errors.Join(l.keys.f.Truncate(0), l.keys.f.Truncate(bucketSize),
		l.keys.add([]keyEntry{{hash, 3, l.records.marks[0]}, {hash, 1000, 1 << 40}}), l.keys.add([]keyEntry{{hash, 7, place[7]}}))
	l.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := l.Find("key7"); !ok || id != 7 {
		t.Errorf("found %d, %v", id, ok)
	}
}

// When the table can't be read, keys count as unknown for readers, and nothing
// is appended: a key could get a second record.
func TestKeyTableUnreadable(t *testing.T) {
	signer, _, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := OpenLog(dir, signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Append(t.Context(), Entry{"key", []byte("text\n")}); err != nil {
		t.Fatal(err)
	}
	if err := l.keys.f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Find("key"); ok {
		t.Error("a key was found in a table that is not there")
	}
	if _, err := l.Append(t.Context(), Entry{"key", []byte("another text\n")}); err == nil || !strings.Contains(err.Error(), "table of keys") || errors.Is(err, ErrKeyExists) {
		t.Errorf("append: %v", err)
	}
	if size := l.Head().Size; size != 1 {
		t.Errorf("the log has %d records", size)
	}
	l.Close()
	// The next start makes it anew, whatever lies there.
	if err := os.WriteFile(filepath.Join(dir, "keys-1"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLog(dir, signer, LogOptions{}); err != nil {
		t.Fatal(err)
	}
	if id, ok := l.Find("key"); !ok || id != 0 {
		t.Errorf("found %d, %v", id, ok)
	}
	l.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, keysPattern)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Readers find every key that was appended while the table grows.
func TestFindWhileGrowing(t *testing.T) {
	signer, _, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(t.TempDir(), signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				size := l.Head().Size
				if size == 0 {
					continue
				}
				want := rand.Int64N(size)
				key := fmt.Sprint("key", want)
				if id, ok := l.Find(key); !ok || id != want {
					t.Errorf("%s: found %d, %v", key, id, ok)
					return
				}
				if text, err := l.Record(want); err != nil || string(text) != fmt.Sprintf("text %d\n", want) {
					t.Errorf("record %d: %q, %v", want, text, err)
					return
				}
			}
		})
	}
	next := 0
	for range 40 {
		var entries []Entry
		for range 1 + rand.IntN(100) {
			entries = append(entries, Entry{fmt.Sprint("key", next), fmt.Appendf(nil, "text %d\n", next)})
			next++
		}
		if _, err := l.Append(t.Context(), entries...); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
}

// CheckLog passes a good log, also one that grows meanwhile, and names every
// kind of damage.
func TestCheckLog(t *testing.T) {
	signer, verifier, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := OpenLog(dir, signer, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check := func() (problems []string, err error) {
		n := int64(0)
		head, err := CheckLog(t.Context(), dir, verifier, func(id int64, e Entry) error {
			if id != n || e.Key != fmt.Sprint("key", id) {
				t.Errorf("record %d is %d with key %s", n, id, e.Key)
			}
			n++
			return nil
		}, func(s string) { problems = append(problems, s) })
		if err == nil && len(problems) == 0 && n != head.Size {
			t.Errorf("%d records of %d", n, head.Size)
		}
		return problems, err
	}
	if p, err := check(); err != nil || len(p) > 0 {
		t.Fatalf("an empty log: %q, %v", p, err)
	}
	var entries []Entry
	for i := range 700 {
		entries = append(entries, Entry{fmt.Sprint("key", i), fmt.Appendf(nil, "text %d\n", i)})
	}
	if _, err := l.Append(t.Context(), entries[:600]...); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(dir, "latest"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entries[600:]...); err != nil {
		t.Fatal(err)
	}
	if p, err := check(); err != nil || len(p) > 0 {
		t.Fatalf("a good log: %q, %v", p, err)
	}
	for _, tc := range []struct {
		name, file string
		change     func([]byte) []byte
		problem    string
	}{
		{"older head", "latest", func([]byte) []byte { return old }, ""},
		{"flipped bit in a record", "records", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "can't be read"},
		{"cut records", "records", func(b []byte) []byte { return b[:len(b)-1] }, "record 699 can't be read"},
		{"records of another log", "records", func(b []byte) []byte {
			return append(appendFrame(nil, Entry{"key0", []byte("text x\n")}), b[len(appendFrame(nil, entries[0])):]...)
		}, "don't give the hash"},
		{"tile", "tile/8/0/001", func(b []byte) []byte { b[0] ^= 1; return b }, "tile/8/0/001 is not what"},
		{"missing tile", "tile/8/data/000", func(b []byte) []byte { return nil }, "tile/8/data/000"},
	} {
		name := filepath.Join(dir, filepath.FromSlash(tc.file))
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := tc.change(append([]byte{}, good...))
		err = os.Remove(name)
		if bad != nil {
			err = os.WriteFile(name, bad, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := check()
		if err != nil || (tc.problem == "") != (len(p) == 0) || tc.problem != "" && !strings.Contains(p[0], tc.problem) {
			t.Errorf("%s: %q, %v", tc.name, p, err)
		}
		if err := os.WriteFile(name, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, other, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckLog(t.Context(), dir, other, nil, nil); !errors.Is(err, ErrSignature) {
		t.Errorf("with another key: %v", err)
	}
	l.Close()
}

// A log whose tree head is lost is not signed anew: its records may be fewer
// than others have seen.
func TestLostHead(t *testing.T) {
	signer, _, err := GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		records int
		change  func(dir string) error
		refused string
	}{
		{"never used", 0, func(string) error { return nil }, ""},
		{"head", 3, func(string) error { return nil }, "file records is there"},
		{"head, and half of the first record", 1, func(dir string) error { return os.Truncate(filepath.Join(dir, "records"), 5) }, "file records is there"},
		{"head and records", 300, func(dir string) error { return os.Remove(filepath.Join(dir, "records")) }, "tile tile/8/data/000 is there"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := OpenLog(dir, signer, LogOptions{})
			if err != nil {
				t.Fatal(err)
			}
			entries := make([]Entry, tc.records)
			for i := range entries {
				entries[i] = Entry{fmt.Sprint("key", i), fmt.Appendf(nil, "text %d\n", i)}
			}
			if tc.records > 0 {
				if _, err := l.Append(t.Context(), entries...); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(l.Close(), os.Remove(filepath.Join(dir, "latest")), tc.change(dir)); err != nil {
				t.Fatal(err)
			}
			l, err = OpenLog(dir, signer, LogOptions{})
			if err == nil {
				l.Close()
			}
			if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
				t.Errorf("%v; want %q", err, tc.refused)
			}
			if _, err := os.Stat(filepath.Join(dir, "latest")); (err == nil) != (tc.refused == "") {
				t.Errorf("a head: %v", err)
			}
		})
	}
}
