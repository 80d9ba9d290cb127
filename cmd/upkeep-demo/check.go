package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/supervisor"
)

// Limits that hold also on a machine with much other work.
const (
	buildTime  = 5 * time.Minute // a build, and what follows
	answerTime = time.Minute     // what a program does at once
)

// check goes through everything unattended. A failed step ends it, except
// that each attack is tried whatever became of the one before.
func (d *demo) check(ctx context.Context) error {
	began := time.Now()
	if err := d.setUp(ctx); err != nil {
		return err
	}
	var err error
	if d.real() {
		err = d.checkReal(ctx)
	} else {
		err = d.checkSample(ctx)
	}
	if err == nil && d.r.failed > 0 {
		err = fmt.Errorf("%d of %d steps failed", d.r.failed, d.r.steps)
	}
	if err != nil {
		return err
	}
	fmt.Printf("all %d steps held, in %.1f s\n", d.r.steps, time.Since(began).Seconds())
	return nil
}

func (d *demo) checkReal(ctx context.Context) error {
	var newest string
	err := d.r.step(ctx, "the index knows a newer version, the page offers it", func(ctx context.Context) (string, error) {
		s, err := d.offered(ctx, d.source.version, 2*time.Minute)
		if err != nil {
			return "", err
		}
		newest = s.Plan.Candidate.Version
		return newest, nil
	})
	if err != nil {
		return d.explain("offer", err)
	}
	if err := d.upgrade(ctx, newest, 15*time.Minute); err != nil {
		return err
	}
	return nil
}

func (d *demo) checkSample(ctx context.Context) error {
	if err := d.publishAndSee(ctx, sampleSecond); err != nil {
		return err
	}
	if err := d.upgrade(ctx, sampleSecond, buildTime); err != nil {
		return err
	}
	// A program that is killed comes back and the others did not mind.
	for _, p := range []*program{d.ecosystem, d.dns, d.build, d.upkeep} {
		err := d.r.step(ctx, p.name+" is killed with SIGKILL and started again", func(ctx context.Context) (string, error) {
			return d.killed(ctx, p)
		})
		if err != nil {
			return d.explain("kill "+p.name, err)
		}
	}
	version, err := nextPatch(sampleSecond)
	if err != nil {
		return err
	}
	if err := d.publishAndSee(ctx, version); err != nil {
		return err
	}
	if err := d.upgrade(ctx, version, buildTime); err != nil {
		return err
	}
	last, err := d.attacks(ctx, version)
	if err != nil {
		return err
	}
	return d.automatic(ctx, last)
}

func (d *demo) publishAndSee(ctx context.Context, version string) error {
	err := d.r.step(ctx, "publish "+version+", seen in DNS", func(ctx context.Context) (string, error) {
		if _, err := d.publish(ctx, version); err != nil {
			return "", err
		}
		// The log is polled every dnsPoll; a second later at the latest it is in DNS.
		return d.seeDNS(ctx, version, dnsPoll+time.Second)
	})
	if err != nil {
		return d.explain("publish", err)
	}
	return nil
}

// offered waits until the page offers a version newer than the given one.
func (d *demo) offered(ctx context.Context, than string, limit time.Duration) (supervisor.Status, error) {
	var s supervisor.Status
	err := until(ctx, limit, func(ctx context.Context) (err error) {
		if s, err = status(ctx, webURL(d.addr.web)); err != nil {
			return err
		}
		c := s.Plan.Candidate
		if c == nil || semver.Compare(c.Version, than) <= 0 {
			return fmt.Errorf("the page offers nothing newer than %s: %s %s %s", than, s.Summary, s.Plan.Reason, s.Knowledge.Error)
		}
		page, err := d.browser.page(ctx, webURL(d.addr.web)+"/")
		if err != nil {
			return err
		}
		_, _, err = findForm(page, upgradeButton+" to "+c.Version)
		return err
	})
	return s, err
}

// upgradeButton is how the button's text starts on the supervisor's page.
const upgradeButton = "Upgrade now"

