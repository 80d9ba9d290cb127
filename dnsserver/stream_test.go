package dnsserver

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// pipe is a connection to the server without buffers, in a bubble of synctest.
func pipe(t *testing.T, s *Server) net.Conn {
	near, far := net.Pipe()
	s.wg.Go(func() {
		defer far.Close()
		s.serveStream(far, Client{client.Addr, TCP})
	})
	t.Cleanup(func() { near.Close() })
	return near
}

func bubbleServer(t *testing.T) *Server {
	s := NewServer(testHandler(t, testConfig(), testIndex()), ListenConfig{})
	t.Cleanup(s.Close)
	return s
}

// Who asks for signatures and never reads an answer holds up nobody else, and is
// shown out.
func TestStreamNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bubbleServer(t)
		bad := pipe(t, s)
		var all []byte
		for i := range 4 * maxLate {
			all = append(all, tcpQuery(question(fmt.Sprintf("x%d.%s", i, testZone), dns.TypeTXT, true))...)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			bad.Write(all) // until the other side closes
		}()
		synctest.Wait()
		start := time.Now()
		good := pipe(t, s)
		for i := range 3 {
			if _, err := good.Write(tcpQuery(question(fmt.Sprintf("y%d.%s", i, testZone), dns.TypeTXT, true))); err != nil {
				t.Fatal(err)
			}
			readTCP(t, good)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("answers took %s", took)
		}
		// Those that may wait, three more, and the SOA record by each that signs.
		if made, most := s.h.stat.sigs.Load(), uint64(maxLate+3+runtime.GOMAXPROCS(0)); made > most {
			t.Errorf("%d signatures were made; want at most %d", made, most)
		}
		<-ended
		if took := time.Since(start); took > 2*writeTime {
			t.Errorf("closed after %s", took)
		}
	})
}

// A query that comes byte by byte has to be there in time.
func TestStreamTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pipe(t, bubbleServer(t))
		query := tcpQuery(question(moxName, dns.TypeTXT, true))
		// In time, and again: each query has its own.
		for range 3 {
			time.Sleep(messageTime - time.Second)
			c.Write(query[:9])
			time.Sleep(messageTime - time.Second)
			if _, err := c.Write(query[9:]); err != nil {
				t.Fatal(err)
			}
			readTCP(t, c)
		}
		start := time.Now()
		for _, b := range query {
			if _, err := c.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > messageTime+time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}

// One client is an IPv4 address, or an IPv6 network of 64 bits.
func TestConnLimit(t *testing.T) {
	l := newConnLimit(5, 2)
	for _, tc := range []struct {
		addr string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", true}, {"192.0.2.1", false}, {"192.0.2.2", true},
		{"2001:db8::1", true}, {"2001:db8::2", true}, {"2001:db8:0:1::1", false}, // that is five
	} {
		if ok := l.enter(netip.MustParseAddr(tc.addr)); ok != tc.want {
			t.Errorf("%s: %v", tc.addr, ok)
		}
	}
	l.leave(netip.MustParseAddr("192.0.2.1"))
	for _, tc := range []struct {
		addr string
		want bool
	}{{"2001:db8::3", false}, {"2001:db8:0:1::1", true}, {"192.0.2.1", false}} {
		if ok := l.enter(netip.MustParseAddr(tc.addr)); ok != tc.want {
			t.Errorf("after one has left, %s: %v", tc.addr, ok)
		}
	}
}
