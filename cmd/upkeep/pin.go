package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/supervisor/discover"
)

// anchorName is the file that init keeps a zone's keys in.
const anchorName = "anchor.keys"

// pinner keeps the zone's own keys as the anchor of a new configuration.
type pinner struct {
	firstUse bool // accept keys that nothing proves
	in       io.Reader
	out      io.Writer
	terminal bool // somebody can be asked
}

// pin finds the zone's keys and writes them into a folder, for a configuration
// that has a zone and no anchor. Keys that nothing proves are shown, and kept
// only when somebody says so.
func (p pinner) pin(ctx context.Context, d discover.Config, dir string) (discover.Config, error) {
	if d.Zone == "" || d.Anchor != "" || d.Updates != "" || d.Trust == discover.TrustResolver {
		return d, nil
	}
	found, err := discover.FindPin(ctx, d, time.Now())
	if err != nil {
		return d, cli.Hint(err, "'upkeep doctor' walks the whole path. If you have the zone's keys, give them with -anchor.")
	}
	if found.Proved() {
		fmt.Fprintf(p.out, "Pinned the keys of %s, which the chain from the root zone proves:\n%s\n", found.Zone, found.Keys())
	} else if err := p.ask(found); err != nil {
		return d, err
	}
	d.Anchor = filepath.Join(dir, anchorName)
	return d, durable.WriteFile(d.Anchor, []byte(found.Text(time.Now())), 0o644)
}

func (p pinner) ask(found discover.Pin) error {
	fmt.Fprintf(p.out, `Nothing proves the keys of %s: %v.
Asked just now, %s gave
%s
Whoever stands between here and there can have made this up, and would then decide
from now on which versions exist. Compare it with what the zone's operator tells you
in another way ("upkeep-dns ds" prints it).
`, found.Zone, found.Why, strings.Join(found.Sources, " and "), found.Keys())
	if p.firstUse {
		fmt.Fprintf(p.out, "Accepted on first use, as -first-use says.\n")
		return nil
	}
	refused := cli.Hint(errors.New("the zone's keys are not proved, and nobody accepted them"),
		"Give the operator's keys with -anchor, or accept those above with -first-use.")
	if !p.terminal {
		return refused
	}
	fmt.Fprint(p.out, "Accept these keys for good? Type yes: ")
	line, err := bufio.NewReader(io.LimitReader(p.in, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return refused
	}
	return nil
}
