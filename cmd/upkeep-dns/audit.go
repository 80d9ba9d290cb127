package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

func auditCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:  "audit",
		Short: "read the whole log for versions with two records",
		Long: `An honest checksum database has one record for each version of a module. While
it is followed, a second one is noticed if the index still holds the version.
This reads all records, checks them against the tree head, and prints each
version that has several. It needs 8 bytes of memory for each record, and the
network only for tiles that are not kept (tiles in [log], -tiles). The index is
not used; a server may run meanwhile.

It ends with status 1 if two records of a version have different hashes.`,
		Example: "upkeep-dns audit -config /etc/upkeep-dns.toml",
		Flags:   func(fs *flag.FlagSet) { f.register(fs, true) },
		Run: func(ctx context.Context, args []string) error {
			c, err := f.load(needIndex)
			if err != nil {
				return err
			}
			return audit(ctx, c, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}

// auditTold is how often an audit says how far it is.
const auditTold = 10 * time.Second

func audit(ctx context.Context, c Config, w io.Writer, log *slog.Logger) error {
	c.Log.Mode = "follow"
	db, err := c.Log.fill(ctx)
	if err != nil {
		return err
	}
	client, _, err := openLog(ctx, c, db, nil, log)
	if err == nil && client == nil {
		err = errors.New("stopped before the log was found")
	}
	if err != nil {
		return err
	}
	head, err := client.Update(ctx)
	if errors.Is(err, tlog.ErrStale) {
		head, _ = client.Head()
	} else if err != nil {
		return err
	}
	told := time.Now()
	a := index.Auditor{Client: client, Head: head, Parallel: c.Log.Parallel, Progress: func(pass string, done int64) {
		if time.Since(told) >= auditTold {
			told = time.Now()
			log.Info("reading the log", "log", client.Name(), "for", pass, "records", done, "of", head.Size)
		}
	}}
	result, err := a.Run(ctx)
	if err != nil {
		return noDataTiles(err)
	}
	for _, v := range result.Versions {
		kind := "the same hashes"
		if v.Differ {
			kind = "DIFFERENT HASHES"
		}
		fmt.Fprintf(w, "%s %s has %d records with %s\n", v.Module, v.Version, v.Count, kind)
		for _, r := range v.Records {
			fmt.Fprintf(w, "\trecord %d: zip %s, go.mod %s\n", r.Number, r.Zip, r.GoMod)
		}
		if n := v.Count - int64(len(v.Records)); n > 0 {
			fmt.Fprintf(w, "\tand %d more\n", n)
		}
	}
	if result.More {
		fmt.Fprintf(w, "and more versions than are kept\n")
	}
	fmt.Fprintf(w, "%d records of log %s, all under its tree head; %d malformed; %d versions with several records, of which %d differ\n",
		result.Records, client.Name(), result.Malformed, len(result.Versions), result.Differ())
	if result.Differ() > 0 {
		fmt.Fprintf(w, "Tree head, signed by the log:\n%s", head.Note)
		return &cli.ExitError{Code: 1}
	}
	return nil
}
