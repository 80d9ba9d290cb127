package main

import (
	"os"

	"example.org/upkeep/supervisor/discover"
)

// sharedCache is where the services of a host share answers, once somebody has
// made the folder so that all of them can write there (mode 1777). Nothing in
// it is trusted.
const sharedCache = "/var/cache/upkeep"

// shareCache makes a new configuration use the folder if it is there.
func shareCache(d discover.Config, dir string) discover.Config {
	if d.Zone == "" && d.Updates == "" || d.Cache != "" {
		return d
	}
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		d.Cache = dir
	}
	return d
}
