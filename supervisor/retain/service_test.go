//go:build linux

package retain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/upkeep/supervisor/process"
)

// envService makes this test binary a service: words that say what it does, for
// example "start=1s tcp=127.0.0.1:8080 udp=127.0.0.1:8080".
const envService = "UPKEEP_RETAIN_TEST_SERVICE"

func TestMain(m *testing.M) {
	process.Shim()
	if s := os.Getenv(envService); s != "" {
		os.Exit(service(s))
	}
	os.Exit(m.Run())
}

// service knows nothing of being handed over.
func service(words string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.FormValue("take")); err == nil {
			time.Sleep(d)
		}
		fmt.Fprintf(w, "%d", os.Getpid())
	})
	srv := &http.Server{Handler: mux}
	for word := range strings.FieldsSeq(words) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "start":
			var d time.Duration
			d, err = time.ParseDuration(value)
			time.Sleep(d)
		case "tcp", "reopen":
			var l net.Listener
			if l, err = net.Listen("tcp", value); err == nil {
				if key == "reopen" {
					l.Close()
					if l, err = net.Listen("tcp", value); err != nil {
						break
					}
				}
				go srv.Serve(l)
			}
		case "shared": // two sockets on one address
			lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			}}
			for range 2 {
				l, errListen := lc.Listen(context.Background(), "tcp", value)
				if err = errors.Join(err, errListen); err == nil {
					go srv.Serve(l)
				}
			}
		case "udp":
			var c net.PacketConn
			if c, err = net.ListenPacket("udp", value); err == nil {
				go echo(c)
			}
		case "lifeline": // ends with the tests
			go func() {
				for syscall.Kill(mustAtoi(value), 0) == nil {
					time.Sleep(time.Second)
				}
				os.Exit(5)
			}()
		case "calls": // measures system calls and ends
			call, file, _ := strings.Cut(value, ",")
			err = os.WriteFile(file, fmt.Append(nil, calls(call)), 0o600)
			if err == nil {
				return 0
			}
		case "exit":
			return mustAtoi(value)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 4
		}
	}
	<-term
	if err := srv.Shutdown(context.Background()); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return 6
	}
	return 0
}

// calls returns how many nanoseconds a system call takes, the best of some rounds.
func calls(name string) float64 {
	n := 20000
	do := func() { syscall.Getppid() }
	switch name {
	case "write":
		f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		fd, buf := int(f.Fd()), []byte("x")
		do = func() { _, _ = syscall.Write(fd, buf) }
	case "bind":
		n = 200
		do = func() {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
			if err != nil {
				panic(err)
			}
			if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				panic(err)
			}
			syscall.Close(fd)
		}
	}
	best := time.Duration(1 << 62)
	for range 30 {
		start := time.Now()
		for range n {
			do()
		}
		best = min(best, time.Since(start))
	}
	return float64(best) / float64(n)
}

func echo(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

func mustAtoi(s string) (n int) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(err)
	}
	return n
}
