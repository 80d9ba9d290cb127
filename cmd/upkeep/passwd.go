package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/web/login"
)

// accessFile is where the web page's passwords and tokens are.
func accessFile(c Config) string {
	if c.Web.Access != "" {
		return c.Web.Access
	}
	return filepath.Join(c.State, "access.json")
}

// changeAccess reads the file, changes it and writes it. A supervisor that
// runs notices by itself.
func changeAccess(file string, change func(*login.Access) error) (string, error) {
	c, err := loadConfig(file)
	if err != nil {
		return "", err
	}
	name := accessFile(c)
	a, err := login.ReadAccess(name)
	if err != nil {
		return "", err
	}
	if err := change(&a); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", fmt.Errorf("making the folder for %s: %w", name, err)
	}
	return name, a.Write(name)
}

func passwdCommand() *cli.Command {
	var file, user string
	var remove bool
	return &cli.Command{
		Name: "passwd", Short: "set a password for the web page",
		Long: `The password is asked for twice; when the input is no terminal it is one line of
it. From then on everybody has to log in. A change ends the user's sessions.`,
		Example: "upkeep passwd -config /srv/hello/upkeep.toml -user admin",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "config", defaultConfigFile, "configuration `file`")
			fs.StringVar(&user, "user", "admin", "`name` to log in with")
			fs.BoolVar(&remove, "delete", false, "remove the user")
		},
		Run: func(_ context.Context, args []string) error {
			if err := login.CheckName(user); err != nil {
				return cli.Usagef("-user: %w", err)
			}
			if remove {
				name, err := changeAccess(file, func(a *login.Access) error { return a.RemoveUser(user) })
				if err == nil {
					fmt.Printf("%s can't log in any more (%s).\n", user, name)
				}
				return err
			}
			password, err := askPassword(os.Stdin, os.Stderr)
			if err != nil {
				return err
			}
			name, err := changeAccess(file, func(a *login.Access) error { return a.SetUser(user, password) })
			if err == nil {
				fmt.Printf("%s can log in with the new password (%s).\nA supervisor that ran without any password asks for it from its next start.\n", user, name)
			}
			return err
		},
	}
}

// askPassword asks twice on a terminal; anything else gives one line.
func askPassword(in *os.File, out io.Writer) (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(in, login.MaxPassword+2)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var given [2]string
	for i, prompt := range []string{"Password: ", "Once more: "} {
		fmt.Fprint(out, prompt)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		given[i] = string(b)
	}
	if given[0] != given[1] {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return given[0], nil
}

func tokenCommand() *cli.Command {
	var file, scope string
	var remove bool
	return &cli.Command{
		Name: "token", Args: "NAME", Short: "make a token with which a program may use the API",
		Long: `The token is printed once and not kept. A program sends it in the header
"Authorization: Bearer TOKEN". Scopes: read (see everything), act (see everything
and ask for actions), metrics (fetch /metrics), notify (POST /notify, which has new
versions looked for at once: a webhook for whoever publishes them).`,
		Example: "upkeep token -config /srv/hello/upkeep.toml -scope metrics prometheus",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "config", defaultConfigFile, "configuration `file`")
			fs.StringVar(&scope, "scope", string(login.ScopeRead), "what it is good for: `read`, act, metrics or notify")
			fs.BoolVar(&remove, "delete", false, "remove the token")
		},
		Run: func(_ context.Context, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("name the token, for example after the program that gets it")
			}
			if remove {
				_, err := changeAccess(file, func(a *login.Access) error { return a.RemoveToken(args[0]) })
				return err
			}
			var token string
			name, err := changeAccess(file, func(a *login.Access) (err error) {
				token, err = a.AddToken(args[0], login.Scope(scope), time.Now())
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "Kept as a hash in %s; the token itself is shown only now:\n", name)
			fmt.Println(token)
			return nil
		},
	}
}
