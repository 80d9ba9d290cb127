package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/term"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/tlog/follow"
	"example.org/upkeep/tlog/index"
)

// A full sync can be done before the zone is served, or on a machine that
// never serves.
func followCommand() *cli.Command {
	var (
		f    configFlags
		once bool
	)
	return &cli.Command{
		Name:  "follow",
		Short: "read the log into the index without serving",
		Long: `Reads the whole log and keeps following it, like serve does, but answers no
queries. With -once it ends when the index has reached the log's tree head.`,
		Example: "upkeep-dns follow -once -config /etc/upkeep-dns.toml",
		Flags: func(fs *flag.FlagSet) {
			f.register(fs, true)
			fs.BoolVar(&once, "once", false, "end when the index has caught up")
		},
		Run: func(ctx context.Context, args []string) error {
			c, err := f.load(needIndex)
			if err != nil {
				return err
			}
			return followLog(ctx, c, once, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}

var errStopped = errors.New("stopped before the index has caught up; the next run goes on from what is stored")

func followLog(ctx context.Context, c Config, once bool, log *slog.Logger) (err error) {
	c.Log.Mode = "follow"
	db, err := c.Log.fill(ctx)
	if err != nil {
		return err
	}
	store, err := index.Open(c.indexFile(), index.Options{Kind: c.kind(), SeenTime: c.Log.SeenTime, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	client, _, err := openLog(ctx, c, db, nil, log)
	if err == nil && client == nil && once {
		err = errStopped
	}
	if err != nil || client == nil {
		return err
	}
	cfg := follow.Config{Log: client, Store: store, Interval: c.Log.Interval.D(), Once: once, Parallel: c.Log.Parallel, Logger: log}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		cfg.Progress = follow.Bar(os.Stderr)
	}
	if err := follow.Run(ctx, cfg); err != nil {
		if once && ctx.Err() != nil {
			return errStopped
		}
		return noDataTiles(err)
	}
	head, err := store.Head()
	if err != nil {
		return err
	}
	fmt.Printf("%d records\n", head.Size)
	return nil
}

func dumpCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:  "dump",
		Short: "write the whole index as sorted text",
		Long: `Two indexes that followed the same log to the same size write the same bytes.
A server may go on using the index meanwhile, except on Windows and OpenBSD;
until the dump has ended its file grows.`,
		Example: "upkeep-dns dump -state /var/lib/upkeep-dns | sha256sum",
		Flags:   func(fs *flag.FlagSet) { f.register(fs, false) },
		Run: f.run(needIndex, func(_ context.Context, c Config) error {
			store, err := openIndex(c)
			if err != nil {
				return err
			}
			defer store.Close()
			return store.Dump(os.Stdout)
		}),
	}
}

// openIndex opens the index for reading: that of the mode, or the one there is.
func openIndex(c Config) (*index.Store, error) {
	if _, err := os.Stat(c.indexFile()); err != nil && c.Log.Mode == "follow" {
		watched := c
		watched.Log.Mode = "watch"
		if _, err := os.Stat(watched.indexFile()); err == nil {
			c = watched
		}
	}
	store, err := index.Open(c.indexFile(), index.Options{Kind: c.kind(), ReadOnly: true})
	if errors.Is(err, index.ErrLocked) {
		err = cli.Hint(err, "On this system no other process can read it while upkeep-dns serves: ask that, by DNS or on the page of its index.")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = cli.Hint(err, "upkeep-dns serve or follow makes the index; -state or -config names its folder.")
	}
	return store, err
}
