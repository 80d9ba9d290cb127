// Speaker is a service for systemd-test.sh that speaks sd_notify: it is ready,
// sends signs of life until SIGUSR1, has a note kept over its restarts, and
// leaves a child in a session of its own.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func say(text string, files ...int) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	defer unix.Close(s)
	check(unix.Sendmsg(s, []byte(text), unix.UnixRights(files...), &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}, 0))
}

func check(err error) {
	if err != nil {
		fmt.Println("speaker:", err)
		os.Exit(1)
	}
}

func main() {
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
			f := os.NewFile(uintptr(3+i), name)
			if name == "note" {
				f.Seek(0, io.SeekStart)
				text, _ := io.ReadAll(f)
				fmt.Printf("found %q\n", text)
			}
		}
	} else {
		fmt.Println("found nothing")
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		for _, name := range []string{"word", "second"} {
			text, err := os.ReadFile(dir + "/" + name)
			fmt.Printf("credential %s: %q %v\n", name, text, err)
		}
	}
	fmt.Printf("environment file: %q\n", os.Getenv("FROM_FILE"))
	group, _ := os.ReadFile("/proc/self/cgroup")
	fmt.Printf("control group %s", group)
	child := exec.Command("/bin/sleep", "100000")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	check(child.Start())
	stop := make(chan os.Signal, 1)
	mute := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	signal.Notify(mute, syscall.SIGUSR1)
	l, err := net.Listen("tcp", os.Getenv("ADDR"))
	check(err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// What is unread when a connection is closed would reset it.
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, _ = c.Read(make([]byte, 4096))
			fmt.Fprintf(c, "HTTP/1.0 200 OK\r\n\r\nspeaker %d\n", os.Getpid())
			c.Close()
		}
	}()
	note, err := unix.MemfdCreate("note", unix.MFD_CLOEXEC)
	check(err)
	_, err = unix.Write(note, []byte(fmt.Sprintf("kept by process %d", os.Getpid())))
	check(err)
	say("FDSTOREREMOVE=1\nFDNAME=note")
	say("FDSTORE=1\nFDNAME=note", note)
	say("READY=1\nSTATUS=speaking\nMAINPID=1")
	tick := time.NewTicker(500 * time.Millisecond)
	for {
		select {
		case <-tick.C:
			say("WATCHDOG=1")
		case <-mute:
			fmt.Println("falls silent")
			tick.Stop()
		case <-stop:
			say("STOPPING=1")
			return
		}
	}
}
