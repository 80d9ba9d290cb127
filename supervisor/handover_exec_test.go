//go:build linux

package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/internal/sockdir"
)

// The sockets that are kept go over to the next version of upkeep: a service
// that is updated afterwards loses nobody.
func TestHandoverSelfUpdate(t *testing.T) {
	needTelling(t)
	t.Parallel()
	b := newSelfBench(t, "")
	b.order.Self = append(b.order.Self, "v0.1.1")
	b.order.Releases = []string{"v1.0.1"}
	b.order.Config.Updates.Paused = true // goes when the test says so
	b.order.Config.Process.Env = append(b.order.Config.Process.Env, "GODEBUG=multipathtcp=0")
	b.begin()
	first := b.await("its socket", func(s Status) bool { return len(s.Service.Handover.Sockets) == 1 }).Service.Handover
	b.await("knowledge", func(s Status) bool {
		return s.Self.Plan != nil && s.Self.Plan.Candidate != nil && s.Plan.Candidate != nil
	})
	b.ask(Action{Verb: VerbUpdate, Self: true})
	s := b.await("self-update", func(s Status) bool { return s.Self.Version == "v0.1.1" && s.Self.Update == nil })
	b.untouched(s)
	for _, version := range []string{"v1.0.1", "v1.0.0"} {
		verb := VerbUpdate
		if version == "v1.0.0" {
			verb = VerbRollback
		}
		b.ask(Action{Verb: verb})
		s = b.await(version, func(s Status) bool { return s.Service.Version == version && s.Update == nil })
	}
	if h := s.Service.Handover; h.Mode != HandoverRetain || len(h.Sockets) != 1 || len(first.Sockets) != 1 || h.Sockets[0] != first.Sockets[0] {
		t.Errorf("handover %+v; at first %+v", h, first)
	}
	b.stop()
	// One request at a time, and see TestHandover: one for each stop of the service.
	if n := b.failed.Load(); n > 2 {
		t.Errorf("%d of %d requests failed", n, b.asked.Load())
	}
}

// A descriptorStore is what systemd does with FDSTORE=1.
type descriptorStore struct {
	addr string
	mu   sync.Mutex
	fds  map[string]int
}

func newDescriptorStore(t *testing.T) *descriptorStore {
	t.Helper()
	s := &descriptorStore{addr: filepath.Join(sockdir.New(t), "notify"), fds: map[string]int{}}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.addr})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
		for _, fd := range s.fds {
			unix.Close(fd)
		}
	})
	go func() {
		defer close(done)
		buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*64))
		for {
			n, m, _, _, err := c.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			s.take(string(buf[:n]), oob[:m])
		}
	}()
	return s
}

func (s *descriptorStore) take(text string, oob []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fds []int
	if msgs, err := unix.ParseSocketControlMessage(oob); err == nil {
		for _, m := range msgs {
			if list, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, list...)
			}
		}
	}
	_, name, _ := strings.Cut(text, "FDNAME=")
	name, _, _ = strings.Cut(name, "\n")
	switch {
	case strings.Contains(text, "FDSTOREREMOVE=1"):
		if fd, ok := s.fds[name]; ok {
			unix.Close(fd)
			delete(s.fds, name)
		}
	case strings.Contains(text, "FDSTORE=1") && len(fds) == 1:
		s.fds[name] = fds[0]
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (s *descriptorStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fds)
}

// command starts this test binary with what is stored.
func (s *descriptorStore) command() *exec.Cmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The shell's process id is that of what it becomes.
	cmd := exec.Command("sh", "-c", fmt.Sprintf(`LISTEN_FDS=%d LISTEN_FDNAMES="$1" LISTEN_PID=$$ NOTIFY_SOCKET="$2" exec "$0"`, len(s.fds)), os.Args[0])
	var names []string
	for name, fd := range s.fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		names = append(names, name)
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), name))
	}
	cmd.Args = append(cmd.Args, strings.Join(names, ":"), s.addr)
	return cmd
}

// upkeep is killed with its service; systemd keeps the sockets, and clients
// that come meanwhile are served by what it starts then.
func TestHandoverKilled(t *testing.T) {
	needTelling(t)
	store := newDescriptorStore(t)
	o := newOutside(t, "")
	o.order.Config.Updates.Interval = o.cfg.Updates.Interval
	o.command = store.command
	o.run()
	defer func() {
		o.kill()
		for _, pid := range o.services() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	// The update to v1.0.1 is over, and its socket is stored.
	o.settled("update", func(s Status) bool { return s.Service.Version == "v1.0.1" && store.count() == 1 })
	for range 2 {
		o.kill()
		for _, pid := range o.services() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		// Nobody runs, and nobody is refused.
		answers := make(chan error, 5)
		for range cap(answers) {
			go func() {
				_, err := new(net.Dialer).DialContext(context.Background(), "tcp", o.addr)
				if err == nil {
					err = asked(o.addr, "")
				}
				answers <- err
			}()
		}
		time.Sleep(50 * time.Millisecond)
		o.run()
		for range cap(answers) {
			if err := <-answers; err != nil {
				t.Errorf("who came while nothing ran: %v\n%s", err, o.out.String())
			}
		}
		o.settled("start", func(s Status) bool { return s.Service.Version == "v1.0.1" && len(s.Service.Handover.Sockets) == 1 })
	}
}

// asked is what becomes of one request.
func asked(addr, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	return httpClient("", 1, "http://"+addr+"/"+path, newConns(), nil).send(ctx, 0)
}
