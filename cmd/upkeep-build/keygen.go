package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

func keygenCommand() *cli.Command {
	file := defaultConfig().Key
	return &cli.Command{
		Name: "keygen", Args: "NAME", Short: "make the key pair of a build log",
		Long: `NAME is the log's name, usually the host name of the service. The secret key is
written to a file, the verifier key, which clients configure, is printed.`,
		Example: "upkeep-build keygen -key build.key build.example.org",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "key", file, "`file` to write; an existing one is never overwritten")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("keygen takes the name of the log")
			}
			if _, err := os.Lstat(file); err == nil {
				return fmt.Errorf("%s exists; a log's key is never overwritten", file)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			secret, verifier, err := tlog.GenerateKey(args[0])
			if err != nil {
				return cli.Hint(err, "A log's name is like a host name: without spaces and plus signs.")
			}
			if err := durable.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
				return err
			}
			fmt.Println(verifier)
			return nil
		},
	}
}
