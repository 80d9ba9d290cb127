package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/internal/config"
)

// Flags override the file, also those that can be given more than once.
func TestFlagsOverride(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dns.toml")
	if err := os.WriteFile(file, []byte("listen = ['192.0.2.1:53', '192.0.2.2:53']\n[zone]\nname = 'l.example.'\nnameserver = [{name = 'old', addresses = ['192.0.2.1']}]\n[watch]\nmodules = ['example.org/old']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var f configFlags
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.register(fs, true)
	if err := fs.Parse([]string{"-config", file, "-listen", "127.0.0.1:1,127.0.0.1:2", "-listen", "127.0.0.1:3", "-ns", "a=127.0.0.1", "-ns", "b=127.0.0.2,::1", "-watch", "example.org/a", "-watch", "example.org/b"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as at a reload
		c, err := f.load(needAll)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, ns := range c.Zone.NameServers {
			names = append(names, fmt.Sprint(ns.Name, ns.Addresses))
		}
		got := fmt.Sprintf("%v %v %v %v", c.Listen, names, c.Watch.Modules, c.Log.Mode)
		if want := "[127.0.0.1:1 127.0.0.1:2 127.0.0.1:3] [a[127.0.0.1] b[127.0.0.2 ::1]] [example.org/a example.org/b] watch"; got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	if err := fs.Parse([]string{"-ns", "a=localhost"}); err == nil {
		t.Error("no error for a name server with a bad address")
	}
}

// Names of files in the configuration are relative to it, as with the other
// programs; those of flags are not.
func TestRelativeNames(t *testing.T) {
	dir, absolute := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "dns.toml")
	if err := os.WriteFile(file, []byte("keys = 'keys'\nstate = '"+absolute+"'\n[tls]\ncertificate = 'c'\n[limits]\ncookie_secrets = 's'\n[log]\ntiles = 'tiles'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var f configFlags
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	f.register(fs, true)
	if err := fs.Parse([]string{"-config", file, "-tiles", "there"}); err != nil {
		t.Fatal(err)
	}
	c, err := f.load(needIndex)
	got := []string{c.Keys, c.State, c.TLS.Certificate, c.TLS.Key, c.Limits.Cookies, c.Log.Tiles}
	want := []string{filepath.Join(dir, "keys"), absolute, filepath.Join(dir, "c"), "", filepath.Join(dir, "s"), "there"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// What serve could not use is refused before anything is opened.
func TestConfigRefused(t *testing.T) {
	const zone = "[zone]\nname = 'l.example.'\nnameserver = [{name = 'ns0', addresses = ['192.0.2.1']}]\n"
	for _, tc := range []struct{ top, more, want string }{
		{"", "", ""},
		{"listen = ['systemd', '127.0.0.1:0', '[::1]:53']\nhttp = 'localhost:0'\nmetrics = ':9100'", "", ""},
		{"listen = ['127.0.0.1']", "", `listen: the address "127.0.0.1" is not host:port`},
		{"listen = ['127.0.0.1:53', '127.0.0.1:70000']", "", `listen: the address "127.0.0.1:70000"`},
		{"http = '8080'", "", `http: the address "8080"`},
		{"metrics = '127.0.0.1:'", "", `metrics: the address "127.0.0.1:"`},
		{"http = ':443'", "[http_tls]\nkey = 'k'", "http and http_tls: certificate and key need each other"},
		{"", "[tls]\nacme = 'https://ca.example.org/directory'\ndoh = '443'\nnames = ['ns0.l.example']", `doh: the address "443"`},
		{"", "[tls]\nacme = 'https://ca.example.org/directory'\ndoh = ':443'", "tls.acme: "},
	} {
		f := configFlags{file: filepath.Join(t.TempDir(), "dns.toml")}
		if err := os.WriteFile(f.file, []byte(tc.top+"\n"+zone+tc.more), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := f.load(needAll); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s %s: %v; want %q", tc.top, tc.more, err, tc.want)
		}
	}
}

func TestNoArguments(t *testing.T) {
	for _, command := range []string{"keygen", "ds", "key status", "dump", "config check", "serve"} {
		args := append(strings.Fields(command), "-zone", zone, "more")
		if _, errs, code := upkeepDNS(t, args...); code != 2 || !strings.Contains(errs, command+" takes no arguments") {
			t.Errorf("%s: exit %d, %s", command, code, errs)
		}
	}
}

// Beside 0.0.0.0, [::] of the same port is for IPv6 alone and comes later.
func TestPlaces(t *testing.T) {
	c := Config{Listen: []string{"[::]:53", "[::]:54", "0.0.0.0:53", "127.0.0.1:0", "127.0.0.1:0"}, TLS: TLSConfig{DoT: ":853"}}
	want := []place{{"listen", "[::]:54", 1}, {"listen", "0.0.0.0:53", 1}, {"listen", "127.0.0.1:0", 1}, {"listen", "127.0.0.1:0", 2}, {"listen6", "[::]:53", 1}, {"dot", ":853", 1}}
	if got := c.places(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What serve refuses because of the keys, config check refuses too.
func TestConfigCheckKeys(t *testing.T) {
	dir := t.TempDir()
	later := time.Now().Add(24 * time.Hour)
	if _, err := dnsserver.GenerateKey(dir, zone, "ed25519", true, dnsserver.Timing{Activate: later}); err != nil {
		t.Fatal(err)
	}
	args := []string{"config", "check", "-zone", zone, "-keys", dir, "-ns", "ns0=192.0.2.1", "-proxy", "http://127.0.0.1:1", "-database", "sum.golang.org"}
	if out, errs, code := upkeepDNS(t, args...); code != 1 || !strings.Contains(errs, "is active now") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func TestOwnPort(t *testing.T) {
	used := &dnsserver.ListenError{Network: "TCP", Addr: ":53", Err: syscall.EADDRINUSE}
	open := map[place]func(){{"listen", "127.0.0.1:53", 1}: nil, {"listen", "127.0.0.1:54", 1}: nil}
	for _, tc := range []struct {
		addr string
		err  error
		want bool
	}{{":53", used, true}, {":55", used, false}, {":53", os.ErrPermission, false}} {
		err := ownPort(tc.err, place{"listen", tc.addr, 1}, map[place]func(){}, open)
		if !errors.Is(err, tc.err) || strings.Contains(err.Error(), "by this one for 127.0.0.1:53") != tc.want {
			t.Errorf("%s: %v", tc.addr, err)
		}
	}
}

func TestSystemResolver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string]string{
		"nameserver 192.0.2.1\nnameserver 192.0.2.2\n": "192.0.2.1:53",
		"nameserver 2001:db8::1\n":                     "[2001:db8::1]:53",
		"options edns0\n":                              "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := systemResolver(file); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestFlaps(t *testing.T) {
	for _, tc := range []struct {
		stale, interval time.Duration
		want            bool
	}{{6 * time.Hour, 30 * time.Second, false}, {0, time.Hour, false}, {time.Hour, 45 * time.Minute, true}, {10 * time.Second, time.Second, true}, {time.Minute, time.Second, false}} {
		c := defaultConfig()
		c.Zone.StaleAfter, c.Log.Interval = config.Duration(tc.stale), config.Duration(tc.interval)
		if text := c.flaps(); (text != "") != tc.want {
			t.Errorf("%s, polls each %s: %q", tc.stale, tc.interval, text)
		}
	}
}
