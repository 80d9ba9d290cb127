//go:build unix

package handoff

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

type facts struct{ Text string }

// The test binary is the program that hands over, and the one that takes over.
const envRole = "UPKEEP_HANDOFF_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "":
		os.Exit(m.Run())
	case "old":
		old()
	case "holder":
		holder()
	}
	if err := taker(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// old opens a pipe and a listener and replaces itself.
func old() {
	b := New()
	r, w, err := os.Pipe()
	if err == nil {
		_, err = io.WriteString(w, "through the pipe\n")
		w.Close()
	}
	if err == nil {
		err = b.Add("pipe", r)
	}
	l, errL := net.Listen("tcp", "127.0.0.1:0")
	if errL == nil {
		errL = b.Add("listener", l.(*net.TCPListener))
	}
	_ = b.Add("unknown", r)
	_ = b.Put("facts", facts{"as before"})
	if err != nil || errL != nil {
		fmt.Println(err, errL)
		os.Exit(1)
	}
	exe, _ := os.Executable()
	// What can't be executed leaves everything as it was.
	if err := b.Exec(os.TempDir(), "/nonexistent", []string{exe}, nil); err == nil {
		fmt.Println("no error")
	}
	fmt.Println("pid", os.Getpid())
	os.Setenv(envRole, "new")
	fmt.Println("error:", b.Exec(os.TempDir(), exe, []string{exe}, os.Environ()))
	os.Exit(1)
}

func taker() error {
	b, err := Receive()
	if err != nil || b == nil {
		return fmt.Errorf("received %v, %w", b, err)
	}
	if os.Getenv(envName) != "" {
		return fmt.Errorf("%s is left in the environment", envName)
	}
	var f facts
	if !b.Get("facts", &f) {
		return fmt.Errorf("no facts")
	}
	if b.Get("nothing", &f) || b.Take("nothing") != nil {
		return fmt.Errorf("nothing is something")
	}
	line, err := bufio.NewReader(b.Take("pipe")).ReadString('\n')
	if err != nil {
		return err
	}
	if lf := b.Take("listener"); lf != nil {
		l, err := net.FileListener(lf)
		if err != nil {
			return err
		}
		go func() {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				conn.Close()
			}
		}()
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		conn.Close()
	}
	left := b.Names()
	b.Close()
	fmt.Println("pid", os.Getpid())
	fmt.Println(f.Text, strings.TrimSpace(line), left)
	return nil
}

func TestExec(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envRole+"=old")
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 3 || lines[0] != lines[1] || lines[2] != "as before through the pipe [unknown]" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestGive(t *testing.T) {
	b := New()
	defer b.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := b.Add("pipe", r); err != nil {
		t.Fatal(err)
	}
	if err := b.Add("pipe", r); err == nil {
		t.Error("a name was taken twice")
	}
	if err := b.Put("facts", facts{"for a child"}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envRole+"=new")
	var out bytes.Buffer
	cmd.Stdout = &out
	done, err := b.Give(t.TempDir(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done()
	fmt.Fprintln(w, "hello") // our own end reads on as before
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "for a child hello []") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// Whatever is in the variable, a start goes on without it.
func TestReceiveNonsense(t *testing.T) {
	for _, text := range []string{"x", "-1", "0", "2", "1000000"} {
		t.Setenv(envName, text)
		if b, err := Receive(); err == nil || b != nil {
			t.Errorf("%q: %v, %v", text, b, err)
		}
	}
	t.Setenv(envName, "")
	if b, err := Receive(); err != nil || b != nil {
		t.Errorf("%v, %v", b, err)
	}
	var none *Bundle
	if none.Take("x") != nil || none.Get("x", new(int)) || none.Names() != nil {
		t.Error("no bundle holds something")
	}
	none.Close()
}
