package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"example.org/upkeep/dnsserver/name"
)

// generate writes what a measurement needs into dir: modules.tsv for this
// program, zone for other name servers, and queries for dnsperf: exist.txt draws
// from 10,000 of the names, missing.txt has names that don't exist.
func generate(dir, zone string, modules int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		const syllables = "kalomirentagozupronetlibsyncdatacorelogmuxapikitweb"
		var b strings.Builder
		for range 2 + r.IntN(4) {
			at := r.IntN(len(syllables) - 3)
			b.WriteString(syllables[at : at+2+r.IntN(2)])
		}
		return b.String()
	}
	path := func() string {
		p := "github.com/"
		if r.IntN(10) == 0 {
			p = word() + ".dev/"
		}
		p += word()
		if r.IntN(4) == 0 {
			p += "-" + strings.ToUpper(word()[:2])
		}
		p += "/" + word()
		if r.IntN(10) == 0 {
			p += fmt.Sprintf("/v%d", 2+r.IntN(8))
		}
		return p
	}
	names := make([]string, 0, modules)
	seen := map[string]bool{}
	var tsv, text strings.Builder
	fmt.Fprintf(&text, "$ORIGIN %s\n$TTL 60\n@ 300 IN SOA ns0 gopher %d 3600 600 1209600 60\n@ 300 IN NS ns0\nns0 300 IN A 127.0.0.1\nns0 300 IN AAAA ::1\n", zone, modules)
	for len(names) < modules {
		p := path()
		q, err := name.Module(p, zone)
		if err != nil {
			return err
		}
		if seen[q] {
			continue
		}
		seen[q] = true
		names = append(names, q)
		version, at := fmt.Sprintf("v1.%d.%d", r.IntN(40), r.IntN(30)), 0x60000000+r.Int64N(0x9000000)
		fmt.Fprintf(&tsv, "%s\t%s\t%d\n", p, version, at)
		fmt.Fprintf(&text, "%s 60 IN TXT \"v=%s t=%x\"\n", q, version, at)
	}
	for file, content := range map[string]string{"modules.tsv": tsv.String(), "zone": text.String()} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return err
		}
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	asked := names[:min(10000, len(names))]
	if err := queries(filepath.Join(dir, "exist.txt"), 200000, func() string { return asked[r.IntN(len(asked))] }); err != nil {
		return err
	}
	return queries(filepath.Join(dir, "missing.txt"), 1000000, func() string {
		// Like the others, between any two of them.
		for {
			q, err := name.Module(fmt.Sprintf("github.com/%s%d/%s%d", word(), r.IntN(1e6), word(), r.IntN(1e4)), zone)
			if err == nil && !seen[q] {
				return q
			}
		}
	})
}

func queries(file string, n int, next func() string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for range n {
		fmt.Fprintln(w, next(), "TXT")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}
