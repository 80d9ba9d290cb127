package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	var n, got int
	prog := func(out, errOut *bytes.Buffer) *Program {
		return &Program{Name: "prog", Short: "Prog does things.", Stdout: out, Stderr: errOut, Commands: []*Command{
			{Name: "serve", Args: "ADDR", Short: "serve things", Example: "prog serve -n 3 :80",
				Flags: func(fs *flag.FlagSet) { fs.IntVar(&n, "n", 1, "how `many`") },
				Run: func(_ context.Context, args []string) error {
					switch strings.Join(args, " ") {
					case "":
						return Usagef("serve needs an address")
					case "seven":
						return &ExitError{Code: 7}
					case ":80":
						got = n
					case "hint":
						return Hint(errors.New("no room"), "Free some space.")
					}
					return nil
				}},
			{Name: "config check", Short: "check the configuration", Run: func(context.Context, []string) error { return nil }},
			{Name: "shim", Hidden: true, Run: func(context.Context, []string) error { return nil }},
		}}
	}
	for _, tc := range []struct {
		args     string
		code     int
		out, err string
	}{
		{"", 2, "", "Usage: prog COMMAND"},
		{"-h", 0, "config check  check the configuration", ""},
		{"help serve", 0, "Usage: prog serve [flags] ADDR", ""},
		{"serve -h", 0, "  prog serve -n 3 :80", ""},
		{"serve -x", 2, "", "Run 'prog serve -h' for its flags."},
		{"serve", 2, "", "prog: serve needs an address\nRun 'prog serve -h' for its use."},
		{"serve -n 5 :80", 0, "", ""},
		{"serve :80 -n 3", 2, "", "-n stands behind an argument; flags come first"},
		{"serve :80 -- -n 3", 0, "", ""},
		{"serve -- -n", 0, "", ""},
		{"serve seven", 7, "", ""},
		{"config check", 0, "", ""},
		{"config check surplus", 2, "", "config check takes no arguments\nRun 'prog config check -h' for its use."},
		{"shim surplus", 0, "", ""},
		{"serve hint", 1, "", "prog: no room\nFree some space.\n"},
		{"config", 2, "", "prog: config needs one of: check"},
		{"config -h", 0, "prog config check: check the configuration\n", ""},
		{"config -x", 2, "", "prog: config needs one of: check"},
		{"help sevre", 2, "", `prog: there is no command "sevre"`},
		{"help config", 2, "", "prog: config needs one of: check"},
		{"sevre -h", 2, "", `prog: there is no command "sevre"`},
		{"config check", 0, "", ""},
		{"version", 0, "go1.", ""},
		{"sevre", 2, "", `prog: there is no command "sevre"`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := prog(&out, &errOut).Run(t.Context(), strings.Fields(tc.args))
			if code != tc.code {
				t.Errorf("exit code %d; want %d", code, tc.code)
			}
			for _, s := range []struct{ name, got, want string }{{"stdout", out.String(), tc.out}, {"stderr", errOut.String(), tc.err}} {
				if s.want == "" && s.got != "" || !strings.Contains(s.got, s.want) {
					t.Errorf("%s is %q; want %q", s.name, s.got, s.want)
				}
			}
			if strings.Contains(out.String()+errOut.String(), "shim") {
				t.Error("a hidden command is shown")
			}
		})
	}
	if got != 5 {
		t.Errorf("flag n was %d in the command; want 5", got)
	}
}
