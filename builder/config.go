package builder

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"example.org/upkeep/internal/config"
)

// Config is the part of the configuration that the service itself reads.
type Config struct {
	GoRoot         []string        `toml:"goroot" comment:"Folders of locally installed Go versions (GOROOT), each offered for its own version. Other versions\nare taken from the module golang.org/toolchain."`
	Parallel       int             `toml:"parallel" comment:"Builds at the same time. 0: one for every two processors."`
	MaxQueue       int             `toml:"max_queue" comment:"Requests that may wait; more are refused."`
	FetchTimeout   config.Duration `toml:"fetch_timeout" comment:"Longest time for downloading a module and its dependencies."`
	CompileTimeout config.Duration `toml:"compile_timeout" comment:"Longest time for compiling."`
	Memory         int             `toml:"memory" comment:"Memory of one build, in MiB. 0: half of the machine's."`
	Processes      int             `toml:"processes" comment:"Processes and threads of one build."`
	MaxWork        int             `toml:"max_work" comment:"Disk space of one build while it runs, in MiB."`
	MaxBinary      int             `toml:"max_binary" comment:"Largest binary that is kept, in MiB."`
	DiskFree       int             `toml:"disk_free" comment:"No build starts when less disk space than this is free, in MiB."`
	Tries          int             `toml:"tries" comment:"How often a build is tried that fails for a reason that may pass."`
	Backoff        config.Duration `toml:"backoff" comment:"Time before the second try; it grows fourfold with each."`
	Abandon        config.Duration `toml:"abandon" comment:"A build that nobody has waited for during this time is cancelled."`
	Drain          config.Duration `toml:"drain" comment:"When the server is told to stop, builds that run have this long to end. The others go on at the next start."`
}

// DefaultConfig returns the default values.
func DefaultConfig() Config {
	return Config{
		GoRoot:         []string{},
		MaxQueue:       500,
		FetchTimeout:   config.Duration(10 * time.Minute),
		CompileTimeout: config.Duration(30 * time.Minute),
		Processes:      1000,
		MaxWork:        4096,
		MaxBinary:      1024,
		DiskFree:       2048,
		Tries:          3,
		Backoff:        config.Duration(2 * time.Second),
		Abandon:        config.Duration(time.Minute),
		Drain:          config.Duration(20 * time.Second),
	}
}

// Check says what is wrong with a configuration.
func (c Config) Check() error {
	var errs []error
	positive := func(key string, v int) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d; it must be greater than 0", key, v))
		}
	}
	positive("max_queue", c.MaxQueue)
	positive("processes", c.Processes)
	positive("max_work", c.MaxWork)
	positive("max_binary", c.MaxBinary)
	positive("tries", c.Tries)
	if c.Parallel < 0 || c.Memory < 0 || c.DiskFree < 0 {
		errs = append(errs, errors.New("parallel, memory and disk_free can't be negative"))
	}
	if c.FetchTimeout == 0 || c.CompileTimeout == 0 {
		errs = append(errs, errors.New("fetch_timeout and compile_timeout can't be 0"))
	}
	return errors.Join(errs...)
}

func (c Config) parallel() int {
	if c.Parallel > 0 {
		return c.Parallel
	}
	return max(1, runtime.NumCPU()/2)
}