// upgrade clicks and waits until the service is the new version.
func (d *demo) upgrade(ctx context.Context, version string, limit time.Duration) error {
	web := webURL(d.addr.web)
	err := d.r.step(ctx, "one click upgrades to "+version, func(ctx context.Context) (string, error) {
		s, err := d.offered(ctx, d.runningVersion(ctx), answerTime)
		if err != nil {
			return "", err
		}
		if s.Plan.Candidate.Version != version {
			return "", fmt.Errorf("the page offers %s; it should be %s", s.Plan.Candidate.Version, version)
		}
		v := visit(ctx, webURL(d.addr.service)+"/")
		defer v.stop()
		if err := d.browser.press(ctx, web+"/", upgradeButton); err != nil {
			return "", err
		}
		err = until(ctx, limit, func(ctx context.Context) error {
			s, err := status(ctx, web)
			if err != nil {
				return err
			}
			if u := s.Update; u != nil {
				d.r.progress("%s %s", u.Step, u.Detail)
				return fmt.Errorf("the update is at %q", u.Step)
			}
			if r := s.LastResult; r != nil && r.To.Version == version && r.Result != supervisor.ResultInstalled {
				return nil // over, and not as it should be: seeService says so
			}
			if s.Service.Version != version {
				return fmt.Errorf("the service is %s", s.Service.Version)
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		seen, err := d.seeService(ctx, version, answerTime)
		if s, serr := status(ctx, web); err != nil && serr == nil && s.LastResult != nil {
			err = fmt.Errorf("%w; the last update: %s, %s", err, s.LastResult.Result, s.LastResult.Reason)
		}
		if err != nil {
			return "", err
		}
		visits, err := v.leave(s.Service.Handover.Mode == supervisor.HandoverRetain)
		return seen + "; " + visits, err
	})
	if err != nil {
		return d.explain("upgrade", err)
	}
	return nil
}

// runningVersion is that of the process that listens on the service's port.
func (d *demo) runningVersion(ctx context.Context) string {
	bi, _, err := listener(ctx, d.addr.service, webURL(d.addr.web))
	if err != nil {
		return ""
	}
	return bi.Main.Version
}

// killed kills a program and waits until all of them answer again.
func (d *demo) killed(ctx context.Context, p *program) (string, error) {
	old := p.pid()
	before := d.runningVersion(ctx)
	if err := p.kill(); err != nil {
		return "", err
	}
	err := until(ctx, answerTime, func(context.Context) error {
		if p.pid() == old {
			return errors.New("it has not been started again")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if _, err := d.seeDNS(ctx, before, answerTime); err != nil {
		return "", err
	}
	for _, u := range []string{
		webURL(d.addr.ecosystem) + "/sumdb/" + sumDBName + "/latest",
		webURL(d.addr.build) + "/tlog/latest",
		webURL(d.addr.web) + "/",
	} {
		err := until(ctx, answerTime, func(ctx context.Context) error {
			_, err := httpText(ctx, u)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	// After the supervisor's death there must be one service again, not two.
	seen, err := d.seeService(ctx, before, answerTime)
	return fmt.Sprintf("process %d followed %d; %s", p.pid(), old, seen), err
}

// An attack is a lie that has to be refused.
type attack struct {
	name   string
	kinds  []string // of the failures counter, any of them
	begin  func(ctx context.Context, next string) error
	end    func() (lies int)
	click  bool // somebody asks for the update
	reason string
}

// attacks goes through the lies. The old version has to go on serving, the
// page has to tell the reason, and a metric has to count it.
func (d *demo) attacks(ctx context.Context, running string) (last string, err error) {
	version := running
	endFork := func() {}
	attacks := []attack{{
		name:  "attack: the builder serves a binary with one flipped bit",
		kinds: []string{"bad_sum"},
		click: true, reason: "sum",
		begin: func(ctx context.Context, next string) error {
			d.httpRelay.mu.Lock()
			d.httpRelay.flip = true
			d.httpRelay.mu.Unlock()
			_, err := d.publish(ctx, next)
			return err
		},
		end: func() int { flipped, _ := d.httpRelay.honest(); return flipped },
	}, {
		name:  "attack: the builder's log forks",
		kinds: []string{"log_fork"},
		click: true, reason: "fork",
		begin: func(ctx context.Context, next string) (err error) {
			key, err := d.buildSignerKey()
			if err != nil {
				return err
			}
			endFork, err = d.httpRelay.startFork(ctx, filepath.Join(d.dir, "fork"), key)
			if err != nil {
				return err
			}
			_, err = d.publish(ctx, next)
			return err
		},
		end: func() int { _, forked := d.httpRelay.honest(); endFork(); return forked },
	}, {
		name:   "attack: the DNS answer carries a signature by another key",
		kinds:  []string{"dns_wrong_key", "dns_bad_signature"},
		reason: "key",
		begin: func(ctx context.Context, next string) error {
			d.dnsRelay.forge(next)
			return nil
		},
		end: func() int { return d.dnsRelay.honest() },
	}}
	for _, a := range attacks {
		next, err := nextPatch(version)
		if err != nil {
			return "", err
		}
		if a.click {
			version = next
		}
		// The others are tried even if one is not refused: the report counts.
		_ = d.r.step(ctx, a.name, func(ctx context.Context) (string, error) { return d.refused(ctx, a, running, next) })
	}
	// With honest servers again, the version that was kept back goes through.
	return version, d.upgrade(ctx, version, buildTime)
}

// automatic changes the policy to patch, without a delay, and publishes a
// version: nobody has to click.
func (d *demo) automatic(ctx context.Context, running string) error {
	version, err := nextPatch(running)
	if err != nil {
		return err
	}
	err = d.r.step(ctx, "with the policy patch, "+version+" is installed by itself", func(ctx context.Context) (string, error) {
		file := filepath.Join(d.dir, "service", "upkeep.toml")
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		changed := strings.Replace(string(text), "policy = 'manual'", "policy = 'patch'", 1)
		if changed == string(text) {
			return "", fmt.Errorf("%s does not set the policy", file)
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			return "", err
		}
		pid := d.upkeep.pid()
		if err := d.upkeep.signal(syscall.SIGHUP); err != nil {
			return "", err
		}
		if _, err := d.publish(ctx, version); err != nil {
			return "", err
		}
		seen, err := d.seeService(ctx, version, buildTime)
		if err == nil && d.upkeep.pid() != pid {
			err = errors.New("upkeep ended when it was told to read its configuration again")
		}
		return seen, err
	})
	if err != nil {
		return d.explain("automatic", err)
	}
	return nil
}

func (d *demo) failures(ctx context.Context, kinds []string) (float64, error) {
	total, any := 0.0, false
	for _, k := range kinds {
		n, found, err := metric(ctx, webURL(d.addr.web)+"/metrics", "upkeep_verification_failures_total", `kind="`+k+`"`)
		if err != nil {
			return 0, err
		}
		total, any = total+n, any || found
	}
	if !any {
		return 0, fmt.Errorf("there is no metric upkeep_verification_failures_total of kind %s", strings.Join(kinds, ", "))
	}
	return total, nil
}

func (d *demo) refused(ctx context.Context, a attack, running, next string) (seen string, err error) {
	web := webURL(d.addr.web)
	before, err := d.failures(ctx, a.kinds)
	if err != nil {
		return "", err
	}
	was, pid, err := listener(ctx, d.addr.service, web)
	if err != nil {
		return "", err
	}
	if err := a.begin(ctx, next); err != nil {
		return "", err
	}
	defer func() {
		if lies := a.end(); lies == 0 && err == nil {
			err = errors.New("the lie was never told")
		}
	}()
	if a.click {
		err := until(ctx, answerTime, func(ctx context.Context) error {
			s, err := d.offered(ctx, running, 10*time.Second)
			if err == nil && s.Plan.Candidate.Version != next {
				err = fmt.Errorf("the page offers %s; it should be %s", s.Plan.Candidate.Version, next)
			}
			return err
		})
		if err != nil {
			return "", err
		}
		if err := d.browser.press(ctx, web+"/", upgradeButton); err != nil {
			return "", err
		}
	}
	var reason string
	err = until(ctx, buildTime, func(ctx context.Context) error {
		after, err := d.failures(ctx, a.kinds)
		if err != nil {
			return err
		}
		if after <= before {
			return fmt.Errorf("upkeep_verification_failures_total of kind %s stays at %v", strings.Join(a.kinds, ", "), after)
		}
		s, err := status(ctx, web)
		if err != nil {
			return err
		}
		if s.Update != nil {
			return fmt.Errorf("the update is at %q", s.Update.Step)
		}
		reason = ""
		for _, e := range s.Events {
			if e.Security && slices.Contains(a.kinds, e.Kind) {
				reason = e.Text
				break
			}
		}
		if !strings.Contains(reason, a.reason) {
			return fmt.Errorf("no security event tells of it; the newest reason is %q", reason)
		}
		page, err := d.browser.page(ctx, web+"/")
		if err != nil {
			return err
		}
		if !strings.Contains(html.UnescapeString(page), reason) {
			return fmt.Errorf("the page does not tell the reason %q", reason)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	// The old version goes on: the same process, serving.
	var is *debug.BuildInfo
	var pidNow int
	if is, pidNow, err = listener(ctx, d.addr.service, web); err != nil {
		return "", err
	}
	if is.Main.Version != was.Main.Version || pidNow != pid {
		return "", fmt.Errorf("process %d with %s serves; it should be process %d with %s", pidNow, is.Main.Version, pid, was.Main.Version)
	}
	if _, err := d.seeService(ctx, running, answerTime); err != nil {
		return "", err
	}
	return fmt.Sprintf("refused, %s goes on serving; page and metric %s: %s", running, strings.Join(a.kinds, "/"), httpget.Line(reason, 160)), nil
}
