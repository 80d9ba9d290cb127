package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

type value struct {
	N    int
	Text string
}

func TestSaveLoad(t *testing.T) {
	f := File[value]{filepath.Join(t.TempDir(), "state"), RealDisk{}}
	if v, found, err := f.Load(); found || err != nil || v != (value{}) {
		t.Fatalf("empty folder: %v %v %v", v, found, err)
	}
	for n := range 3 {
		want := value{n, "text"}
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
		if v, found, err := f.Load(); !found || err != nil || v != want {
			t.Fatalf("loaded %v %v %v; want %v", v, found, err, want)
		}
	}
	// The copy is the value before.
	if v, err := read[value](f.Name + ".prev"); err != nil || v.N != 1 {
		t.Errorf("copy %v, %v", v, err)
	}
}

// Whatever byte of the file is lost or changed, the copy is used and the
// damage is said.
func TestDamage(t *testing.T) {
	f := File[value]{filepath.Join(t.TempDir(), "state"), RealDisk{}}
	if err := errors.Join(f.Save(value{1, "one"}), f.Save(value{2, "two"})); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.Name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(f.Name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		v, found, err := f.Load()
		var damaged *DamagedError
		if !found || v.N != 1 || !errors.As(err, &damaged) || damaged.Used != f.Name+".prev" {
			t.Errorf("%s: %v %v %v; want the copy and a DamagedError", what, v, found, err)
		}
		if bad, err := os.ReadFile(f.Name + ".bad"); err != nil || !bytes.Equal(bad, data) {
			t.Errorf("%s: the damaged file isn't kept: %v", what, err)
		}
	}
	for i := range good {
		check(fmt.Sprintf("cut at %d", i), good[:i])
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		check(fmt.Sprintf("bit of byte %d", i), bad)
	}
	// A crash between the renames is no damage.
	_ = os.Remove(f.Name)
	if v, found, err := f.Load(); !found || err != nil || v.N != 1 {
		t.Errorf("only the copy: %v %v %v", v, found, err)
	}
	for _, name := range []string{f.Name, f.Name + ".prev"} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if v, found, err := f.Load(); found || err == nil || v != (value{}) {
		t.Errorf("both damaged: %v %v %v", v, found, err)
	}
}

type fullDisk struct{ RealDisk }

func (fullDisk) WriteFile(name string, _ []byte, _ fs.FileMode) error {
	return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
}

// A write that fails leaves what was there.
func TestFullDisk(t *testing.T) {
	f := File[value]{filepath.Join(t.TempDir(), "state"), RealDisk{}}
	if err := f.Save(value{1, "one"}); err != nil {
		t.Fatal(err)
	}
	full := File[value]{f.Name, fullDisk{}}
	for range 3 {
		if err := full.Save(value{2, "two"}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("saved on a full disk: %v", err)
		}
	}
	if v, found, err := f.Load(); !found || err != nil || v.N != 1 {
		t.Errorf("loaded %v %v %v; want the value before", v, found, err)
	}
}

func TestHistory(t *testing.T) {
	h := History[value]{filepath.Join(t.TempDir(), "history")}
	if all, err := h.Last(5); err != nil || len(all) != 0 {
		t.Fatalf("no file: %v %v", all, err)
	}
	for n := range 10 {
		if err := h.Append(value{n, "text"}); err != nil {
			t.Fatal(err)
		}
		if n == 4 {
			// A crash in the middle of a write.
			data, err := os.ReadFile(h.Name)
			if err == nil {
				err = os.WriteFile(h.Name, append(data, `{"N":99,"Te`...), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := h.Last(7)
	if err != nil || len(all) != 7 {
		t.Fatalf("%v %v", all, err)
	}
	for i, v := range all {
		if v.N != 9-i {
			t.Errorf("entry %d is %v", i, v)
		}
	}
	if err := h.Append(value{0, strings.Repeat("x", maxLine)}); err == nil {
		t.Error("an endless entry was written")
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(value{7, "seven"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(magic + "\n{}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode[value](data)
		if err != nil {
			if v != (value{}) {
				t.Errorf("a value beside the error: %v", v)
			}
			return
		}
		again, err := encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode[value](again); err != nil || back != v {
			t.Errorf("%v does not come back: %v %v", v, back, err)
		}
	})
}
