package tlog

import (
	"bytes"
	"testing"

	ct "golang.org/x/mod/sumdb/tlog"
)

// What is read from a data tile is what the tile is made of, and hashes as it should.
func FuzzTile(f *testing.F) {
	f.Add([]byte("a\n\nb\nc\n\n"), 2)
	f.Add([]byte("a\n\nb\nc\n\nd\n\n"), 2)
	f.Add([]byte("\n\n\n"), 1)
	f.Add([]byte("a\n"), 1)
	f.Add(bytes.Repeat([]byte("x\n\n"), 256), 256)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		n = min(max(n, 1), tileWidth)
		var d tileData
		d.set(data)
		err := d.parse(n)
		if !bytes.Equal(d.buf[1:], data) {
			t.Fatal("the tile was changed")
		}
		if err != nil {
			return
		}
		var again []byte
		var e Edge
		for i, r := range d.records {
			again = append(append(again, r...), '\n')
			if len(r) == 0 || r[len(r)-1] != '\n' || bytes.Contains(r, []byte("\n\n")) || d.leaves[i] != ct.RecordHash(r) {
				t.Fatalf("record %d is %q", i, r)
			}
			e.Add(d.leaves[i])
		}
		if len(d.records) != n || !bytes.Equal(again, d.bytes()) || !bytes.HasPrefix(data, again) {
			t.Fatalf("%d records make %q of %q", len(d.records), again, data)
		}
		if n == tileWidth && (d.root != e.Root() || len(again) != len(data)) {
			t.Fatal("the root is wrong")
		}
	})
}

// A kept tree head reads back as it was written; nothing else is read as one.
func FuzzState(f *testing.F) {
	signer, v, err := openSignerVerifier(newKey(f))
	if err != nil {
		f.Fatal(err)
	}
	h, err := signHead(ct.Tree{N: 0, Hash: emptyHash}, signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(formatKept(kept{TreeHead: h, before: []ct.Tree{{N: 7}}}))
	f.Add([]byte(keptPrefix + "2026-01-01T00:00:00Z\nbefore 1 x\n\nnote"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseKept(data, v)
		if err != nil {
			return
		}
		back, err := parseKept(formatKept(k), v)
		if err != nil || back.Size != k.Size || len(back.before) != len(k.before) || !back.Accepted.Equal(k.Accepted) {
			t.Fatalf("%+v was read back as %+v, %v", k, back, err)
		}
	})
}

// The frames of a log's file: what is read was written, whatever else is in the file.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, Entry{"k", []byte("t\n")}), Entry{"", nil}))
	f.Add([]byte("\xff\xff\xff\xff0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var again []byte
		for {
			e, _, err := readFrame(r)
			if err != nil {
				break
			}
			again = appendFrame(again, e)
		}
		if !bytes.HasPrefix(data, again) {
			t.Fatalf("frames read from %x are %x", data, again)
		}
	})
}
