// Package sources joins discovery and fetching to the engine: it says in the
// engine's words what discover and fetch found out and verified.
//
// It trusts what these two return without an error, and nothing else; it keeps
// no files.
package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/semver"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/dnsserver/name"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover"
	"example.org/upkeep/supervisor/fetch"
	"example.org/upkeep/supervisor/policy"
)

// Versions is discovery as the engine sees it.
type Versions struct {
	Discover *discover.Discoverer
	Fetch    *fetch.Fetcher // nil: what authors say of their versions is not known
	facts    factCache
}

var (
	_ supervisor.Versions = (*Versions)(nil)
	_ supervisor.Binaries = (*Binaries)(nil)
)

// dnsKind begins the kinds of verification errors that discovery finds.
const dnsKind = "dns_"

// Kinds are all kinds of verification errors, for metric labels.
func Kinds() []string {
	kinds := append([]string(nil), fetch.VerifyKinds...)
	for _, k := range discover.BogusKinds {
		kinds = append(kinds, dnsKind+k)
	}
	for k := range securityEvents {
		kinds = append(kinds, dnsKind+k)
	}
	return kinds
}

// securityEvents are those events of discovery that mean that somebody lies or
// something is broken. What is bogus comes with a kind of its own.
var securityEvents = map[string]bool{
	discover.EventInsecure: true, discover.EventStale: true, discover.EventConflict: true, discover.EventDisagree: true,
	discover.EventVanished: true, discover.EventLower: true, discover.EventMalformed: true,
	discover.EventSilence: true, discover.EventNotFound: true,
}

func (v *Versions) Ask(ctx context.Context, module string) (supervisor.Known, error) {
	a, err := v.Discover.Ask(ctx, module)
	k := supervisor.Known{Source: a.Source, Proof: a.Proof, Releases: releases(a.Versions), StaleSince: a.Fresh.StaleSince, Silent: a.Fresh.Silent}
	for _, t := range a.Toolchain {
		k.GoReleases = append(k.GoReleases, policy.GoRelease{Version: t.Version, Kind: t.Kind, Discovered: t.Time})
	}
	if a.Status != nil {
		k.LogSize = a.Status.Size
	}
	for _, e := range a.Events {
		if e.Kind == discover.EventBogus {
			continue // said below
		}
		k.Events = append(k.Events, supervisor.Event{Kind: dnsKind + e.Kind, Security: securityEvents[e.Kind], Text: e.Text})
	}
	// One source of several may lie while the others are believed.
	var inErr *discover.BogusError
	for _, s := range a.Sources {
		var bogus *discover.BogusError
		if errors.As(s.Err, &bogus) && !(errors.As(err, &inErr) && inErr == bogus) {
			k.Events = append(k.Events, supervisor.Event{Kind: dnsKind + bogus.Kind, Security: true, Text: s.Source + ": " + bogus.Reason})
		}
	}
	if inErr == nil {
		errors.As(err, &inErr)
	}
	if inErr != nil {
		err = &supervisor.VerificationError{Kind: dnsKind + inErr.Kind, Err: err}
	}
	if ev := v.facts.apply(ctx, v.Fetch, module, k.Releases); ev != nil {
		k.Events = append(k.Events, *ev)
	}
	return k, err
}

func releases(entries []name.Entry) []policy.Release {
	var list []policy.Release
	for _, e := range entries {
		list = append(list, policy.Release{Version: e.Version, Discovered: e.Time})
	}
	return list
}

// maxListed is how many releases of a minor line are looked at: the newest, and
// some more in case its author retracted it.
const maxListed = 4

// List returns the newest releases of a minor line that the module proxy
// lists, each verified in the checksum database.
func (v *Versions) List(ctx context.Context, module, line string) ([]policy.Release, error) {
	if v.Fetch == nil || v.Fetch.Proxy() == nil {
		return nil, errors.New("no module proxy is configured (fetch.proxy)")
	}
	all, err := v.Fetch.Proxy().List(ctx, module)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(ver string) bool { return semver.MajorMinor(ver) != line || semver.Prerelease(ver) != "" })
	semver.Sort(all)
	slices.Reverse(all)
	var list []policy.Release
	for _, ver := range all[:min(len(all), maxListed)] {
		if err := v.Fetch.VerifyVersion(ctx, module, ver); err != nil {
			return nil, verification(err)
		}
		list = append(list, policy.Release{Version: ver})
	}
	v.facts.mark(module, list)
	return list, nil
}

// Binaries is fetching as the engine sees it.
type Binaries struct{ Fetch *fetch.Fetcher }

func (b *Binaries) Lookup(ctx context.Context, s spec.Spec, progress func(supervisor.Progress)) (supervisor.Binary, error) {
	// First whether this is a version that everybody sees, then the build.
	if err := b.Fetch.VerifyVersion(ctx, s.Module, s.Version); err != nil {
		return supervisor.Binary{}, verification(err)
	}
	progress(supervisor.Progress{Step: "looking up", Detail: "asking " + b.Fetch.Builder()})
	p, err := b.Fetch.Lookup(ctx, s, func(p fetch.Progress) {
		out := supervisor.Progress{Step: p.State, Detail: p.Text}
		if p.State == "queued" {
			out.Detail = fmt.Sprintf("position %d in the builder's queue", p.Position)
		}
		progress(out)
	})
	if err != nil {
		return supervisor.Binary{}, verification(err)
	}
	out := supervisor.Binary{Spec: s, Size: p.Record.Size, Sum: p.Record.Sum, Builder: b.Fetch.Builder(), LogIndex: p.Index, LogSize: p.Head.Size, Proof: p}
	for _, a := range p.Agreed {
		text := a.Name
		if a.Index >= 0 {
			text += fmt.Sprintf(" (record %d)", a.Index)
		}
		out.Agreed = append(out.Agreed, text)
	}
	return out, nil
}

func (b *Binaries) Download(ctx context.Context, bin supervisor.Binary, file string, progress func(supervisor.Progress)) error {
	p, ok := bin.Proof.(fetch.Proof)
	if !ok {
		return errors.New("downloading: the record has no proof")
	}
	last := -1
	err := b.Fetch.Download(ctx, p, file, func(done, total int64) {
		if percent := int(done * 100 / max(total, 1)); percent != last {
			last = percent
			progress(supervisor.Progress{Step: "downloading", Percent: percent, Detail: fmt.Sprintf("%d %% of %.1f MB", percent, float64(total)/1e6)})
		}
	})
	return verification(err)
}

// verification translates the errors that the engine treats specially.
func verification(err error) error {
	var ve *fetch.VerifyError
	if errors.As(err, &ve) {
		return &supervisor.VerificationError{Kind: ve.Kind, Err: err}
	}
	var be *fetch.BuildError
	if errors.As(err, &be) && be.Permanent {
		return &supervisor.PermanentError{Err: err}
	}
	return err
}

// Withdrawn asks, now, whether the author took a version back, and says why:
// "" when nobody did. What Ask said of it can be as old as the last poll.
func (v *Versions) Withdrawn(ctx context.Context, module, version string) (why string, err error) {
	if v.Fetch == nil {
		return "", errors.New("fetching is not configured")
	}
	why, err = v.Fetch.Withdrawn(ctx, module, version)
	return why, verification(err)
}
