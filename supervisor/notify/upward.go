package notify

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Upward is the supervisor's own way to systemd. Without NOTIFY_SOCKET, and
// for a nil one, all its methods do nothing.
type Upward struct {
	log *slog.Logger

	mu     sync.Mutex
	status string
	failed bool // said so already
}

// Up returns the way to systemd, nil when there is none.
func Up(log *slog.Logger) *Upward {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &Upward{log: log}
}

// Ready tells that the service runs, at the start or after a reload.
func (u *Upward) Ready() { u.send(daemon.SdNotifyReady) }

// Reloading tells that the configuration is being read again; Ready has to follow.
func (u *Upward) Reloading() {
	u.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping tells that the supervisor is ending.
func (u *Upward) Stopping() { u.send(daemon.SdNotifyStopping) }

// Extend asks for so much time for the start or stop under way, from now.
func (u *Upward) Extend(d time.Duration) {
	u.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

// Status sets the line that systemctl shows.
func (u *Upward) Status(text string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	same := u.status == text
	u.status = text
	u.mu.Unlock()
	if !same {
		u.send("STATUS=" + clean(text))
	}
}

// Watchdog tells systemd that the supervisor works, as often as the unit wants
// it and for as long as healthy says so, until ctx ends.
func (u *Upward) Watchdog(ctx context.Context, healthy func(context.Context) error) {
	if u == nil {
		return
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		u.log.Warn("the unit's watchdog can't be served", "err", err)
	}
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, interval/3)
		err := healthy(check)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			u.log.Error("upkeep is not well; systemd's watchdog is not told otherwise", "err", err)
		} else {
			u.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// StoreFile has systemd keep an open file under a name, over the end of the supervisor.
func (u *Upward) StoreFile(k Named) {
	if !goodName(k.Name) {
		if u != nil {
			u.log.Warn("a descriptor can't be kept by systemd", "name", clean(k.Name))
		}
		return
	}
	u.send("FDSTORE=1\nFDNAME="+k.Name, k.File)
}

// RemoveFile undoes StoreFile for all files of the name.
func (u *Upward) RemoveFile(name string) {
	if goodName(name) {
		u.send("FDSTOREREMOVE=1\nFDNAME=" + name)
	}
}

// send delivers a message. That systemd can't be reached is no reason for anything else to fail.
func (u *Upward) send(state string, files ...*os.File) {
	if u == nil {
		return
	}
	var err error
	if len(files) == 0 {
		_, err = daemon.SdNotify(false, state)
	} else {
		err = sendFiles(state, files)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil && !u.failed {
		u.failed = true
		u.log.Warn("systemd can't be told", "err", err)
	}
}

// Inherited takes the files that systemd passed: its sockets for us and what
// it kept. It can be called once; they aren't passed on by themselves.
func Inherited() []Named {
	var list []Named
	for _, f := range activation.Files(true) {
		list = append(list, Named{f.Name(), f})
	}
	return list
}
