//go:build unix

package handoff

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/internal/sockdir"
)

// sockets are two connected ends.
func sockets(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(sockdir.New(t), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// More descriptors than go in one message arrive under their names.
func TestSend(t *testing.T) {
	a, c := sockets(t)
	b := New()
	defer b.Close()
	const n = 2*fdsAtOnce + 7
	for i := range n {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, i)
		if err := b.Add(fmt.Sprint(i), f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := b.Put("facts", facts{"to another process"}); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- b.Send(a) }()
	got, err := ReceiveFrom(c)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	var f facts
	if !got.Get("facts", &f) || f.Text != "to another process" || len(got.Names()) != n {
		t.Errorf("%+v, %d descriptors", f, len(got.Names()))
	}
	for i := range n {
		file := got.Take(fmt.Sprint(i))
		text, err := io.ReadAll(io.NewSectionReader(file, 0, 10))
		if err != nil || string(text) != fmt.Sprint(i) {
			t.Errorf("descriptor %d says %q, %v", i, text, err)
		}
		file.Close()
	}
}

// What is no bundle, or ends in the middle, is an error and leaves nothing open.
func TestReceiveFromNonsense(t *testing.T) {
	long := func(data string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) + data
	}
	for _, text := range []string{"", "abc", "\xff\xff\xff\xff", long("{"), long(`{"files":{"x":0}}`), long(`{"files":{"x":7}}`) + "\x01", string(bytes.Repeat([]byte{0}, 3))} {
		a, c := sockets(t)
		if _, err := io.Copy(a, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := ReceiveFrom(c); err == nil || b != nil {
			t.Errorf("%q: %v, %v", text, b, err)
		}
	}
	a, c := sockets(t)
	c.Close()
	b := New()
	defer b.Close()
	if err := b.Send(a); err == nil {
		t.Error("nobody took it, and no error")
	}
}
