package supervisor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.org/upkeep/supervisor/state"
)

// load reads state and history. What is wrong with them stops updates.
func (e *Engine) load() {
	doc, found, err := e.file.Load()
	var damaged *state.DamagedError
	switch {
	case errors.As(err, &damaged):
		e.log.Error(err.Error())
		doc.Events = append(doc.Events, Event{Time: e.now(), First: e.now(), Count: 1, Kind: "state_damaged", Text: err.Error()})
		if damaged.Used == "" {
			// Skips and holds are lost: whatever they held back must not go by itself.
			doc.Paused, doc.PausedBy, doc.PausedWhy = true, "upkeep", "the state was lost: look at what is to be held or skipped, then resume"
		}
	case err != nil:
		e.log.Error("the state can't be read; updates are off", "err", err)
		e.stateErr = err
	}
	e.doc = doc
	e.knowStates()
	if !found && err == nil && e.conf().Updates.Paused {
		e.doc.Paused, e.doc.PausedBy = true, "configuration"
	}
	if e.doc.Seed == "" {
		e.doc.Seed = rand.Text()
		e.dirty = true
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
	if e.history, err = e.hist.Last(maxHistory); err != nil {
		e.log.Error(err.Error())
	}
	if k := e.doc.Known; k != nil {
		e.knowledge = Knowledge{Source: k.Source, Proof: k.Proof, LogSize: k.LogSize, Fresh: k.At}
	}
}

const maxHistory = 100

// knowStates deals with a journal that a newer upkeep wrote, in whose states
// this one can't find its way: the service may have been touched.
func (e *Engine) knowStates() {
	if u := e.doc.Update; u != nil && transitions[u.State] == nil {
		e.log.Error("the journal has a state that this upkeep does not know", "state", u.State)
		if u.State = StateProbation; u.FromFile == "" {
			e.doc.Update = nil
		}
	}
	if u := e.doc.Self.Update; u != nil && selfTransitions[u.State] == nil {
		e.log.Error("the journal has a state that this upkeep does not know", "state", u.State)
		e.doc.Self.Update = nil
	}
}

// look finds out which binary the service's name stands for and what it is.
func (e *Engine) look() {
	if e.repair(); e.doc.Repair != "" {
		e.use(e.doc.Repair)
		return
	}
	file, _, err := e.place.Current()
	if err != nil {
		file = e.place.Path
	}
	e.use(file)
}

// repair tries again to put the service's name back where a roll-back could
// not. Until it succeeds the right file is started all the same.
func (e *Engine) repair() {
	if e.doc.Repair == "" {
		return
	}
	if err := e.place.Switch(e.doc.Repair); err != nil {
		e.log.Error("the service's name still stands for a version that was rolled back", "err", err)
		return
	}
	e.log.Info("the service's name was put right", "file", e.doc.Repair)
	e.doc.Repair, e.dirty = "", true
}

// use takes a file for the running binary.
func (e *Engine) use(file string) {
	e.current, e.sum = file, ""
	e.info, e.infoErr = e.deps.Inspect(file)
	if e.infoErr == nil {
		// What the configuration says comes first: a binary from elsewhere may name itself differently.
		if e.conf().Service.Module != "" && e.conf().Service.Module != e.info.Spec.Module {
			e.infoErr = fmt.Errorf("the service's binary is of module %s and the configuration says %s", e.info.Spec.Module, e.conf().Service.Module)
		}
		if want := strings.Trim(e.conf().Service.Package, "/"); want != "" && want != e.info.Spec.Dir {
			e.infoErr = fmt.Errorf("the service's binary is of package %q in its module and the configuration says %q", e.info.Spec.Dir, want)
		}
	}
	e.info.Spec.Stripped = e.conf().Service.Stripped
	if b := e.doc.binary(file); b != nil {
		e.sum = b.Sum
	}
	e.metrics.service(e.info)
}

// summed takes the sum of the binary that was found at the start. One that
// isn't as it was installed runs all the same, and somebody has to look.
func (e *Engine) summed(file, sum string, err error) {
	switch {
	case err != nil:
		e.log.Warn("the sum of the service's binary isn't known", "err", err)
		return
	case file != e.current:
		return
	}
	if b := e.doc.binary(file); b != nil && b.Sum != sum {
		e.addEvent(Event{Kind: kindChanged, Security: true, Version: b.Version,
			Text: fmt.Sprintf("%s is not the binary that was installed: its sum is %s and not %s", file, sum, b.Sum)})
	}
	e.sum = sum
	e.changed()
}
