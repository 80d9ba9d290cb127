package process

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestBelongs(t *testing.T) {
	// Two generations, the second in a session of its own.
	cmd := exec.Command("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & read x; kill -9 $!")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ours.Lock()
	ours.pids[cmd.Process.Pid] = true
	ours.Unlock()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	main := cmd.Process.Pid
	for name, c := range map[string]struct {
		pid  int
		want bool
	}{
		"the service":          {main, true},
		"what it started":      {pid, true},
		"the supervisor":       {os.Getpid(), false},
		"its parent":           {os.Getppid(), false},
		"nobody":               {0, false},
		"one that isn't there": {1 << 30, false},
	} {
		if Belongs(c.pid, main) != c.want {
			t.Errorf("%s: want %v", name, c.want)
		}
	}
	if Belongs(main, 1<<30) {
		t.Error("a child that somebody waits for belongs to another service")
	}
	in.Close()
	_ = cmd.Wait() // of no interest
	ours.Lock()
	delete(ours.pids, main)
	ours.Unlock()
}
