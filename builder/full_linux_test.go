package builder

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog/logtest"
)

// fill takes all the space of a disk and returns what gives it back.
func fill(t *testing.T, disk string) (empty func()) {
	t.Helper()
	name := filepath.Join(disk, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for len(chunk) > 0 {
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk that is full at any stage fails the build with a clear sentence, which
// is not remembered; nothing half written stays, and it works when there is room.
func TestDiskFullAtEachStage(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/bare", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() { println(1) }\n")
	for _, tc := range []struct {
		stage string
		size  int64
		move  func(ts *testService, disk string) error
		text  string
		long  bool
	}{
		{"checksum database", 1 << 20, nil, "", false},
		{"go command's state", 1 << 20, func(ts *testService, disk string) error { ts.goPath = disk; return nil }, "no space left on device", false},
		{"mark of the standard library", 1 << 20, func(ts *testService, disk string) error { ts.std.dir = disk; return nil }, "standard library", false},
		{"queue", 1 << 20, func(ts *testService, disk string) error { ts.queue.dir = disk; return nil }, "can't keep its queue", false},
		{"fetch", 8 << 20, func(ts *testService, disk string) error { ts.modCache = disk; return nil }, "no space left on device", false},
		{"standard library", 400 << 20, func(ts *testService, disk string) error { ts.std.dir = disk; return nil }, "standard library", true},
		{"prepare", 64 << 20, func(ts *testService, disk string) error { ts.workDir = disk; return nil }, "disk is full", false},
		{"compile", 64 << 20, func(ts *testService, disk string) error { ts.workDir = disk; return nil }, "", false},
		{"store", 16 << 20, func(ts *testService, disk string) (err error) { ts.blobs, err = openBlobs(disk); return err }, "disk is full", false},
		{"log", 1 << 20, nil, "could not write its log", false},
	} {
		t.Run(tc.stage, func(t *testing.T) {
			if tc.long && os.Getenv("UPKEEP_TEST_LONG") != "1" {
				t.Skip("it compiles a standard library of its own; UPKEEP_TEST_LONG=1 runs it")
			}
			disk, resize := logtest.SmallDisk(t, tc.size)
			dir, err := os.MkdirTemp(sharedDir, "full-")
			if err != nil {
				t.Fatal(err)
			}
			std := filepath.Join(sharedDir, "std-false")
			if err := errors.Join(os.MkdirAll(std, 0o755), os.Symlink(std, filepath.Join(dir, "std"))); err != nil {
				t.Fatal(err)
			}
			if link := map[string]string{"log": "log", "checksum database": "sumdb"}[tc.stage]; link != "" {
				if err := os.Symlink(disk, filepath.Join(dir, link)); err != nil {
					t.Fatal(err)
				}
			}
			ts := start(t, e, testOptions{dir: dir, key: newSigner(t), change: func(c *Config) { c.Tries = 1 }})
			if tc.move != nil {
				if err := tc.move(ts, disk); err != nil {
					t.Fatal(err)
				}
			}
			empty := fill(t, disk)
			if tc.stage == "compile" {
				// Room for the build's own folders and links, not for what is compiled.
				resize(tc.size + 1<<20)
			}
			sp := "example.org/hello@v1.0.0/" + target() + "/"
			if tc.stage == "standard library" {
				sp = "example.org/bare@v1.0.0/" + target() + "/" // needs little of it
			}
			resp, body := ts.get(t, "GET", "/tlog/lookup/"+sp)
			if resp.StatusCode != 500 || !strings.Contains(string(body), tc.text) {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			if strings.Contains(string(body), disk) {
				t.Errorf("the answer names a folder: %s", body)
			}
			if n := ts.log.Head().Size; n != 0 {
				t.Errorf("%d records", n)
			}
			s, err := spec.Parse(sp)
			if err != nil {
				t.Fatal(err)
			}
			if _, kept, _ := ts.results.load(s); kept {
				t.Error("the failure is remembered")
			}
			for _, pattern := range []string{filepath.Join(ts.workDir, "*"), filepath.Join(ts.blobs.dir, "new", "*"), filepath.Join(ts.queue.dir, "*")} {
				left, err := filepath.Glob(pattern)
				for _, name := range left {
					if filepath.Base(name) != "ballast" {
						t.Errorf("left behind: %s", name)
					}
				}
				if err != nil {
					t.Error(err)
				}
			}
			empty()
			if tc.stage == "mark of the standard library" {
				ts.std.dir = std // or all of it would be compiled
			}
			ts.get(t, "POST", "/"+sp+"retry")
			rec, err := ts.lookup(t, sp)
			if err != nil {
				t.Fatalf("with room again: %v", err)
			}
			if tc.stage == "standard library" {
				return
			}
			want := spec.NewDigest()
			want.Write(e.plainInstall("example.org/hello@v1.0.0", rec.GOOS, rec.GOARCH, "-buildid="))
			if rec.Sum != want.Sum() {
				t.Error("other bytes than those of go install")
			}
		})
	}
}

// A result that can't be kept is not lost: the log has it, and the binary is
// built again when it is asked for. A failure is found again.
func TestDiskFullForResult(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/broken", "v1.0.0", "-- main.go --\npackage main\n\nfunc main() { undefined() }\n")
	disk, _ := logtest.SmallDisk(t, 1<<20)
	ts := start(t, e, testOptions{})
	ts.results.dir = disk
	empty := fill(t, disk)
	rec, err := ts.lookup(t, "example.org/hello@v1.0.0/"+target()+"/")
	if err != nil {
		t.Fatal(err)
	}
	broken, err := spec.Parse("example.org/broken@v1.0.0/" + target() + "/")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if res, err := ts.Watch(t.Context(), broken, "192.0.2.0/24", nil); err != nil || res.State != StateFailed || !strings.Contains(res.Error, "does not compile") {
			t.Errorf("%+v, %v", res, err)
		}
	}
	res, err := ts.Result(rec.Spec)
	if err != nil || res.State != StateSuccess || res.Sum != rec.Sum || !res.Removed {
		t.Errorf("%+v, %v", res, err)
	}
	empty()
	resp, data := ts.get(t, "GET", res.URL()+rec.FileName())
	d := spec.NewDigest()
	d.Write(data)
	if resp.StatusCode != 200 || d.Sum() != rec.Sum {
		t.Errorf("%d, sum %s", resp.StatusCode, d.Sum())
	}
	if res, err := ts.Result(rec.Spec); err != nil || res.Removed || res.SHA256 != d.Hex() {
		t.Errorf("with room: %+v, %v", res, err)
	}
}

// Compressed forms that don't fit are not there; the binary is.
func TestDiskFullForCompressed(t *testing.T) {
	disk, _ := logtest.SmallDisk(t, 4<<20)
	b, err := openBlobs(disk)
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.put(io.LimitReader(rand.NewChaCha8([32]byte{}), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	empty := fill(t, disk)
	for _, f := range []form{gzipped, zstded} {
		if _, err := b.open(d.Hex(), f); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", f, err)
		}
	}
	empty()
	for _, f := range []form{plain, gzipped, zstded} {
		file, err := b.open(d.Hex(), f)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	if n, err := CheckBinaries(t.Context(), disk, func(s string) { t.Error(s) }); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// While there is no room for compressed forms, those who accept them get the
// binary as it is.
func TestDiskFullForDownload(t *testing.T) {
	e, rec := hello(t)
	ts := start(t, e, testOptions{})
	if _, err := ts.lookup(t, rec.Spec.String()); err != nil {
		t.Fatal(err)
	}
	res, err := ts.Result(rec.Spec)
	if err != nil {
		t.Fatal(err)
	}
	name := ts.blobs.path(res.SHA256, plain)
	ts.stop()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key, idle: true})
	disk, _ := logtest.SmallDisk(t, 8<<20)
	if ts.blobs, err = openBlobs(disk); err != nil {
		t.Fatal(err)
	}
	if _, err := ts.blobs.put(file); err != nil {
		t.Fatal(err)
	}
	fill(t, disk)
	for _, accept := range []string{"zstd", "gzip"} {
		resp, body := ts.get(t, "GET", res.URL()+rec.FileName(), "Accept-Encoding", accept)
		d := spec.NewDigest()
		d.Write(body)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Etag") != `"`+res.SHA256+`"` || d.Sum() != rec.Sum {
			t.Errorf("%s: %d %q, sum %s", accept, resp.StatusCode, resp.Header, d.Sum())
		}
	}
}
