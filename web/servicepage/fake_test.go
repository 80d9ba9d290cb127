package servicepage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/retain"
)

// A fake is an engine whose status is set by the test. Actions are kept.
type fake struct {
	mu      sync.Mutex
	st      supervisor.Status
	err     error
	actions []supervisor.Action
	refuse  string
	lines   []string
	watch   []chan struct{}
	act     func(supervisor.Action) // called for each accepted action, may be nil
}

func (f *fake) Status(context.Context) (supervisor.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.st, f.err
}

func (f *fake) Do(_ context.Context, a supervisor.Action) error {
	f.mu.Lock()
	if f.refuse != "" {
		defer f.mu.Unlock()
		return &supervisor.RefusedError{Msg: f.refuse}
	}
	f.actions = append(f.actions, a)
	act := f.act
	f.mu.Unlock()
	if act != nil {
		act(a)
	}
	return nil
}

func (f *fake) done() []supervisor.Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.actions)
}

func (f *fake) Watch(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	f.watch = append(f.watch, c)
	f.mu.Unlock()
	return c
}

func (f *fake) Logs(n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lines[max(0, len(f.lines)-n):])
}

// change sets the status and tells the viewers.
func (f *fake) change(set func(*supervisor.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set(&f.st)
	for _, c := range f.watch {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// sample is a status with something in every part of the page.
func sample(now time.Time) supervisor.Status {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const gov = "go1.26.8"
	pair := func(v string) supervisor.Pair { return supervisor.Pair{Version: v, GoVersion: gov} }
	return supervisor.Status{
		API: 1, Now: now, Code: supervisor.CodePending, Summary: "Update to v1.4.2 in 6 hours.",
		Service: supervisor.ServiceStatus{
			Name: "hello", Module: "github.com/example/hello", Package: "cmd/hello", Version: "v1.4.1", GoVersion: gov,
			GOOS: "linux", GOARCH: "amd64", Sum: "0Q2cQdVpYTB9gS4S2s0RrTWC8xpc", Path: "/srv/hello/hello", Binary: "/srv/hello/hello-v1.4.1-go1.26.8",
			Running: true, Pid: 4711, Started: ago(26 * time.Hour), Since: ago(26 * time.Hour),
			Health: supervisor.Health{Configured: true, OK: true, Detail: "200 OK in 3 ms", Checked: ago(time.Second)},
			Says:   "serving 12 calendars <ok>",
			Handover: supervisor.HandoverStatus{Mode: "retain", Asked: "auto", Reason: "the service listens on TCP sockets",
				Sockets: []retain.Socket{{Network: "tcp", Address: "0.0.0.0:443", Claimed: true}}},
		},
		Self: supervisor.SelfStatus{Module: "example.org/upkeep", Version: "v0.3.0", GoVersion: gov, Pid: 4700, Started: ago(9 * 24 * time.Hour), Config: "/etc/upkeep/hello.toml",
			Package: "cmd/upkeep", Path: "/usr/local/bin/upkeep", Binary: "/usr/local/bin/upkeep-v0.3.0-go1.26.8", Since: ago(3 * 24 * time.Hour),
			Plan: &supervisor.Plan{Automatic: true,
				Candidate: &supervisor.Candidate{Pair: pair("v0.3.1"), Kind: "patch", When: now.Add(7 * time.Hour), Why: "It is the newest patch release that the policy allows."},
				Versions: []supervisor.VersionVerdict{
					{Pair: pair("v0.3.1"), Kind: "patch", Discovered: ago(9 * time.Hour), Chosen: true, Reason: "Newest patch release; policy \"patch\"."},
					{Pair: pair("v0.3.0"), Kind: "running", Discovered: ago(90 * time.Hour), Running: true, Installed: true, Reason: "This version runs."},
				}},
			Kept: []supervisor.Kept{
				{Pair: pair("v0.3.0"), File: "upkeep-v0.3.0-go1.26.8", Size: 12345678, Running: true},
				{Pair: pair("v0.2.9"), File: "upkeep-v0.2.9-go1.26.8", Size: 12345000},
			}},
		Knowledge: supervisor.Knowledge{
			Source: "l.upkeep.test. from tls://192.0.2.53:853 and server://192.0.2.1:53", Proof: "DNSSEC, pinned key 34217 (ECDSA P-256) of l.upkeep.test.",
			Asked: ago(4 * time.Minute), Fresh: ago(4 * time.Minute), NextAsk: now.Add(23 * time.Hour), LogSize: 71848828,
		},
		Plan: supervisor.Plan{
			Automatic: true,
			Candidate: &supervisor.Candidate{Pair: pair("v1.4.2"), Kind: "patch", When: now.Add(6 * time.Hour), Why: "It is the newest patch release that the policy allows.", Wait: "Versions wait 24 hours after their discovery, then for the window from 02:00 to 04:00."},
			Versions: []supervisor.VersionVerdict{
				{Pair: pair("v2.0.0"), Kind: "major", Discovered: ago(12 * time.Hour), Reason: "A new major version is only installed when somebody asks."},
				{Pair: pair("v1.5.0"), Kind: "minor", Discovered: ago(48 * time.Hour), Skipped: true, Reason: "Skipped by admin: breaks the import of old calendars."},
				{Pair: pair("v1.4.2"), Kind: "patch", Discovered: ago(18 * time.Hour), Chosen: true, Reason: "Newest patch release; policy \"patch\"."},
				{Pair: pair("v1.4.1"), Kind: "running", Discovered: ago(70 * time.Hour), Running: true, Installed: true, Reason: "This version runs."},
				{Pair: pair("v1.4.0"), Kind: "older", Discovered: ago(300 * time.Hour), Installed: true, Retracted: "Loses the last line of a log.", Reason: "Older than the running version."},
			},
		},
		Skips: []supervisor.Skip{{Pair: supervisor.Pair{Version: "v1.5.0"}, Why: "breaks the import of old calendars", By: "admin", Time: ago(30 * time.Hour)}},
		Kept: []supervisor.Kept{
			{Pair: pair("v1.4.1"), Sum: "0Q2cQdVpYTB9gS4S2s0RrTWC8xpc", File: "hello-v1.4.1-go1.26.8", Size: 6123456, Running: true},
			{Pair: pair("v1.4.0"), Sum: "0b6WuCOxGdzkZYEmOyJ8sdn0Zjlc", File: "hello-v1.4.0-go1.26.8", Size: 6120111},
		},
		Events: []supervisor.Event{
			{Time: ago(50 * time.Hour), Kind: "bad_sum", Security: true, Version: "v1.4.1", Text: "The binary from build.example.org has the sum 0SInS7Fp5GfZvpGP38YXcVcAPcvE, the log says 0Q2cQdVpYTB9gS4S2s0RrTWC8xpc. It was deleted; the old version stayed."},
			{Time: ago(60 * time.Hour), Kind: "rolled_back", Version: "v1.4.1", Text: "v1.4.1 did not answer its health check within 30 seconds."},
		},
		History: []supervisor.Result{
			{ID: "3", Kind: "update", Result: supervisor.ResultInstalled, From: pair("v1.4.0"), To: pair("v1.4.1"), Sum: "0Q2cQdVpYTB9gS4S2s0RrTWC8xpc", Builder: "build.example.org", LogIndex: 1812, LogSize: 1830, Agreed: []string{"other.example.org (record 977)", "third.example.org"}, By: "policy", Started: ago(26*time.Hour + 40*time.Second), Ended: ago(26 * time.Hour), Downtime: 180 * time.Millisecond},
			{ID: "2", Kind: "update", Result: supervisor.ResultRefused, Reason: "The binary has another sum than the build log says.", From: pair("v1.4.0"), To: pair("v1.4.1"), By: "policy", Started: ago(50*time.Hour + 20*time.Second), Ended: ago(50 * time.Hour)},
			{ID: "1", Kind: "update", Result: supervisor.ResultRolledBack, Reason: "No answer to the health check within 30 seconds.", From: pair("v1.4.0"), To: pair("v1.4.1"), By: "admin", Started: ago(60*time.Hour + 70*time.Second), Ended: ago(60 * time.Hour), Downtime: 30 * time.Second},
			{ID: "0", Kind: "self_update", Result: supervisor.ResultInstalled, From: pair("v0.2.9"), To: pair("v0.3.0"), Sum: "0uPpQbJ0nR7m1qJ3xk4oW8c2v5Tz", Builder: "build.example.org", LogIndex: 1700, LogSize: 1702, By: "policy", Started: ago(72*time.Hour + 50*time.Second), Ended: ago(72 * time.Hour)},
		},
	}
}

// updating puts an update into a status.
func updating(st *supervisor.Status, now time.Time) {
	st.Code, st.Summary = supervisor.CodeUpdating, "Updating to v1.4.2."
	st.Update = &supervisor.UpdateProgress{
		ID: "4", Kind: "update", From: st.Plan.Versions[3].Pair, To: st.Plan.Candidate.Pair, By: "web", State: supervisor.StateFetching,
		Step: "downloading", Detail: "63 % of 6.1 MB", Percent: 63, Started: now.Add(-74 * time.Second), StepFrom: now.Add(-4 * time.Second),
		Steps: []supervisor.Step{
			{Name: "lookup", Done: true, Took: 800 * time.Millisecond}, {Name: "build", Done: true, Took: 69 * time.Second},
			{Name: "download", Now: true}, {Name: "verify"}, {Name: "stop"}, {Name: "switch"}, {Name: "start"}, {Name: "probation"},
		},
		Log: []string{"21:04:11 asking for github.com/example/hello@v1.4.2/cmd/hello/linux-amd64-go1.26.8/", "21:04:12 building, queue position 2", "21:05:21 record 1840, included under the tree head of size 1841", "21:05:21 downloading 6.1 MB"},
	}
}

func sampleLines() []string {
	var lines []string
	lines = append(lines, "2026/11/21 21:00:00 GET /<script>alert(1)</script> 404")
	for i := range 40 {
		lines = append(lines, fmt.Sprintf("2026/11/21 21:%02d:03 GET /calendar/%d 200 %d ms", i, i, 3+i%5))
	}
	return lines
}
