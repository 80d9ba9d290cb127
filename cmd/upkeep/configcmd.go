package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"example.org/upkeep/internal/cli"
	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor"
)

func configCommands() []*cli.Command {
	var file string
	return []*cli.Command{{
		Name: "config default", Short: "print a configuration with every key, its default and what it means",
		Example: "upkeep config default >upkeep.toml",
		Run: func(_ context.Context, args []string) error {
			text, err := config.Default(defaultConfig())
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(text)
			return err
		},
	}, {
		Name: "config check", Short: "check a configuration without running anything",
		Long: `Reads the file, with the keys and trust anchors that it names, and says all that is
wrong. With mistakes that concern updates only, "upkeep run" would start the service
and install nothing.`,
		Example: "upkeep config check -config /srv/hello/upkeep.toml",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "config", defaultConfigFile, "configuration `file`")
		},
		Run: func(_ context.Context, args []string) error {
			if err := checkConfig(file); err != nil {
				return err
			}
			fmt.Println("The configuration is good.")
			return nil
		},
	}}
}

// checkConfig returns everything that is wrong with a configuration.
func checkConfig(file string) error {
	cfg, err := loadConfig(file)
	if err != nil {
		return err
	}
	err = checkSettings(cfg, file)
	// Opening reads keys and anchors. It can leave files, which are none of a check's business.
	tmp, tmpErr := os.MkdirTemp("", "upkeep-check-")
	if tmpErr != nil {
		return errors.Join(err, tmpErr)
	}
	defer os.RemoveAll(tmp)
	log := slog.New(slog.DiscardHandler)
	scratch := cfg
	scratch.State, scratch.Fetch.Dir = tmp, filepath.Join(tmp, "fetch")
	_, _, discoverErr, fetchErr := (&lazySources{log: log}).open(scratch)
	return errors.Join(err, discoverErr, fetchErr)
}

// checkSettings returns what is wrong with the values of a configuration.
func checkSettings(cfg Config, file string) error {
	engine := cfg.engine(file, nil)
	err := errors.Join(engine.CheckStart(), engine.CheckUpdates())
	if cfg.Web.Listen != "" {
		if _, _, pageErr := pageConfig(cfg, slog.New(slog.DiscardHandler)); pageErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: table web: %w", file, pageErr))
		}
	} else if fmt.Sprint(cfg.Web) != fmt.Sprint(supervisor.WebConfig{}) { // an empty list is one of no elements
		err = errors.Join(err, fmt.Errorf("%s: key web.listen is not set; without it nothing of the table web has an effect", file))
	}
	if ctlErr := supervisor.CheckControl(cfg.Control); ctlErr != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", file, ctlErr))
	}
	return err
}
