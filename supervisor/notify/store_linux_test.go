package notify

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestStore(t *testing.T) {
	st := new(Store)
	var mu sync.Mutex
	var told []string
	tell := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, what)
	}
	st.Added = func(k Named) { tell("+" + k.Name) }
	st.Removed = func(name string) { tell("-" + name) }
	s := listen(t, Options{Store: st})
	s.Attach()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lf, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	mem, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	flush(t)
	before := openFiles(t)
	for _, m := range []struct {
		say   string
		files []*os.File
	}{
		{"FDSTORE=1\nFDNAME=web", []*os.File{lf}},
		{"FDSTORE=1\nFDNAME=web", []*os.File{lf}}, // the same again
		{"FDSTORE=1", []*os.File{mem}},
		{"STATUS=with a file", []*os.File{mem}},
		{"FDSTORE=1\nFDNAME=a:b", []*os.File{mem}},
	} {
		if err := sendFiles(m.say, m.files); err != nil {
			t.Fatal(err)
		}
	}
	flush(t)
	var names []string
	for _, k := range st.Files() {
		names = append(names, k.Name)
	}
	if strings.Join(names, " ") != "web stored" {
		t.Errorf("kept are %q", names)
	}
	if n := openFiles(t); n != before+2 {
		t.Errorf("%d files are open, %d before: what is not kept has to be closed", n, before)
	}

	// The socket lives on in the store.
	addr := l.Addr().String()
	l.Close()
	lf.Close()
	kept, err := net.FileListener(st.Files()[0].File)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("the stored listener does not listen: %v", err)
	}
	conn.Close()
	kept.Close()
	if n := len(st.Files()); n != 2 {
		t.Errorf("%d are kept, want 2", n)
	}

	say(t, "FDSTOREREMOVE=1\nFDNAME=web")
	flush(t)
	if left := st.Files(); len(left) != 1 || left[0].Name != "stored" {
		t.Errorf("left are %v", left)
	}
	mu.Lock()
	if strings.Join(told, " ") != "+web +stored -web" {
		t.Errorf("told were %q", told)
	}
	mu.Unlock()

	// One whose other end is gone is dropped.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Add("pair", os.NewFile(uintptr(pair[0]), "pair")); err != nil {
		t.Fatal(err)
	}
	if n := len(st.Files()); n != 2 {
		t.Errorf("%d are kept, want 2", n)
	}
	unix.Close(pair[1])
	if n := len(st.Files()); n != 1 {
		t.Errorf("%d are kept after the other end was closed, want 1", n)
	}
}

func TestStoreIsBounded(t *testing.T) {
	st := new(Store)
	for i := range maxStored + 1 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.add("x", f, false); (err != nil) != (i == maxStored) {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	st.Remove("x")
	if n := len(st.Files()); n != 0 {
		t.Errorf("%d are kept", n)
	}
}
