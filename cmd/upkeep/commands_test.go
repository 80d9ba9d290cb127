package main

import (
	"bytes"
	"strings"
	"testing"
)

// Each command shows an example, and one that takes no arguments says so.
func TestCommands(t *testing.T) {
	for _, cmd := range program().Commands {
		if cmd.Hidden {
			continue
		}
		if !strings.HasPrefix(cmd.Example, "upkeep "+cmd.Name) {
			t.Errorf("the example of %s is %q", cmd.Name, cmd.Example)
		}
		if cmd.Args != "" {
			continue
		}
		p := program()
		var errOut bytes.Buffer
		p.Stderr = &errOut
		code := p.Run(t.Context(), append(strings.Fields(cmd.Name), "surplus"))
		if code != 2 || !strings.Contains(errOut.String(), " takes no arguments") {
			t.Errorf("%s with an argument: %d, %s", cmd.Name, code, errOut.String())
		}
	}
}
