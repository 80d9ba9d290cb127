package main

import (
	"log/slog"
	"os"
	"strings"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/cgroup"
	"example.org/upkeep/supervisor/notify"
)

// ofService begins the names under which systemd keeps what the service wants
// kept, so that it isn't taken for a socket of the unit.
const ofService = "service."

// forSystemd gives the supervisor what there is of systemd: its notify socket,
// the descriptors that it passed or kept, a delegated control group; and what
// the service is given in the same way.
func forSystemd(deps *supervisor.Deps, log *slog.Logger) *notify.Upward {
	up := notify.Up(log)
	deps.Notify = notify.Listen
	if g, err := cgroup.Delegated(); err == nil {
		deps.Groups = g
	}
	deps.Store = new(notify.Store)
	for _, k := range notify.Inherited() {
		name, ours := strings.CutPrefix(k.Name, ofService)
		if !ours {
			deps.Received = append(deps.Received, k)
			continue
		}
		if err := deps.Store.Add(name, k.File); err != nil {
			log.Warn("a descriptor of the service that systemd kept is lost", "err", err)
		}
	}
	if up == nil {
		return nil
	}
	deps.Store.Added = func(k notify.Named) { up.StoreFile(notify.Named{Name: ofService + k.Name, File: k.File}) }
	deps.Store.Removed = func(name string) { up.RemoveFile(ofService + name) }
	deps.StoreFile = func(name string, f *os.File) { up.StoreFile(notify.Named{Name: name, File: f}) }
	deps.ForgetFile = up.RemoveFile
	return up
}
