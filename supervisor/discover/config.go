package discover

import (
	"log/slog"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/metric"
)

// Config is the table [discovery] of the configuration.
type Config struct {
	Zone       string          `toml:"zone" comment:"Zone with the latest versions, for example \"l.example.org.\""`
	Sources    []string        `toml:"sources" comment:"Where to ask for the zone:\n  \"system\"                            the system's resolvers\n  \"udp://192.0.2.53:53\"               a resolver, over UDP with fallback to TCP\n  \"tcp://192.0.2.53:53\"               a resolver, over TCP\n  \"tls://192.0.2.53:853#dns.example\"  a resolver, over TLS; the name is that of its certificate\n  \"https://dns.example/dns-query\"     a resolver, over HTTPS\n  \"server://192.0.2.1:53\"             a name server of the zone itself (needs an anchor)"`
	Anchor     string          `toml:"anchor" comment:"File with the zone's pinned keys: DS or DNSKEY records, or a trust-anchors block as delv takes it,\nor the root zone's anchors as XML. Empty: the chain from the root zone's keys, which are built in"`
	Trust      string          `toml:"trust" comment:"\"dnssec\": every answer is validated here. \"resolver\": the AD bit of a resolver on loopback is believed"`
	Also       []Zone          `toml:"also" comment:"Further zones by other operators of the same index"`
	Agree      int             `toml:"agree" comment:"How many sources must give the same version before it is believed"`
	Updates    string          `toml:"updates" comment:"Read the program's own record _updates.<domain> of this domain instead of a zone"`
	Fallback   bool            `toml:"fallback" comment:"When no source has a fresh answer, or no zone is set, take the module proxy's list,\nverified in the checksum database"`
	Timeout    config.Duration `toml:"timeout" comment:"For one question to one source, with its retries"`
	MaxAge     config.Duration `toml:"max_age" comment:"A source whose log was read longer ago than this is stale: nothing from it is believed"`
	MaxSilence config.Duration `toml:"max_silence" comment:"After this time without any fresh verified answer an alert is raised"`
	CA         string          `toml:"ca" comment:"PEM file with the certificate authorities for tls:// and https:// sources. Empty: the system's"`
	Cache      string          `toml:"cache" comment:"Folder that the supervisors of one host share, so that a module is asked for once.\n\"upkeep init\" takes /var/cache/upkeep if it is there. Empty: none"`
}

// A Zone is a further zone with the same index.
type Zone struct {
	Zone    string   `toml:"zone" comment:"Name of the zone"`
	Sources []string `toml:"sources" comment:"As in [discovery]"`
	Anchor  string   `toml:"anchor" comment:"As in [discovery]"`
}

// Values of [Config].Trust.
const (
	TrustDNSSEC   = "dnssec"
	TrustResolver = "resolver"
)

// DefaultConfig returns the configuration that `config default` prints.
func DefaultConfig() Config {
	return Config{
		Sources:    []string{"system"},
		Trust:      TrustDNSSEC,
		Agree:      1,
		Fallback:   false,
		Timeout:    config.Duration(5 * time.Second),
		MaxAge:     config.Duration(6 * time.Hour),
		MaxSilence: config.Duration(72 * time.Hour),
	}
}

// Options are what a [Discoverer] gets from its program. The zero value works
// and remembers nothing.
type Options struct {
	Dir      string // state and evidence; "" = nothing is remembered
	ReadOnly bool   // the state is another process's: it is read and not changed
	Logger   *slog.Logger
	Metrics  *metric.Registry
	Now      func() time.Time // for tests
	Fallback Fallback         // used when Config.Fallback is set
}
