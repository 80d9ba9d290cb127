package main

import (
	"strings"
	"testing"
)

// Each command shows an example.
func TestCommands(t *testing.T) {
	for _, cmd := range program().Commands {
		if !cmd.Hidden && !strings.HasPrefix(cmd.Example, "upkeep "+cmd.Name) {
			t.Errorf("the example of %s is %q", cmd.Name, cmd.Example)
		}
	}
}
