package fetch

import (
	"log/slog"
	"net/http"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/metric"
)

// Config is the table [fetch] of the configuration.
type Config struct {
	Key          string          `toml:"key" comment:"Verifier key of the builder's log: name+hash+key"`
	Builder      string          `toml:"builder" comment:"Base address of the builder, without /tlog. Empty: https://NAME of the key (http://NAME:8000 when it has no dot)"`
	SumDB        string          `toml:"sumdb" comment:"Checksum database, in the form of GOSUMDB. Every version is looked up in it before it is installed"`
	Proxy        string          `toml:"proxy" comment:"Module proxies, in the form of GOPROXY. Used to reach the checksum database and to list versions"`
	BuildTimeout config.Duration `toml:"build_timeout" comment:"How long to wait for a build, the builder's queue included"`
	Timeout      config.Duration `toml:"timeout" comment:"For the download of a binary"`
	CA           string          `toml:"ca" comment:"PEM file with the certificate authorities for the builder and the module proxy. Empty: the system's"`
	Dir          string          `toml:"-"`
}

// DefaultConfig returns the configuration that `config default` prints. Proxy
// and checksum database are empty: `upkeep init` writes those that it finds.
func DefaultConfig() Config {
	return Config{
		BuildTimeout: config.Duration(30 * time.Minute),
		Timeout:      config.Duration(15 * time.Minute),
	}
}

// Options are what a [Fetcher] gets from its program. The zero value works.
type Options struct {
	HTTP    *http.Client // nil = a client with limits, made from the configuration
	Logger  *slog.Logger
	Metrics *metric.Registry
}
