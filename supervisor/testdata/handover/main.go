// Handover is a service for the load tests: an ordinary net/http server with
// two listeners, TLS and UDP, that takes a while to start and shuts down on
// SIGTERM: at once, or with LEAVE after a time in which it accepts nothing more
// and asks its clients to close their connections. It knows nothing of upkeep;
// with LISTEN_FDS it takes its sockets from there, as any service made for
// systemd does.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	exe, err := os.Executable()
	check(err)
	name := filepath.Base(exe)
	if pid, err := strconv.Atoi(os.Getenv("LIFELINE")); err == nil {
		go func() { // tests that were broken off stop nothing themselves
			for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				time.Sleep(time.Second)
			}
			os.Exit(5)
		}()
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	for item := range strings.FieldsSeq(os.Getenv("BAD")) {
		version, what, _ := strings.Cut(item, "=")
		if !strings.Contains(name, "-"+version+"-") {
			continue
		}
		switch what {
		case "exit":
			os.Exit(1)
		case "hang":
			<-term
			os.Exit(0)
		}
	}
	d, err := time.ParseDuration(os.Getenv("START"))
	check(err)
	time.Sleep(d)

	sockets := received()
	var leaving atomic.Bool
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if d, err := time.ParseDuration(r.FormValue("take")); err == nil {
			time.Sleep(d)
		}
		fmt.Fprintf(w, "%s %d", name, os.Getpid())
	})
	srv := new(http.Server)
	secure := &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}}}
	var listeners []net.Listener
	for _, addr := range []string{"HTTP", "HTTP2"} {
		l := listen(sockets, addr)
		listeners = append(listeners, l)
		go func() { done(srv.Serve(l), &leaving) }()
	}
	l := listen(sockets, "TLS")
	listeners = append(listeners, l)
	go func() { done(secure.ServeTLS(l, "", ""), &leaving) }()
	var udp net.PacketConn
	if f := sockets["UDP"]; f != nil {
		udp, err = net.FilePacketConn(f)
		f.Close()
	} else {
		udp, err = net.ListenPacket("udp", os.Getenv("UDP"))
	}
	check(err)
	var echoes sync.WaitGroup
	echoes.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	})
	<-term
	if d, err := time.ParseDuration(os.Getenv("LEAVE")); err == nil {
		leaving.Store(true)
		for _, l := range listeners {
			check(l.Close()) // who comes from now on is the next process's
		}
		time.Sleep(d)
	}
	// What was read is answered, and nothing more is read.
	check(udp.SetReadDeadline(time.Unix(1, 0)))
	echoes.Wait()
	var ends sync.WaitGroup
	for _, s := range []*http.Server{srv, secure} {
		ends.Go(func() { check(s.Shutdown(context.Background())) })
	}
	ends.Wait()
}

// received are the sockets of socket activation, by name.
func received() map[string]*os.File {
	files := map[string]*os.File{}
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return files
	}
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		files[name] = os.NewFile(uintptr(3+i), name)
	}
	return files
}

func listen(sockets map[string]*os.File, name string) net.Listener {
	if f := sockets[name]; f != nil {
		l, err := net.FileListener(f)
		check(err)
		check(f.Close()) // it has a duplicate
		return l
	}
	l, err := net.Listen("tcp", os.Getenv(name))
	check(err)
	return l
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// done judges why a server accepts no more.
func done(err error, leaving *atomic.Bool) {
	if !errors.Is(err, http.ErrServerClosed) && !(leaving.Load() && errors.Is(err, net.ErrClosed)) {
		log.Fatal(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
