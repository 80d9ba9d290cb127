package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/internal/metric"
	"example.org/upkeep/supervisor"
	"example.org/upkeep/supervisor/discover/zonetest"
	"example.org/upkeep/tlog"
)

// An anchor that was missing, or is exchanged, is read without a restart.
func TestAnchorReadAgain(t *testing.T) {
	one, two := zonetest.New(t, zonetest.Fast), zonetest.New(t, zonetest.Fast)
	anchor := filepath.Join(t.TempDir(), "anchor")
	write := func(tr *zonetest.Tree) {
		t.Helper()
		if err := os.WriteFile(anchor, []byte(tr.Anchor()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := defaultConfig()
	cfg.State, cfg.Fetch.Dir = t.TempDir(), t.TempDir()
	var err error
	if _, cfg.Fetch.Key, err = tlog.GenerateKey("build.test"); err != nil {
		t.Fatal(err)
	}
	cfg.Discovery.Zone, cfg.Discovery.Anchor, cfg.Discovery.Sources = zonetest.ZoneName, anchor, []string{"tcp://" + one.Addr}
	l := &lazySources{cfg: cfg, log: slog.New(slog.DiscardHandler), metrics: metric.New()}
	ask := func() string {
		t.Helper()
		// The answers' signatures are of a fixed day: the zone's key is what is asked for here.
		k, err := l.Ask(t.Context(), zonetest.Module)
		if err == nil {
			return ""
		}
		var verify *supervisor.VerificationError
		if errors.As(err, &verify) && k.StaleSince.IsZero() {
			t.Error("not told since when answers are stale")
		}
		return err.Error()
	}
	if text := ask(); !strings.Contains(text, "no such file") {
		t.Fatalf("without an anchor: %q", text)
	}
	write(two)
	if text := ask(); !strings.Contains(text, "no key of .") {
		t.Fatalf("with the anchor of another tree: %q", text)
	}
	write(one)
	if err := reload(l, cfg); err != nil {
		t.Fatal(err)
	}
	if text := ask(); strings.Contains(text, "no key of .") || strings.Contains(text, "no such file") {
		t.Errorf("with the right anchor: %q", text)
	}
}

// reload puts a configuration in force.
func reload(l *lazySources, cfg Config) error {
	settle, err := l.prepare(cfg)
	if err == nil {
		settle(true)
	}
	return err
}

// A configuration may be read again whose sources are as wrong as they were, and
// not one that breaks what is well.
func TestReloadWithoutSources(t *testing.T) {
	bare := defaultConfig()
	bare.State, bare.Fetch.Dir = t.TempDir(), t.TempDir()
	well := bare
	well.Discovery.Zone = zonetest.ZoneName
	var err error
	if _, well.Fetch.Key, err = tlog.GenerateKey("build.test"); err != nil {
		t.Fatal(err)
	}
	l := &lazySources{cfg: bare, log: slog.New(slog.DiscardHandler), metrics: metric.New()}
	for i, step := range []struct {
		cfg  Config
		fine bool
	}{{bare, true}, {well, true}, {bare, false}, {well, true}} {
		if err := reload(l, step.cfg); (err == nil) != step.fine {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if _, _, dErr, fErr := l.get(); dErr != nil || fErr != nil {
		t.Errorf("what is in force: %v, %v", dErr, fErr)
	}
}
