package dnsserver

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// zonemasterAllowed are the messages above INFO that the program may have, with
// the reason for each.
var zonemasterAllowed = map[string]string{
	"NAMESERVER_IP_PRIVATE_NETWORK":       "the set-up is private: 127/8 and addresses for documentation",
	"NAMESERVER_IP_WITHOUT_REVERSE":       "the private root has no zone for reverse lookups",
	"CN01_IPV6_DISABLED":                  "the namespace has no IPv6",
	"RNAME_MAIL_DOMAIN_INVALID":           "the zone's mail goes to a name that the private root does not have",
	"SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER": "denials are kept for a minute, as all records of modules, so that new ones are found soon",
}

// zonemaster runs the checks of a registry for a delegated zone.
func zonemaster(t *testing.T, hints string) {
	program := tool(t, "zonemaster-cli")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--hints="+hints, "--no-ipv6", "--raw", "--no-progress", "--level=INFO", strings.TrimSuffix(testZone, "."))
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &stderr, time.Minute
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("zonemaster-cli: %v\n%s%s", err, stderr.String(), out)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		level, tag := f[1], f[2]
		seen[tag] = true
		if level != "INFO" && zonemasterAllowed[tag] == "" {
			t.Errorf("%s", line)
		}
	}
	// It has looked at all.
	for _, tag := range []string{"HAS_NAMESERVERS", "ALGORITHM_OK", "DS10_HAS_NSEC", "DS15_HAS_CDS_AND_CDNSKEY", "REFERRAL_SIZE_OK", "EDNS0_SUPPORT", "NO_UPWARD_REFERRAL", "ONE_SOA"} {
		if !seen[tag] {
			t.Errorf("no message %s", tag)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
