//go:build linux

package supervisor

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A client sends requests of one kind at a steady pace, whatever becomes of
// those before, and counts what fails. It tries nothing twice, except what
// net/http's client does by itself.
type client struct {
	kind string
	rate int // requests a second
	send func(ctx context.Context, n int) error
	wait time.Duration // for an answer; 0 = clientTimeout

	mu        sync.Mutex
	sent      int
	failed    map[string]int // by reason
	latencies []time.Duration
}

// clientTimeout fails a request that isn't answered for a long time; a loaded
// machine takes its time.
const clientTimeout = 60 * time.Second

// run sends until ctx ends, and returns when everything sent has ended.
func (c *client) run(ctx context.Context) {
	c.failed = map[string]int{}
	tick := time.NewTicker(time.Second / time.Duration(c.rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(c.wait, clientTimeout))
			defer cancel()
			start := time.Now()
			err := c.send(ctx, n)
			took := time.Since(start)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.sent++
			c.latencies = append(c.latencies, took)
			if err != nil {
				c.failed[why(err)]++
			}
		})
	}
}

// why sums an error up.
func why(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "EOF"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return err.Error()
}

func (c *client) failures() (n int) {
	for _, f := range c.failed {
		n += f
	}
	return n
}

// summary is one line of the table.
func (c *client) summary() string {
	slices.Sort(c.latencies)
	at := func(share float64) time.Duration {
		if len(c.latencies) == 0 {
			return 0
		}
		return c.latencies[int(share*float64(len(c.latencies)-1))].Round(100 * time.Microsecond)
	}
	reasons := ""
	if len(c.failed) > 0 {
		reasons = strings.TrimPrefix(fmt.Sprint(c.failed), "map")
	}
	return fmt.Sprintf("%-12s %5d sent %4d failed  p50 %-8v p99 %-8v max %-8v %s", c.kind, c.sent, c.failures(), at(.5), at(.99), at(1), reasons)
}

// httpClient sends requests that are answered by 200.
func httpClient(kind string, rate int, url string, tr *http.Transport, req func(ctx context.Context, n int) (*http.Request, error)) *client {
	if req == nil {
		req = func(ctx context.Context, _ int) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		}
	}
	hc := &http.Client{Transport: tr}
	return &client{kind: kind, rate: rate, send: func(ctx context.Context, n int) error {
		r, err := req(ctx, n)
		if err != nil {
			return err
		}
		resp, err := hc.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}}
}

func newConns() *http.Transport { return &http.Transport{DisableKeepAlives: true} }

func keptConns() *http.Transport {
	return &http.Transport{MaxIdleConns: 20, MaxIdleConnsPerHost: 20, MaxConnsPerHost: 20}
}

func tlsConns(h2, keep bool) *http.Transport {
	return &http.Transport{DisableKeepAlives: !keep, ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

// udpClient sends a datagram from a socket of its own and waits for the answer.
func udpClient(rate int, addr string) *client {
	return &client{kind: "UDP", rate: rate, send: func(ctx context.Context, n int) error {
		c, err := new(net.Dialer).DialContext(ctx, "udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
		msg := fmt.Sprint(n)
		if _, err := c.Write([]byte(msg)); err != nil {
			return err
		}
		buf := make([]byte, 100)
		m, err := c.Read(buf)
		if err == nil && string(buf[:m]) != msg {
			err = errors.New("another answer")
		}
		return err
	}}
}

// A load is what the clients do while something happens.
type load struct {
	t       testing.TB
	clients []*client
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func startLoad(t testing.TB, clients ...*client) *load {
	l := &load{t: t, clients: clients}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	for _, c := range clients {
		l.wg.Go(func() { c.run(ctx) })
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// report ends the load and prints its table.
func (l *load) report(title string) {
	l.t.Helper()
	l.stop()
	lines := []string{title}
	for _, c := range l.clients {
		lines = append(lines, "  "+c.summary())
	}
	l.t.Log(strings.Join(lines, "\n"))
	// For docs/handover.md: one row for each run.
	if name := os.Getenv("UPKEEP_HANDOVER_TABLE"); name != "" {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			l.t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprintln(f, "| "+title+" | "+l.row()+" |")
	}
}

// tableKinds are the columns of the table.
var tableKinds = []string{"new", "second", "slow", "keep GET", "keep POST", "TLS", "HTTP/2", "UDP"}

// row tells of each kind how many of how many failed, and the longest latency of
// new connections.
func (l *load) row() string {
	cells := slices.Repeat([]string{"–"}, len(tableKinds)+1)
	for _, c := range l.clients {
		if i := slices.Index(tableKinds, c.kind); i >= 0 {
			cells[i] = fmt.Sprintf("%d of %d", c.failures(), c.sent)
		}
		if c.kind == "new" && len(c.latencies) > 0 {
			cells[len(tableKinds)] = fmt.Sprintf("%.1f s", c.latencies[len(c.latencies)-1].Seconds()) // sorted by summary
		}
	}
	return strings.Join(cells, " | ")
}

// must fails the test when more requests of these kinds failed than are allowed.
func (l *load) must(allowed int, kinds ...string) {
	l.t.Helper()
	l.within(allowed, 0, kinds...)
}

// within is must with a number and a share of those sent.
func (l *load) within(number int, share float64, kinds ...string) {
	l.t.Helper()
	for _, c := range l.clients {
		if len(kinds) > 0 && !slices.Contains(kinds, c.kind) {
			continue
		}
		allowed := number + int(share*float64(c.sent))
		if c.failures() > allowed {
			l.t.Errorf("%s: %d of %d requests failed: %v; at most %d are expected", c.kind, c.failures(), c.sent, c.failed, allowed)
		}
		if c.failed["refused"] > 0 || c.failed["timeout"] > 0 {
			l.t.Errorf("%s: nobody is to be refused or forgotten: %v", c.kind, c.failed)
		}
		if c.sent == 0 {
			l.t.Errorf("%s: nothing was sent", c.kind)
		}
	}
}
