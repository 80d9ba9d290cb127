package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Preview returns the status as a supervisor would see it, when none runs: from
// the state on disk and, if asked to, from a fresh answer about versions. It
// changes nothing.
func Preview(ctx context.Context, cfg Config, deps Deps, ask bool) (Status, error) {
	if err := cfg.CheckStart(); err != nil {
		return Status{}, err
	}
	e, err := newEngine(cfg, deps, true)
	if err != nil {
		return Status{}, err
	}
	doc, err := e.file.Peek()
	if errors.Is(err, fs.ErrPermission) {
		return Status{}, fmt.Errorf("looking at the state: %w", err)
	}
	e.doc = doc
	if err != nil {
		e.stateErr = err
	}
	if e.doc.FirstSeen == nil {
		e.doc.FirstSeen = map[string]time.Time{}
	}
	if e.doc.Failures == nil {
		e.doc.Failures = map[string]failure{}
	}
	if e.doc.Self.Failures == nil {
		e.doc.Self.Failures = map[string]failure{}
	}
	if k := e.doc.Known; k != nil {
		e.knowledge = Knowledge{Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, Fresh: k.At}
	}
	file, _, err := e.place.Current()
	if err != nil {
		return Status{}, err
	}
	e.use(file)
	if ask && deps.Versions != nil && e.info.Spec.Module != "" {
		k, err := deps.Versions.Ask(ctx, e.info.Spec.Module)
		if err != nil {
			return Status{}, err
		}
		e.doc.Known = &known{Module: e.info.Spec.Module, Releases: k.Releases, GoReleases: k.GoReleases, Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, At: e.now()}
		e.knowledge = Knowledge{Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, Asked: e.now(), Fresh: e.now()}
	}
	e.replan()
	return e.status(), nil
}
