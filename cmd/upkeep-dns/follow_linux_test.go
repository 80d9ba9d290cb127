package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/tlog/logtest"
)

// terminal returns both ends of a new terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip("no terminals on this machine: ", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// A full sync shows a bar on a terminal, and log lines elsewhere.
func TestFollowProgress(t *testing.T) {
	const size = 22_000
	log, err := logtest.NewServer("", logtest.Content{}, size)
	if err != nil {
		t.Fatal(err)
	}
	log.SetFaults(logtest.Faults{Delay: 20 * time.Millisecond}) // with one tile at a time, more than a second
	srv := httptest.NewServer(log)
	defer srv.Close()
	config := filepath.Join(t.TempDir(), "upkeep-dns.toml")
	if err := os.WriteFile(config, []byte("[log]\nparallel = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var dumps []string
	for _, where := range []string{"terminal", "file"} {
		state := filepath.Join(t.TempDir(), "state")
		cmd := command(nil, "follow", "-once", "-config", config, "-state", state, "-url", srv.URL, "-proxy", srv.URL, "-database", log.VerifierKey())
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		read := make(chan struct{})
		if where == "terminal" {
			master, slave := terminal(t)
			cmd.Stderr = slave
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			slave.Close()
			go func() {
				io.Copy(&errs, master) // fails when the program has ended
				close(read)
			}()
		} else {
			close(read)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		err := cmd.Wait()
		<-read
		if err != nil || out.String() != fmt.Sprintf("%d records\n", size) {
			t.Fatalf("%s: %v\n%s%s", where, err, out.String(), errs.String())
		}
		bar := strings.Contains(errs.String(), "\r\x1b[K[") && strings.Contains(errs.String(), fmt.Sprintf("] 100.0 %%  %d of %d records", size, size))
		lines := strings.Contains(errs.String(), `msg="reading the log" log=`) && strings.Contains(errs.String(), "left=") &&
			strings.Contains(errs.String(), fmt.Sprintf(`msg="the index has caught up with the log" log=%s records=%d of=%d`, strings.Split(log.VerifierKey(), "+")[0], size, size))
		if bar != (where == "terminal") || lines != (where == "file") {
			t.Errorf("%s: a bar: %v, lines: %v\n%q", where, bar, lines, errs.String())
		}
		dump, errText, code := upkeepDNS(t, "dump", "-state", state)
		if code != 0 {
			t.Fatal(errText)
		}
		dumps = append(dumps, dump)
	}
	if dumps[0] != dumps[1] {
		t.Error("the dumps differ")
	}
}
