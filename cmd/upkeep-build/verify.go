package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/builder"
	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/tlog"
)

func verifyCommand() *cli.Command {
	var f configFlags
	var logURL, from string
	var once bool
	sample, interval := 1.0, time.Minute
	return &cli.Command{
		Name: "verify", Args: "LOG", Short: "build again what another builder's log records, and report differences",
		Long: `LOG is the verifier key of the other builder's log (name+hash+key). Its log is read
record by record, every one proven to be in it; those in the sample are built here
and compared. How far it got is kept in the state folder. The results stand in a
log of this program's own there; its key is made at the first start.

One line for each record is printed: "same", "differs" or "unknown" (could not be
built here), the number and the spec. For a difference the lines behind it say in
what the binaries differ. With -once the exit status is 1 when anything differs
that was looked at in this run; the next one goes on behind it.`,
		Example: "upkeep-build verify -state audit -from now build.example.org+1234abcd+Ab…",
		Flags: func(fs *flag.FlagSet) {
			f.register(fs)
			fs.StringVar(&logURL, "url", "", "base `address` of the log; empty: https://<name>/tlog, or http://<name>:8000/tlog for a name without a dot")
			fs.StringVar(&from, "from", "start", "at the first start: \"start\" of the log, or \"now\"")
			fs.Float64Var(&sample, "sample", sample, "`part` of the records that is built, from 0 to 1")
			fs.DurationVar(&interval, "interval", interval, "`time` between two looks for new records")
			fs.BoolVar(&once, "once", false, "end when all records were looked at")
		},
		Run: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("verify takes the verifier key of a log")
			}
			if from != "start" && from != "now" {
				return cli.Usagef("-from is %q; it is \"start\" or \"now\"", from)
			}
			if !(sample >= 0 && sample <= 1) || interval < time.Second {
				return cli.Usagef("-sample is between 0 and 1, -interval at least 1s")
			}
			key, err := note.NewVerifier(args[0])
			if err != nil {
				return cli.Usagef("LOG %q is not a verifier key: %v", args[0], err)
			}
			if logURL == "" {
				logURL = builder.LogURL(key.Name())
			}
			c, err := f.load()
			if err != nil {
				return err
			}
			return verify(ctx, c, args[0], key.Name(), strings.TrimSuffix(logURL, "/"), from == "now", sample, interval, once)
		},
	}
}

func verify(ctx context.Context, c Config, key, name, logURL string, fromNow bool, sample float64, interval time.Duration, once bool) (err error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := c.Modules.fill(ctx)
	if err != nil {
		return err
	}
	sb, err := openSandbox(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.State, 0o711); err != nil {
		return fmt.Errorf("making the state folder: %w", err)
	}
	signer, err := auditKey(filepath.Join(c.State, "audit.key"))
	if err != nil {
		return err
	}
	src, err := openSource(ctx, c, db, nil, logger)
	if err != nil {
		return err
	}
	c.Build.Limit = builder.LimitConfig{}
	svc, err := builder.New(builder.Options{Config: c.Build, Dir: c.State, SignerKey: signer, Sandbox: sb, Source: src,
		GOPROXY: onlyProxies(c.Modules.Proxy), GOSUMDB: c.Modules.Database, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	hc := &http.Client{Timeout: 10 * time.Minute}
	client, err := tlog.NewClient(tlog.ClientConfig{Key: key, URL: logURL, Dir: filepath.Join(c.State, "audited", url.PathEscape(name)), HTTP: hc, Logger: logger})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- svc.Run(ctx) }()
	differ := 0
	audit := &builder.Audit{Log: client, Service: svc, File: filepath.Join(c.State, "audited", url.PathEscape(name)+".json"),
		Sample: sample, FromNow: fromNow, Interval: interval, Once: once, HTTP: hc,
		Report: func(f builder.Finding) {
			verdict := "unknown"
			switch {
			case f.Same:
				verdict = "same"
			case f.Differs():
				verdict = "differs"
				differ++
			}
			fmt.Printf("%s %d %s\n", verdict, f.ID, f.Record.Spec)
			if f.Differs() {
				fmt.Printf("\tits sum is %s, ours %s\n", f.Record.Sum, f.Ours)
			}
			for _, d := range append(f.Diff, f.Error) {
				if d != "" {
					fmt.Printf("\t%s\n", d)
				}
			}
		}}
	auditErr := audit.Run(ctx, func() ([]byte, error) {
		salt := make([]byte, 16)
		_, err := rand.Read(salt)
		return salt, err
	})
	stop()
	if err := errors.Join(auditErr, <-ran); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if differ > 0 && once {
		return fmt.Errorf("%d records differ; both binaries are kept in %s", differ, filepath.Join(c.State, "mismatches"))
	}
	return nil
}

// auditKey returns the key of the log of an auditor's own results.
func auditKey(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	secret, _, err := tlog.GenerateKey("audit")
	if err != nil {
		return "", err
	}
	return secret, durable.WriteFile(file, []byte(secret+"\n"), 0o600)
}
