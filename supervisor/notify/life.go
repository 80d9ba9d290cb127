package notify

import "time"

// life is what is known of one run of the service. It is plain: what comes in
// and when decides what is known and when the watchdog bites.
type life struct {
	State
	patience time.Time // without a sign of life, the watchdog waits until then
	armed    bool      // the watchdog counts from the last ping
	bitten   bool
}

func begin(o Options, now time.Time) life {
	return life{State: State{Watchdog: o.Watchdog}, patience: now.Add(o.Patience)}
}

// hear takes a message.
func (l *life) hear(m Message, now time.Time) {
	l.Messages++
	if m.Watchdog != nil {
		l.Watchdog = *m.Watchdog
		l.Ping = now
	}
	if m.Ping {
		l.Ping, l.armed = now, true
	}
	if m.Reloading {
		l.Reloading = true
	}
	if m.Ready {
		if !l.Ready {
			l.ReadyAt = now
		}
		l.Ready, l.Reloading = true, false
		if !l.armed {
			l.Ping, l.armed = now, true
		}
	}
	if m.Stopping {
		l.Stopping, l.Reloading = true, false
	}
	if m.Status != nil {
		l.Status = *m.Status
	}
	if m.Errno != nil {
		l.Errno = *m.Errno
	}
	if m.MainPID != 0 {
		l.MainPID = m.MainPID
	}
	if m.Extend > 0 {
		l.Extended = now.Add(m.Extend)
	}
	if m.Trigger {
		l.bitten = true
	}
}

// deadline is when the watchdog bites; zero = never. A service that is
// stopping has its grace period instead.
func (l *life) deadline() time.Time {
	switch {
	case l.Watchdog <= 0 || l.Stopping:
		return time.Time{}
	case l.armed:
		return l.Ping.Add(l.Watchdog)
	default:
		at := l.patience
		if l.Extended.After(at) {
			at = l.Extended
		}
		return at.Add(l.Watchdog)
	}
}

// expired reports whether the watchdog bites.
func (l *life) expired(now time.Time) bool {
	d := l.deadline()
	return l.bitten || !d.IsZero() && !now.Before(d)
}
