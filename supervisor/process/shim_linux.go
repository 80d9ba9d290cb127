package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Shim makes this process the service when it was started for that, between
// fork and exec, and returns at once otherwise. A program that starts services
// calls it first thing.
//
// The filter affects the calling thread alone, which is the one that the
// service's program goes on with.
func Shim() {
	shimReady = true
	if len(os.Args) < 3 || os.Args[0] != shimName {
		return
	}
	runtime.LockOSThread()
	control, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(127)
	}
	unix.CloseOnExec(control)
	err = becomeService(control, os.Args[2:])
	r := report{Err: err.Error()}
	errors.As(err, &r.Errno)
	_ = tell(control, r, -1) // nobody is left to hear that it failed
	os.Exit(127)
}

func becomeService(control int, argv []string) error {
	buf := make([]byte, maxShimMessage)
	n, err := unix.Read(control, buf)
	if err != nil {
		return fmt.Errorf("reading what to start: %w", err)
	}
	var in instructions
	if err := json.Unmarshal(buf[:n], &in); err != nil {
		return fmt.Errorf("reading what to start: %w", err)
	}
	// Everything beyond what the service is to get closes on its exec.
	if err := unix.CloseRange(uint(3+len(in.Listen)), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		unix.CloseOnExec(control + 1) // the service's file, if there is one
	}
	if in.Notify {
		r, fd := report{}, -1
		if fd, err = tellBinds(); err != nil {
			r.Warn = err.Error()
		}
		if err := tell(control, r, fd); err != nil {
			return fmt.Errorf("telling upkeep: %w", err)
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		// The service must not bind before somebody listens.
		if n, err := unix.Read(control, buf); err != nil || n != 1 {
			return errors.New("upkeep does not answer")
		}
	}
	if in.Cgroup != "" {
		joinGroup(in.Cgroup) // upkeep sees whether it succeeded
	}
	for _, l := range in.Rlimits {
		if err := unix.Prlimit(0, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return fmt.Errorf("setting resource limit %d: %w", l.Resource, err)
		}
	}
	if err := become(in.Cred); err != nil {
		return err
	}
	if in.Dir != "" {
		if err := unix.Chdir(in.Dir); err != nil {
			return fmt.Errorf("chdir %s: %w", in.Dir, err)
		}
	}
	env := os.Environ()
	if len(in.Listen) > 0 {
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()), "LISTEN_FDS="+strconv.Itoa(len(in.Listen)),
			"LISTEN_FDNAMES="+strings.Join(in.Listen, ":"))
	}
	return fmt.Errorf("exec %s: %w", in.File, syscall.Exec(in.File, argv, env))
}

// become changes who the calling thread is, as the exec of [syscall.SysProcAttr] does.
func become(c *Cred) error {
	if c == nil {
		return nil
	}
	if len(c.Ambient) > 0 {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keeping capabilities: %w", err)
		}
	}
	groups := make([]int, len(c.Groups))
	for i, g := range c.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(int(c.GID)); err != nil {
		return fmt.Errorf("setgid %d: %w", c.GID, err)
	}
	if err := syscall.Setuid(int(c.UID)); err != nil {
		return fmt.Errorf("setuid %d: %w", c.UID, err)
	}
	if len(c.Ambient) == 0 {
		return nil
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	for _, a := range c.Ambient {
		data[a/32].Permitted |= 1 << (a % 32)
		data[a/32].Inheritable |= 1 << (a % 32)
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	for _, a := range c.Ambient {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, a, 0, 0); err != nil {
			return fmt.Errorf("ambient capability %d: %w", a, err)
		}
	}
	return nil
}

// tell sends a report, with a descriptor unless that is negative.
func tell(control int, r report, fd int) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	return unix.Sendmsg(control, data, rights, nil, unix.MSG_NOSIGNAL)
}

// shimTime bounds the time until the service's program runs; the machine may
// be busy, and nothing else can be done meanwhile.
const shimTime = 20 * time.Second

// startShim starts the service through this program. attr is as for the
// service itself.
func (r *OS) startShim(s Spec, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	if !shimReady {
		return nil, errors.New("this program can't start services through itself")
	}
	if s.Handover != nil && !s.TellBinds {
		s.Handover.Started(0, nil, "")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "shim"), os.NewFile(uintptr(pair[1]), "shim")
	defer ours.Close()
	defer theirs.Close()
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, new(unix.NsecToTimeval(int64(shimTime)))); err != nil {
		return nil, err
	}
	in := instructions{File: s.File, Dir: attr.Dir, Cred: s.Cred, Rlimits: s.Rlimits, Notify: s.TellBinds, Cgroup: s.Cgroup}
	a := *attr
	a.Dir = ""
	sys := *attr.Sys
	sys.Credential, sys.AmbientCaps = nil, nil
	a.Sys = &sys
	a.Files = a.Files[:len(a.Files):len(a.Files)]
	for _, l := range s.ListenFDs {
		a.Files = append(a.Files, l.File)
		in.Listen = append(in.Listen, l.Name)
	}
	control := len(a.Files)
	a.Files = append(a.Files, theirs)
	if s.Open != nil {
		a.Files = append(a.Files, s.Open)
		in.File = r.executable(s, uintptr(control+1))
	}
	msg, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if len(msg) > maxShimMessage {
		return nil, errors.New("the service's names are too long")
	}
	proc, err := os.StartProcess("/proc/self/exe", append([]string{shimName, strconv.Itoa(control)}, argv...), &a)
	if err != nil {
		return nil, err
	}
	theirs.Close()
	if err := r.converse(pair[0], msg, proc.Pid, s.Handover); err != nil {
		_ = proc.Kill()
		_, _ = proc.Wait() // it is gone either way
		return nil, err
	}
	return proc, nil
}

// converse tells the shim what to do and returns when the service's program runs.
func (r *OS) converse(fd int, msg []byte, pid int, h Handover) error {
	if err := unix.Sendmsg(fd, msg, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	for {
		rep, notify, err := hear(fd)
		switch {
		case err != nil:
			return err
		case rep == nil:
			return nil
		case rep.Err != "":
			return &serviceError{rep.Err, rep.Errno}
		}
		h.Started(pid, notify, rep.Warn)
		if err := unix.Sendmsg(fd, []byte{1}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
			return err
		}
	}
}

// hear receives a report; nil at the end of the conversation.
func hear(fd int) (*report, *os.File, error) {
	buf := make([]byte, maxShimMessage)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := recvmsg(fd, buf, oob)
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil, fmt.Errorf("it did not begin within %v", shimTime)
	}
	if err != nil {
		return nil, nil, err
	}
	var notify *os.File
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
		if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) == 1 {
			_ = unix.SetNonblock(fds[0], true) // for the poller; the calls block all the same
			notify = os.NewFile(uintptr(fds[0]), "seccomp notify")
		}
	}
	if n == 0 {
		return nil, nil, nil
	}
	var rep report
	if err := json.Unmarshal(buf[:n], &rep); err != nil {
		if notify != nil {
			notify.Close()
		}
		return nil, nil, fmt.Errorf("its report is damaged: %w", err)
	}
	return &rep, notify, nil
}

func recvmsg(fd int, buf, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	for {
		n, oobn, flags, from, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return
		}
	}
}
