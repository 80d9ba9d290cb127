package tlog_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/logtest"
)

const appendEnv = "UPKEEP_TEST_APPEND"

// TestMain lets the test's own binary be started again as an appender to be killed.
func TestMain(m *testing.M) {
	if env := os.Getenv(appendEnv); env != "" {
		dir, signer, _ := strings.Cut(env, "\n")
		if err := appendForEver(dir, signer); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func logEntry(i int64) tlog.Entry {
	return tlog.Entry{Key: fmt.Sprint("key", i), Text: fmt.Appendf(nil, "record %d\n", i)}
}

// appendForEver appends in small groups and prints the size after each.
func appendForEver(dir, signer string) error {
	l, err := tlog.OpenLog(dir, signer, tlog.LogOptions{})
	if err != nil {
		return err
	}
	for next := l.Head().Size; ; {
		var es []tlog.Entry
		for range 1 + rand.IntN(40) {
			es = append(es, logEntry(next))
			next++
		}
		if _, err := l.Append(context.Background(), es...); err != nil {
			return err
		}
		fmt.Println(next)
	}
}

// TestLogKill kills an appending process at random instants: what it had
// confirmed is there, and every tree head extends the one before.
func TestLogKill(t *testing.T) {
	signer, verifier, err := tlog.GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	dir, state := t.TempDir(), t.TempDir()
	confirmed := int64(0)
	for round := range 30 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), appendEnv+"="+dir+"\n"+signer)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("round %d: %v: %s", round, err, stderr.String())
		}
		time.AfterFunc(time.Duration(rand.Int64N(int64(30*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		rest, _ := io.ReadAll(r)
		_ = cmd.Wait()
		lines := strings.Fields(line + string(rest))
		if last := lines[len(lines)-1]; strings.HasSuffix(line+string(rest), "\n") {
			fmt.Sscan(last, &confirmed)
		}
		l, err := tlog.OpenLog(dir, signer, tlog.LogOptions{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if size := l.Head().Size; size < confirmed {
			t.Fatalf("round %d: %d records were confirmed and %d are there", round, confirmed, size)
		}
		srv := httptest.NewServer(l.Handler(nil))
		c, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: srv.URL, Dir: state, Attempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		head, err := c.Update(t.Context())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		// All of it, from the data tiles.
		next := int64(0)
		err = tlog.Follow(t.Context(), tlog.FollowConfig{Client: c, To: head, Parallel: 2}, func(*tlog.Tile, *struct{}) {},
			func(tile *tlog.Tile, _ *struct{}, _ *tlog.Edge) error {
				for _, text := range tile.Records {
					if string(text) != string(logEntry(next).Text) {
						return fmt.Errorf("record %d is %q", next, text)
					}
					next++
				}
				return nil
			})
		if err != nil || next != head.Size {
			t.Fatalf("round %d: read %d records of %d: %v", round, next, head.Size, err)
		}
		srv.Close()
		l.Close()
	}
	t.Logf("%d records after 30 kills", confirmed)
}

// On a full disk appends fail, reading goes on, and appends work again when
// there is room.
func TestLogFullDisk(t *testing.T) {
	signer, verifier, err := tlog.GenerateKey("log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	dir, resize := logtest.SmallDisk(t, 128<<10)
	l, err := tlog.OpenLog(dir, signer, tlog.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { l.Close() }()
	n := int64(0)
	for err == nil {
		if _, err = l.Append(t.Context(), logEntry(n)); err == nil {
			n++
		}
		if n > 100_000 {
			t.Fatal("the disk does not fill")
		}
	}
	if !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("got %v", err)
	}
	if text, err := l.Record(n - 1); err != nil || string(text) != string(logEntry(n-1).Text) || l.Head().Size != n {
		t.Errorf("on a full disk: %q, %v, size %d; want %d records", text, err, l.Head().Size, n)
	}
	resize(4 << 20)
	for k := range int64(3) {
		if id, err := l.Append(t.Context(), logEntry(n+k)); err != nil || id != n+k {
			t.Fatalf("with room again: %d, %v; want %d", id, err, n+k)
		}
	}
	l.Close()
	if l, err = tlog.OpenLog(dir, signer, tlog.LogOptions{}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(l.Handler(nil))
	defer srv.Close()
	c, err := tlog.NewClient(tlog.ClientConfig{Key: verifier, URL: srv.URL, Dir: t.TempDir(), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int64{0, n - 1, n, n + 2} {
		if rec, err := c.Lookup(t.Context(), logEntry(i).Key); err != nil || rec.ID != i {
			t.Errorf("lookup of %d: %d, %v", i, rec.ID, err)
		}
	}
	if _, err := c.Lookup(t.Context(), logEntry(n+3).Key); !errors.Is(err, tlog.ErrNotFound) {
		t.Errorf("lookup of what is not there: %v", err)
	}
}

// Tiles that can't be kept on a full disk don't stop the reading.
func TestTileDirFullDisk(t *testing.T) {
	dir, _ := logtest.SmallDisk(t, 64<<10)
	srv, url := serve(t, content, 3000)
	tiles, err := tlog.OpenTileDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time some tiles are there
		r := reading{t: t, c: content}
		if err := r.read(newClient(t, srv, url, tiles)); err != nil || r.next != 3000 {
			t.Fatalf("read %d records: %v", r.next, err)
		}
	}
}
