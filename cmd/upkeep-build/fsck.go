package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/tlog"
)

func fsckCommand() *cli.Command {
	dir := defaultConfig().State
	return &cli.Command{
		Name: "fsck", Args: "KEY", Short: "check every record, tile and binary of a log's folder",
		Long: `KEY is the log's verifier key. Every record and every tile is compared with the
signed tree head, and every binary and its compressed forms with the hash that
it is stored under. Nothing is changed; the server may run meanwhile. Ends with status 1 when
anything is wrong.`,
		Example: "upkeep-build fsck -state /var/lib/upkeep-build build.example.org+1234abcd+AbCd…",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&dir, "state", dir, "`folder` of the service")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("fsck takes the verifier key of the log")
			}
			return fsck(ctx, dir, args[0])
		},
	}
}

func fsck(ctx context.Context, dir, key string) error {
	wrong := 0
	problem := func(text string) {
		wrong++
		fmt.Println(text)
	}
	head, err := tlog.CheckLog(ctx, filepath.Join(dir, "log"), key, func(id int64, e tlog.Entry) error {
		if rec, err := spec.ParseRecord(e.Text); err != nil {
			problem(fmt.Sprintf("record %d: %v", id, err))
		} else if rec.Spec.String() != e.Key {
			problem(fmt.Sprintf("record %d is of %s, and found as %s", id, rec.Spec, e.Key))
		}
		return nil
	}, problem)
	if err != nil {
		return err
	}
	binaries, err := builder.CheckBinaries(ctx, filepath.Join(dir, "blobs"), problem)
	if err != nil {
		return err
	}
	fmt.Printf("%d records and %d binaries were checked\n", head.Size, binaries)
	if wrong > 0 {
		return errors.New("what is named above is wrong")
	}
	return nil
}
