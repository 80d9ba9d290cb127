package dnsserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestManyPackets sends mutations of the corpus, many more than the fuzzing
// engine can, and judges every answer as FuzzRespond does; what it lacks is the
// engine's eye for new paths. UPKEEP_TEST_PACKETS says how many, other ones each
// time, and UPKEEP_TEST_SEED repeats a run. Names are changed seldom: each new one costs
// a signature and its verification.
func TestManyPackets(t *testing.T) {
	n, seed := 4000, uint64(1)
	if s := os.Getenv("UPKEEP_TEST_PACKETS"); s != "" {
		var err error
		seed = uint64(time.Now().UnixNano())
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("UPKEEP_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, denial := range []string{DenialCompact, DenialNSEC} {
		t.Run(denial, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("UPKEEP_TEST_SEED=%d", seed)
				}
			}()
			o := newFuzzOracle(denial)(t)
			m := mutator{r: rand.New(rand.NewPCG(seed, 0)), corpus: corpus(t)}
			start := time.Now()
			rcodes := [16]int{}
			records, silent := 0, 0
			defer func() {
				t.Logf("seed %d: %d without answer, %d answers with records; by code %v", seed, silent, records, rcodes)
			}()
			for i := range n {
				c := client
				if m.r.IntN(3) == 0 {
					c.Transport = TLS
				}
				o.try(t, m.next(), c)
				if len(o.out) == 0 {
					silent++
				} else {
					rcodes[o.out[3]&15]++
					if o.out[7]|o.out[9] != 0 {
						records++
					}
				}
				if (i+1)%1_000_000 == 0 {
					fmt.Printf("%s: %d packets in %s, seed %d\n", denial, i+1, time.Since(start).Round(time.Second), seed)
				}
			}
		})
	}
}

// corpus has the seeds and what fuzzing found.
func corpus(t *testing.T) [][]byte {
	packets := seedPackets(t)
	files, err := filepath.Glob("testdata/fuzz/Fuzz*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if quoted, ok := strings.CutPrefix(strings.TrimSpace(line), "[]byte("); ok {
				packet, err := strconv.Unquote(strings.TrimSuffix(quoted, ")"))
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				packets = append(packets, []byte(packet))
			}
		}
	}
	return packets
}

// A mutator makes packets from others.
type mutator struct {
	r      *rand.Rand
	corpus [][]byte
	buf    []byte
}

func (m *mutator) next() []byte {
	b := append(m.buf[:0], m.corpus[m.r.IntN(len(m.corpus))]...)
	defer func() { m.buf = b }()
	for range 1 + m.r.IntN(3) {
		b = m.mutate(b)
	}
	if len(b) > 4096 {
		b = b[:4096]
	}
	return b
}

// questionEnd is where a well-formed question's name ends.
func questionEnd(b []byte) int {
	i := headerLen
	for i < len(b) && b[i] != 0 {
		i += 1 + int(b[i])
	}
	return min(i+1, len(b))
}

func (m *mutator) mutate(b []byte) []byte {
	r := m.r
	interesting := []byte{0, 1, 0x0c, 0x29, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff}
	if len(b) < headerLen {
		return append(b, interesting[r.IntN(len(interesting))])
	}
	end := questionEnd(b)
	at := 4 + r.IntN(len(b)-4)
	if at >= headerLen && at < end && r.IntN(50) > 0 { // mostly spare the name
		at = end
		if end < len(b) {
			at += r.IntN(len(b) - end)
		}
	}
	if at >= len(b) {
		at = len(b) - 1
	}
	switch r.IntN(14) {
	case 0:
		b[at] ^= 1 << r.IntN(8)
	case 1:
		b[at] = interesting[r.IntN(len(interesting))]
	case 2:
		b[at] = byte(r.Uint32())
	case 3: // cut
		b = b[:at]
	case 4: // take bytes out
		n := min(1+r.IntN(8), len(b)-at)
		b = append(b[:at], b[at+n:]...)
	case 5: // put bytes in
		b = bytes.Join([][]byte{b[:at], b[at:min(at+1+r.IntN(16), len(b))], b[at:]}, nil)
	case 6: // the end of another packet
		o := m.corpus[r.IntN(len(m.corpus))]
		if len(o) > headerLen {
			b = append(b[:at:at], o[headerLen+r.IntN(len(o)-headerLen):]...)
		}
	case 7: // counts
		binary.BigEndian.PutUint16(b[4+2*r.IntN(4):], uint16(r.IntN(4)))
	case 8: // flags, and seldom the opcode
		flags := uint16(r.Uint32()) &^ flagQR
		if r.IntN(16) > 0 {
			flags &^= opcodeMask
		}
		binary.BigEndian.PutUint16(b[2:], flags)
	case 9: // type and class
		if end+4 <= len(b) {
			binary.BigEndian.PutUint16(b[end:], []uint16{1, 2, 5, 6, 16, 28, 41, 43, 46, 47, 48, 59, 60, 64, 65, 128, 250, 252, 255, 257, 65280}[r.IntN(21)])
		}
	case 10: // an OPT record with options
		opt := binary.BigEndian.AppendUint16([]byte{0, 0, 41}, uint16(r.IntN(1500)))
		opt = append(opt, 0, byte(r.IntN(8)/7), byte(r.Uint32())&0xc0, 0, 0, 0)
		fixed := len(opt)
		for range r.IntN(4) {
			n := []int{0, 2, 8, 16, 24, 40}[r.IntN(6)]
			opt = binary.BigEndian.AppendUint16(opt, []uint16{3, 8, 9, 10, 11, 12, 15, 18, 19, 100}[r.IntN(10)])
			opt = binary.BigEndian.AppendUint16(opt, uint16(n))
			opt = append(opt, bytes.Repeat([]byte{byte(r.Uint32())}, n)...)
		}
		binary.BigEndian.PutUint16(opt[fixed-2:], uint16(len(opt)-fixed))
		b = append(b[:min(end+4, len(b))], opt...)
		binary.BigEndian.PutUint16(b[10:], 1)
	case 11: // case of letters
		for i := headerLen; i < end; i++ {
			if c := b[i] | 0x20; 'a' <= c && c <= 'z' && r.IntN(8) == 0 {
				b[i] ^= 0x20
			}
		}
	case 12: // another name
		if r.IntN(4) == 0 {
			b = m.rename(b, end)
		}
	case 13: // a question alone
		b = b[:min(end+4, len(b))]
		copy(b[4:], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	}
	return b
}

// rename puts a name of few possible ones into the question: labels of the
// zone's own before an end of a name in it.
func (m *mutator) rename(b []byte, end int) []byte {
	r := m.r
	own := []string{"mox", "mjl_2d", "_", "github", "com", "v0", "c", "b", "a", "x", "*", "0", "\x00", "~", "status", "toolchain", strings.Repeat("z", 63)}
	var name []byte
	for range r.IntN(4) {
		l := own[r.IntN(len(own))]
		name = append(append(name, byte(len(l))), l...)
	}
	all := probes()
	wire, err := packName(all[r.IntN(len(all))].name)
	if err != nil {
		panic(err)
	}
	for range r.IntN(8) {
		if p := parentOf(wire); len(p) > len(dns.Fqdn(testZone)) {
			wire = p
		}
	}
	name = append(name, wire...)
	return bytes.Join([][]byte{b[:headerLen], name, b[end:]}, nil)
}
