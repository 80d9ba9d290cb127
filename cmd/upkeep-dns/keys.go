package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/cli"
)

func loadKeys(c Config) ([]*dnsserver.Key, error) {
	keys, err := dnsserver.LoadKeys(c.Keys, c.Zone.Zone)
	if errors.Is(err, dnsserver.ErrNoKeys) {
		err = cli.Hint(err, "Make one: upkeep-dns keygen -zone %s -keys %s", c.Zone.Zone, c.Keys)
	}
	return keys, err
}

func keygenCommand() *cli.Command {
	var (
		f         configFlags
		algorithm string
		zsk       bool
	)
	return &cli.Command{
		Name:  "keygen",
		Short: "make a key that signs the zone",
		Long: `The key is written as two files in the format of BIND's tools. A single key
signs everything; its DS record, which is printed, belongs in the parent zone.
Make the key before the delegation, and keep a copy of both files.`,
		Example: "upkeep-dns keygen -zone l.example.org -keys /var/lib/upkeep-dns/keys",
		Flags: func(fs *flag.FlagSet) {
			f.register(fs, false)
			fs.StringVar(&algorithm, "algorithm", "ecdsap256sha256", "`ecdsap256sha256` or ed25519")
			fs.BoolVar(&zsk, "zsk", false, "a key that only signs the zone's data, beside one that signs the keys")
		},
		Run: f.run(needZone, func(_ context.Context, c Config) error {
			now := time.Now().UTC().Truncate(time.Second)
			have, err := dnsserver.LoadKeys(c.Keys, c.Zone.Zone)
			if err != nil && !errors.Is(err, dnsserver.ErrNoKeys) {
				return err
			}
			k, err := dnsserver.GenerateKey(c.Keys, c.Zone.Zone, algorithm, !zsk, dnsserver.NewTiming(have, !zsk, algorithm, now, c.longestTTL()))
			if err != nil {
				return err
			}
			fmt.Printf("%s.key\n%s.private\n", k.File, k.File)
			if !zsk {
				fmt.Println(k.DS())
			} else if k.Activate.After(now) {
				fmt.Printf("- it signs from %s on, when no cache lacks it; until then the other key signs the data\n", k.Activate.Format("2006-01-02 15:04:05 UTC"))
			}
			return nil
		}),
	}
}

func dsCommand() *cli.Command {
	var f configFlags
	var anchor bool
	return &cli.Command{
		Name:    "ds",
		Short:   "print the DS records for the parent zone",
		Example: "upkeep-dns ds -zone l.example.org -keys /var/lib/upkeep-dns/keys",
		Flags: func(fs *flag.FlagSet) {
			f.register(fs, false)
			fs.BoolVar(&anchor, "anchor", false, "print a trust anchor file for delv(1) instead")
		},
		Run: f.run(needZone, func(_ context.Context, c Config) error {
			keys, err := loadKeys(c)
			if err != nil {
				return err
			}
			signing := dnsserver.Anchors(keys, time.Now())
			if len(signing) == 0 {
				return errors.New("no key is active now")
			}
			if anchor {
				fmt.Println("trust-anchors {")
			}
			for _, k := range signing {
				if !anchor {
					fmt.Println(k.DS())
					continue
				}
				fmt.Printf("\t%q static-key %d %d %d %q;\n", k.Public.Hdr.Name, k.Public.Flags, k.Public.Protocol, k.Public.Algorithm, k.Public.PublicKey)
			}
			if anchor {
				fmt.Println("};")
			}
			return nil
		}),
	}
}
