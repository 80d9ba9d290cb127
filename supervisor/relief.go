package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

// A version that stood by and supervises runs as another process than the one
// that somebody started. When upkeep is started again it gives way, with the
// service and all that is open, as in an update of upkeep.

// reliefSocket is where it can be asked for that; its owner alone can.
func reliefSocket(state string) string { return filepath.Join(state, "relief.sock") }

const (
	// reliefTime is for how long an upkeep that is started asks.
	reliefTime = 20 * time.Second
	// passTime bounds handing over to it.
	passTime = 5 * time.Second
)

// giveWay waits for an upkeep that is started, until ctx ends.
func (e *Engine) giveWay(ctx context.Context) {
	l, err := ListenControl(reliefSocket(e.conf().State), "")
	if err != nil {
		e.log.Warn("an upkeep that is started can't take over from this one", "err", err)
		return
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if u, ok := c.(*net.UnixConn); ok {
			_ = u.SetDeadline(time.Now().Add(passTime)) // else sending fails by itself
			e.log.Info("upkeep was started again, and this one gives way")
			err := e.relieve(ctx, u)
			e.log.Error("this one goes on", "err", err)
		}
		c.Close()
	}
}

// relieve hands everything over to another process. It returns only when that failed.
func (e *Engine) relieve(ctx context.Context, c *net.UnixConn) error {
	b := handoff.New()
	defer b.Close()
	return e.handParts(ctx, b, func() error {
		defer func() { _ = e.do(context.Background(), e.resumeParts) }()
		var err error
		errDo := e.do(ctx, func() {
			if err = e.mayGiveWay(); err == nil {
				err = errors.Join(e.prepare(b, update{}), b.Put(standbyKey, standbyOrder{}), b.Put(standInKey, standIn{Reason: e.standIn.Reason}))
			}
			if err == nil {
				err = b.Send(c)
			}
			if err == nil {
				os.Exit(0) // at once: lock, sockets and service are another's now
			}
		})
		return errors.Join(err, errDo)
	})
}

func (e *Engine) mayGiveWay() error {
	switch {
	case e.stopping || e.runCtx.Err() != nil:
		return errors.New("upkeep is ending")
	case e.busy() || e.selfBusy():
		return errors.New("an update is under way")
	}
	return nil
}

// Relieve takes over from a version that stood by and supervises now, if there
// is one, and returns nil otherwise.
func Relieve(state string, log *slog.Logger) *handoff.Bundle {
	name := reliefSocket(state)
	for deadline := time.Now().Add(reliefTime); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		c, err := net.DialTimeout("unix", name, time.Second)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
				log.Warn("a version that stood by can't be asked to give way", "err", err)
			}
			return nil
		}
		// Requests under way are answered before.
		_ = c.SetDeadline(time.Now().Add(drainTime + 2*passTime)) // else receiving fails by itself
		b, err := handoff.ReceiveFrom(c.(*net.UnixConn))
		c.Close()
		if err == nil {
			return b
		}
		log.Warn("a version that stood by does not give way yet", "err", err)
	}
	return nil
}
