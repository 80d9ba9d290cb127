package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/cli"
)

func keyStatusCommand() *cli.Command {
	var f configFlags
	return &cli.Command{
		Name:    "key status",
		Short:   "print the zone's keys, what they do now and what comes next",
		Example: "upkeep-dns key status -config /etc/upkeep-dns.toml",
		Flags:   func(fs *flag.FlagSet) { f.register(fs, false) },
		Run: f.run(needZone, func(_ context.Context, c Config) error {
			keys, err := loadKeys(c)
			if err != nil {
				return err
			}
			return printKeys(keys, time.Now())
		}),
	}
}

func printKeys(keys []*dnsserver.Key, now time.Time) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TAG\tALGORITHM\tSIGNS\tSTATE\tNEXT CHANGE")
	for _, k := range keys {
		signs := "data"
		if k.SEP() {
			signs = "keys (DS)"
		}
		next := "-"
		if at := k.Timing.Next(now); !at.IsZero() {
			next = at.UTC().Format("2006-01-02 15:04:05 UTC")
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", k.Tag, dns.AlgorithmToString[k.Public.Algorithm], signs, k.State(now), next)
	}
	return w.Flush()
}

func keyRollCommand() *cli.Command {
	var (
		f                   configFlags
		zsk, finish, seen   bool
		algorithm, resolver string
	)
	return &cli.Command{
		Name:  "key roll",
		Short: "change a signing key without a gap",
		Long: `Without flags: makes a new key beside the one that the DS record names; both
sign (double signature). When the parent zone has the new DS record, -finish
retires the old key; it looks into the parent zone first and changes nothing
when the record is not there. With -zsk: changes the key that only signs data by
publishing the next one first; nothing has to follow.
A running server takes the keys when it gets SIGHUP, and keeps their times.`,
		Example: `upkeep-dns key roll -config /etc/upkeep-dns.toml
upkeep-dns key roll -finish -config /etc/upkeep-dns.toml`,
		Flags: func(fs *flag.FlagSet) {
			f.register(fs, false)
			fs.BoolVar(&zsk, "zsk", false, "change the key that only signs data")
			fs.BoolVar(&finish, "finish", false, "retire the old key, once the parent zone names the new one")
			fs.BoolVar(&seen, "ds-seen", false, "with -finish: don't ask the parent zone; you have seen the new DS record there (or trust anchor)")
			fs.StringVar(&algorithm, "algorithm", "", "`algorithm` of the new key, if it is to be another")
			fs.StringVar(&resolver, "resolver", "", "with -finish: `host:port` of the resolver to ask (default: the system's)")
		},
		Run: func(ctx context.Context, args []string) error {
			if zsk && (finish || algorithm != "") || finish && algorithm != "" {
				return cli.Usagef("key roll takes one of -zsk, -finish and -algorithm")
			}
			if !finish && (seen || resolver != "") {
				return cli.Usagef("-ds-seen and -resolver belong to key roll -finish")
			}
			c, err := f.load(needZone)
			if err != nil {
				return err
			}
			keys, err := loadKeys(c)
			if err != nil {
				return err
			}
			now := time.Now().UTC().Truncate(time.Second)
			longest := c.longestTTL()
			var r *dnsserver.Roll
			switch {
			case zsk:
				r, err = dnsserver.PlanZSK(keys, now, longest)
			case finish:
				r, err = planFinish(ctx, c, keys, resolver, seen, now, longest)
			default:
				r, err = dnsserver.PlanSEP(keys, algorithm, now, longest)
			}
			if err != nil {
				return err
			}
			return applyRoll(c, r)
		},
	}
}

// longestTTL is that of the zone's own records.
func (c *Config) longestTTL() time.Duration {
	return max(c.Zone.ApexTTL.D(), c.Zone.TTL.D(), c.Zone.NegativeTTL.D())
}

func planFinish(ctx context.Context, c Config, keys []*dnsserver.Key, resolver string, seen bool, now time.Time, ttl time.Duration) (*dnsserver.Roll, error) {
	var parent []*dns.DS
	dsTTL := 48 * time.Hour // when it is not known
	if seen {
		for _, k := range dnsserver.Anchors(keys, now) {
			parent = append(parent, k.DS())
		}
	} else {
		var err error
		if parent, dsTTL, err = parentDS(ctx, c.Zone.Zone, resolver); err != nil {
			return nil, cli.Hint(err, "Without a parent zone that can be asked, look yourself and use -ds-seen.")
		}
	}
	return dnsserver.PlanFinish(keys, parent, dsTTL, now, ttl)
}

// parentDS asks a resolver for the DS records of the zone. The answer decides
// only when the old key goes; it is not believed for anything else.
func parentDS(ctx context.Context, zone, resolver string) ([]*dns.DS, time.Duration, error) {
	if resolver == "" {
		var err error
		if resolver, err = systemResolver("/etc/resolv.conf"); err != nil {
			return nil, 0, err
		}
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(zone), dns.TypeDS)
	m.SetEdns0(1232, true)
	c := dns.Client{Timeout: 10 * time.Second}
	r, _, err := c.ExchangeContext(ctx, m, resolver)
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.ExchangeContext(ctx, m, resolver)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("asking %s for the DS records of %s: %w", resolver, zone, err)
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, 0, fmt.Errorf("asking %s for the DS records of %s: it answered %s", resolver, zone, dns.RcodeToString[r.Rcode])
	}
	var list []*dns.DS
	ttl := time.Duration(0)
	for _, rr := range r.Answer {
		if ds, ok := rr.(*dns.DS); ok {
			list = append(list, ds)
			ttl = max(ttl, time.Duration(ds.Hdr.Ttl)*time.Second)
		}
	}
	// What a cache has left of it may be less than what the parent gives.
	return list, max(ttl, 24*time.Hour), nil
}

// systemResolver is the first resolver that a resolv.conf(5) names, as host:port.
func systemResolver(file string) (string, error) {
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil || len(conf.Servers) == 0 {
		return "", errors.New("no resolver is known: give one with -resolver")
	}
	return net.JoinHostPort(conf.Servers[0], conf.Port), nil
}

func applyRoll(c Config, r *dnsserver.Roll) error {
	if r.Make != nil {
		k, err := dnsserver.GenerateKey(c.Keys, c.Zone.Zone, r.Make.Algorithm, r.Make.SEP, r.Make.Timing)
		if err != nil {
			return err
		}
		fmt.Printf("%s.key\n%s.private\n", k.File, k.File)
		if r.Make.SEP {
			fmt.Println(k.DS())
		}
	}
	for _, change := range r.Retime {
		if err := change.Key.Retime(change.Timing); err != nil {
			return err
		}
	}
	for _, line := range r.Summary {
		fmt.Println("-", line)
	}
	fmt.Println("- send SIGHUP to the server now")
	return nil
}
