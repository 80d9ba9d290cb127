package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"

	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// poll asks for the versions of a module and stores those that are new, of use
// and proven.
func (w *watcher) poll(ctx context.Context, path string, unproven map[string]retry) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	known, err := w.Store.Watched(path)
	if err != nil {
		return err
	}
	versions, err := w.Proxy.List(ctx, path)
	if err != nil {
		return err
	}
	if len(versions) > maxVersions {
		return fmt.Errorf("the module proxy lists %d versions of %s; more than %d are not believed", len(versions), path, maxVersions)
	}
	if len(versions) == 0 {
		// Nothing is tagged: the proxy's latest is a pseudo-version.
		info, err := w.Proxy.Latest(ctx, path)
		if err != nil {
			return err
		}
		versions = []string{info.Version}
	}
	maps.DeleteFunc(unproven, func(v string, _ retry) bool { return !slices.Contains(versions, v) })
	found, errs := w.prove(ctx, path, versions, unproven, !known)
	if len(found) == 0 && (known || len(errs) > 0) {
		return errors.Join(errs...)
	}
	head, err := w.newestHead(ctx, found)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := w.Store.Add(head, path, found, len(errs) == 0); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, f := range found {
		w.metrics.verified()
		w.Logger.Info("version found and proven", "module", path, "version", f.Version, "record", f.Record.ID)
	}
	return errors.Join(errs...)
}

// Bounds of one poll of a module.
const (
	maxLookups  = 200
	maxVersions = 1 << 16
)

// prove looks up the versions that the index wants, newest first. Where the
// newest of a line turns out to have no record, the one before it is tried.
func (w *watcher) prove(ctx context.Context, path string, versions []string, unproven map[string]retry, first bool) (found []index.Found, errs []error) {
	done := map[string]bool{}
	all := candidates(path, versions)
	for lookups, again := 0, true; again; {
		again = false
		for _, v := range wanted(path, without(all, unproven)) {
			if done[v] || lookups == maxLookups {
				continue
			}
			done[v] = true
			ok, err := w.Store.Wants(path, v)
			if err != nil {
				return found, append(errs, err)
			}
			if !ok {
				continue
			}
			lookups++
			rec, err := w.lookup(ctx, path, v)
			if errors.Is(err, tlog.ErrNotFound) {
				// The database could not fetch it: withdrawn before anybody asked for it, perhaps.
				unproven[v] = unproven[v].next(time.Now())
				again = true
				w.Logger.Warn("version is not in the checksum database; it is not served", "module", path, "version", v, "err", err)
				continue
			}
			if err != nil {
				return found, append(errs, err) // the log is out of reach or lies: no use to go on
			}
			found = append(found, index.Found{Version: v, Record: rec, Time: w.time(ctx, path, v, first)})
		}
	}
	return found, errs
}

// A retry says when a version without a record is looked up again. A version
// that is listed a moment before the database knows it must not wait for hours.
type retry struct {
	at   time.Time
	wait time.Duration
}

func (r retry) next(now time.Time) retry {
	wait := min(max(2*r.wait, firstRetry), lastRetry)
	return retry{now.Add(wait), wait}
}

// without returns the versions that are not known to have no record.
func without(versions []string, unproven map[string]retry) []string {
	var out []string
	for _, v := range versions {
		if time.Now().After(unproven[v].at) {
			out = append(out, v)
		}
	}
	return out
}

// time returns the time that counts for a version: at the first poll of a
// module when the proxy says that it was made, later when it was first seen.
func (w *watcher) time(ctx context.Context, path, version string, first bool) int64 {
	now := time.Now()
	if !first {
		return now.Unix()
	}
	info, err := w.Proxy.Info(ctx, path, version)
	switch {
	case err != nil:
		w.Logger.Warn("the module proxy does not tell when a version was made; it counts as found now", "module", path, "version", version, "err", err)
	case info.Time.Unix() > 0 && info.Time.Before(now):
		return info.Time.Unix()
	}
	return now.Unix()
}

// candidates returns the versions that a module can have, newest first.
func candidates(path string, versions []string) []string {
	if path == Toolchain {
		return sortedToolchains(versions)
	}
	var out []string
	for _, v := range versions {
		if module.Check(path, v) == nil {
			out = append(out, v)
		}
	}
	sort.Slice(out, func(i, j int) bool { return semver.Compare(out[i], out[j]) > 0 })
	return out
}

// wanted returns those of the candidates that are worth a question: what is kept
// of a module comes from its newest minor lines and the newest of each major.
func wanted(path string, sorted []string) []string {
	if path == Toolchain {
		return newestToolchains(sorted)
	}
	return newestOfLines(sorted)
}

// newestOfLines keeps the newest release of each of the newest lines and of
// each major, and the newest pre-release.
func newestOfLines(sorted []string) []string {
	var out []string
	lines, majors := map[string]bool{}, map[string]bool{}
	pre := false
	for _, v := range sorted {
		if semver.Prerelease(v) != "" {
			if !pre && len(majors) == 0 {
				pre = true
				out = append(out, v)
			}
			continue
		}
		line, major := semver.MajorMinor(v), semver.Major(v)
		newLine, newMajor := !lines[line], !majors[major]
		lines[line], majors[major] = true, true
		if newMajor || newLine && len(lines) <= 4 {
			out = append(out, v)
		}
	}
	return out
}

func (w *watcher) lookup(ctx context.Context, path, version string) (tlog.Record, error) {
	m, err := module.EscapePath(path)
	if err != nil {
		return tlog.Record{}, err
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		return tlog.Record{}, err
	}
	w.metrics.lookup()
	rec, err := w.Log.Lookup(ctx, m+"@"+v)
	if err != nil {
		return tlog.Record{}, err
	}
	// The proof ties the record to the log; that it answers the question is checked here.
	if want := path + " " + version + " h1:"; !strings.HasPrefix(string(rec.Data), want) {
		return tlog.Record{}, fmt.Errorf("log %s answered a lookup of %s %s with the record of something else (number %d)", w.Log.Name(), path, version, rec.ID)
	}
	return rec, nil
}

// newestHead returns the newest of the tree heads that cover what was found.
func (w *watcher) newestHead(ctx context.Context, found []index.Found) (head tlog.TreeHead, err error) {
	for _, f := range found {
		if f.Record.Head.Size > head.Size {
			head = f.Record.Head
		}
	}
	if len(found) == 0 {
		return w.Log.Update(ctx)
	}
	return head, nil
}

var _ Proxy = (*goproxy.Client)(nil)
var _ Log = (*tlog.Client)(nil)
