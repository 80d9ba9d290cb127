package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor"
)

// What the demo claims is read from outside: DNS over the socket, HTTP, and
// the file that the kernel says the process executes.

// webClient has a time limit of its own, so that a program that hangs is seen.
var webClient = &http.Client{Timeout: 10 * time.Second}

// httpText returns the body of a page.
func httpText(ctx context.Context, url string) (string, error) {
	data, err := httpget.Get(ctx, webClient, url, 4<<20)
	return string(data), err
}

// askTXT asks a name server for TXT records, with DNSSEC records.
func askTXT(ctx context.Context, network, server, name string) ([]string, *dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeTXT)
	q.RecursionDesired = false
	q.SetEdns0(1232, true)
	c := &dns.Client{Net: network, Timeout: 3 * time.Second}
	resp, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil {
		return nil, nil, err
	}
	if resp.Rcode != dns.RcodeSuccess {
		return nil, resp, fmt.Errorf("%s answered %s to TXT %s", server, dns.RcodeToString[resp.Rcode], name)
	}
	var texts []string
	signed := false
	for _, rr := range resp.Answer {
		switch rr := rr.(type) {
		case *dns.TXT:
			texts = append(texts, strings.Join(rr.Txt, ""))
		case *dns.RRSIG:
			signed = signed || rr.TypeCovered == dns.TypeTXT
		}
	}
	if len(texts) > 0 && !signed {
		return nil, resp, fmt.Errorf("%s sent no signature with TXT %s", server, name)
	}
	return texts, resp, nil
}

// metric returns the sum of a metric's series whose labels contain all of the
// given `name="value"` texts, and whether there is any.
func metric(ctx context.Context, url, name string, labels ...string) (float64, bool, error) {
	text, err := httpText(ctx, url)
	if err != nil {
		return 0, false, err
	}
	sum, found := 0.0, false
series:
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, false, fmt.Errorf("metric %s at %s: %w", name, url, err)
		}
		sum, found = sum+v, true
	}
	return sum, found, nil
}

// status reads the supervisor's status over HTTP.
func status(ctx context.Context, base string) (supervisor.Status, error) {
	var s supervisor.Status
	text, err := httpText(ctx, base+"/api/v1/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("reading the status from %s: %w", base, err)
	}
	return s, nil
}

// listener returns the build information of the program that listens on a TCP
// port of this machine, and its process id. The kernel is asked where that is
// possible (Linux); elsewhere the supervisor's word for the process id and file is taken.
func listener(ctx context.Context, addr, supervisorURL string) (*debug.BuildInfo, int, error) {
	if runtime.GOOS != "linux" {
		s, err := status(ctx, supervisorURL)
		if err != nil {
			return nil, 0, err
		}
		bi, err := buildinfo.ReadFile(s.Service.Binary)
		return bi, s.Service.Pid, err
	}
	pids, err := listeners(addr)
	if err != nil {
		return nil, 0, err
	}
	var service *debug.BuildInfo
	servicePid, n := 0, 0
	for _, pid := range pids {
		bi, err := buildinfo.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			return nil, 0, err
		}
		if bi.Main.Path == ownModule {
			continue // the supervisor, which keeps the socket open between two versions
		}
		service, servicePid, n = bi, pid, n+1
	}
	if n != 1 {
		return nil, 0, fmt.Errorf("%d services listen on %s; there must be one", n, addr)
	}
	return service, servicePid, nil
}

// ownModule is the path of upkeep's programs.
const ownModule = "example.org/upkeep"

// listeners returns the processes that listen on a port.
func listeners(addr string) ([]int, error) {
	_, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(bytes.NewReader(data))
		for sc.Scan() {
			f := strings.Fields(sc.Text())
			if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, p, _ := strings.Cut(f[1], ":")
			if b, err := hex.DecodeString(p); err == nil && len(b) == 2 && uint64(b[0])<<8|uint64(b[1]) == port {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	var pids []int
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && inodes[link] {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			if !found[pid] {
				found[pid] = true
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

var delvVerdict = regexp.MustCompile(`(?m)^; (fully validated|negative response, fully validated|unsigned answer.*)$`)

// delvValidates runs BIND's delv, where it is installed.
func delvValidates(ctx context.Context, host, port, anchor, zone, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "delv", "@"+host, "-p", port, "-a", anchor, "+root="+zone, name, "TXT").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("delv %s: %w: %s", name, err, httpget.Line(string(out), 300))
	}
	m := delvVerdict.FindStringSubmatch(string(out))
	if m == nil || !strings.Contains(m[1], "fully validated") {
		return "", fmt.Errorf("delv does not validate %s: %s", name, httpget.Line(string(out), 300))
	}
	return m[1], nil
}

// until tries again until check says nil or the time is over, and returns the
// last error then. It is for what other programs do in their own time.
func until(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for {
		last := err
		if err = check(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			err = last // what was wrong before the time was over says more
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == context.DeadlineExceeded {
				return fmt.Errorf("not within %v: %w", limit, err)
			}
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
