// Command benchzone serves a generated zone through the handler and the
// listeners of upkeep-dns, for measurements beside other name servers.
//
// It trusts its input files. The list has one module a line: path, version and
// Unix time, separated by tabs. Rate limiting is off.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/dnsserver/internal/memindex"
	"example.org/upkeep/tlog/index"
)

func main() {
	var (
		zone    = flag.String("zone", "l.example.org.", "zone to serve")
		key     = flag.String("key", "", "key file, without .key and .private")
		tsv     = flag.String("tsv", "modules.tsv", "list of modules")
		listen  = flag.String("listen", "127.0.0.1:5300", "address for UDP and TCP")
		workers = flag.Int("workers", 1, "sockets, and CPUs to use")
		gen     = flag.String("generate", "", "write the files of a measurement into this folder instead, see measure.sh")
		modules = flag.Int("modules", 100000, "with -generate: modules in the zone")
		answers = flag.Int("answers", 0, "answers to keep, 0 for the server's default")
		denial  = flag.String("denial", dnsserver.DenialCompact, "compact or nsec")
		flooded = flag.String("flood", "", "measure the server at this address under a flood of random names instead, see flood.sh")
		rate    = flag.Int("rate", 20000, "with -flood: existing names asked for each second, 0 for as many as are answered")
		random  = flag.Int("random", 50000, "with -flood: random names asked for each second")
		period  = flag.Duration("period", 3*time.Second, "with -flood: how long")
	)
	flag.Parse()
	if *gen != "" {
		if err := generate(*gen, dns.Fqdn(*zone), *modules); err != nil {
			fmt.Fprintln(os.Stderr, "benchzone:", err)
			os.Exit(1)
		}
		return
	}
	if *flooded != "" {
		if err := measureFlood(*flooded, "exist.txt", dns.Fqdn(*zone), *rate, *random, *period); err != nil {
			fmt.Fprintln(os.Stderr, "benchzone:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *zone, *key, *tsv, *listen, *denial, *workers, *answers); err != nil {
		fmt.Fprintln(os.Stderr, "benchzone:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, zone, key, tsv, listen, denial string, workers, answers int) error {
	runtime.GOMAXPROCS(workers)
	go dnsserver.TuneGC(ctx) // as upkeep-dns does
	if key == "" {
		return errors.New("-key is not set: give the file of the zone's key, without .key")
	}
	keys, err := dnsserver.LoadKeys(filepath.Dir(key), zone)
	if err != nil {
		return err
	}
	idx, err := load(tsv)
	if err != nil {
		return err
	}
	cfg := dnsserver.DefaultZoneConfig()
	cfg.Zone, cfg.Mailbox, cfg.StaleAfter = zone, "gopher@"+strings.TrimSuffix(zone, "."), 0
	cfg.Denial = denial
	cfg.NameServers = []dnsserver.NameServer{{Name: "ns0", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}}
	runtime.GC() // what loading left
	debug.FreeOSMemory()
	h, err := dnsserver.NewHandler(cfg, keys, idx, dnsserver.Options{Limits: dnsserver.Limits{Answers: answers}, Logger: slog.Default()})
	if err != nil {
		return err
	}
	lc := dnsserver.DefaultListenConfig()
	lc.Workers = workers
	s := dnsserver.NewServer(h, lc)
	addr, err := s.Listen(listen)
	if err != nil {
		return err
	}
	fmt.Println(addr)
	h.Run(ctx)
	s.Close()
	return nil
}

func load(file string) (*memindex.Index, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mods []index.Module
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		field := strings.Split(sc.Text(), "\t")
		if len(field) != 3 {
			return nil, fmt.Errorf("%s:%d: want path, version and Unix time", file, n)
		}
		at, err := strconv.ParseInt(field[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, n, err)
		}
		mods = append(mods, memindex.Release(field[0], field[1], at))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	idx := memindex.New()
	idx.Set(memindex.Head(int64(len(mods))), mods...)
	return idx, nil
}
