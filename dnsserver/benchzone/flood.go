package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
)

// measureFlood asks for names in a file at one rate and for random ones at
// another, all with DO, and prints what becomes of the first: how many of a
// hundred are answered, and after what time. With rate 0 it asks for as many as
// it can, keeping some hundred on the way.
func measureFlood(addr, file, zone string, rate, random int, period time.Duration) error {
	existing, err := packets(file)
	if err != nil {
		return err
	}
	conn := func() (*net.UDPConn, error) {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return nil, err
		}
		u := c.(*net.UDPConn)
		// The system may give less.
		_ = u.SetReadBuffer(8 << 20)
		_ = u.SetWriteBuffer(8 << 20)
		return u, nil
	}
	wanted, err := conn()
	if err != nil {
		return err
	}
	defer wanted.Close()
	other, err := conn()
	if err != nil {
		return err
	}
	defer other.Close()
	var flood sync.WaitGroup
	stop := time.Now().Add(period)
	var sent, answered atomic.Int64
	if random > 0 {
		r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
		// One packet, in which a label of 16 letters changes: making packets must not
		// take the time that sending them needs.
		model := query("aaaaaaaaaaaaaaaa.x._.github.com.v0."+zone, 0)
		var room [64][512]byte
		name := func(i int) []byte {
			b := room[i][:copy(room[i][:], model)]
			v := r.Uint64()
			for k := range 16 {
				b[13+k] = 'a' + byte(v>>(4*k)&15)
			}
			return b
		}
		flood.Go(func() { paced(other, random, stop, &sent, name) })
		flood.Go(func() { drain(other, stop, func([]byte) { answered.Add(1) }) })
	}
	a := &asked{packets: existing, times: make([]time.Duration, 0, 1<<20)}
	flood.Go(func() {
		drain(wanted, stop.Add(200*time.Millisecond), a.answer)
	})
	if rate > 0 {
		paced(wanted, rate, stop, &a.sent, a.next)
	} else {
		a.window(wanted, stop)
	}
	flood.Wait()
	if len(a.times) == 0 {
		return errors.New("no answer")
	}
	slices.Sort(a.times)
	at := func(share float64) float64 {
		return float64(a.times[int(share*float64(len(a.times)-1))]) / float64(time.Millisecond)
	}
	fmt.Printf("%d %.1f %.2f %.2f %d %d\n", int(float64(len(a.times))/period.Seconds()), 100*float64(len(a.times))/float64(a.sent.Load()), at(.5), at(.99),
		int(float64(sent.Load())/period.Seconds()), int(float64(answered.Load())/period.Seconds()))
	return nil
}

// packets reads names and makes queries of them.
func packets(file string) (list [][]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() && len(list) < 20000 {
		name, _, _ := strings.Cut(sc.Text(), " ")
		list = append(list, query(name, 0))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no names in %s: %w", file, errors.Join(sc.Err()))
	}
	return list, sc.Err()
}

func query(name string, id uint16) []byte {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	m.Id = id
	m.SetEdns0(1232, true)
	b, err := m.Pack()
	if err != nil {
		panic(err) // the names are ours
	}
	return b
}

// paced sends packets at a rate, a few at a time.
func paced(c *net.UDPConn, rate int, stop time.Time, sent *atomic.Int64, next func(i int) []byte) {
	p := ipv4.NewPacketConn(c)
	msgs := make([]ipv4.Message, 64)
	start := time.Now()
	for n := 0; ; {
		now := time.Now()
		if now.After(stop) {
			return
		}
		due := min(int(float64(rate)*now.Sub(start).Seconds())-n, len(msgs))
		if due <= 0 {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		for i := range due {
			msgs[i].Buffers = [][]byte{next(i)}
		}
		for done := 0; done < due; {
			k, err := p.WriteBatch(msgs[done:due], 0)
			if err != nil {
				k = 1 // this one is lost
			} else {
				sent.Add(int64(k))
			}
			done += k
		}
		n += due
	}
}

// drain reads answers.
func drain(c *net.UDPConn, stop time.Time, answer func([]byte)) {
	p := ipv4.NewPacketConn(c)
	msgs := make([]ipv4.Message, 64)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	_ = c.SetReadDeadline(stop)
	for time.Now().Before(stop) {
		n, err := p.ReadBatch(msgs, 0)
		if err != nil {
			continue // the deadline, or an ICMP error
		}
		for i := range n {
			answer(msgs[i].Buffers[0][:msgs[i].N])
		}
	}
}

// asked are queries on their way, by their ids.
type asked struct {
	packets [][]byte
	n       int
	since   [1 << 16]atomic.Int64
	sent    atomic.Int64
	back    atomic.Int64
	times   []time.Duration
	out     [64][512]byte
}

var started = time.Now()

// next returns the next query, number i of those sent together.
func (a *asked) next(i int) []byte {
	b := a.out[i][:copy(a.out[i][:], a.packets[a.n%len(a.packets)])]
	binary.BigEndian.PutUint16(b, uint16(a.n))
	a.since[uint16(a.n)].Store(int64(time.Since(started)))
	a.n++
	return b
}

func (a *asked) answer(b []byte) {
	if len(b) < 12 || b[2]&2 != 0 || b[7] == 0 { // truncated, or without an answer
		return
	}
	if at := a.since[binary.BigEndian.Uint16(b)].Swap(0); at > 0 {
		a.times = append(a.times, time.Since(started)-time.Duration(at))
		a.back.Add(1)
	}
}

// window keeps some queries on their way.
func (a *asked) window(c *net.UDPConn, stop time.Time) {
	const most = 400
	p := ipv4.NewPacketConn(c)
	msgs := make([]ipv4.Message, 64)
	lost := int64(0)
	for quiet := time.Now(); time.Now().Before(stop); {
		room := int(most - (a.sent.Load() - lost - a.back.Load()))
		if room < len(msgs) {
			if time.Since(quiet) > 20*time.Millisecond { // what is away so long is lost
				lost = a.sent.Load() - a.back.Load()
			}
			time.Sleep(20 * time.Microsecond)
			continue
		}
		quiet = time.Now()
		for i := range msgs {
			msgs[i].Buffers = [][]byte{a.next(i)}
		}
		if k, err := p.WriteBatch(msgs, 0); err == nil {
			a.sent.Add(int64(k))
		}
	}
}
