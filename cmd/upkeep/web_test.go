package main

import (
	"net"
	"strings"
	"testing"

	"example.org/upkeep/supervisor"
)

// An address in use is told with the key that names it.
func TestDoorInUse(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	cfg := defaultConfig()
	cfg.State = t.TempDir()
	cfg.Web = supervisor.WebConfig{Listen: busy.Addr().String(), Metrics: busy.Addr().String()}
	list, err := doors(cfg, "upkeep.toml", nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{"page": "web.listen", "metrics": "web.metrics"}
	for _, d := range list {
		key, ok := keys[d.Name]
		if !ok {
			continue
		}
		delete(keys, d.Name)
		if _, err := d.Listen(); err == nil || !strings.Contains(err.Error(), "key "+key+": ") || !strings.Contains(err.Error(), busy.Addr().String()) {
			t.Errorf("%s: %v; want the key %s and the address", d.Name, err, key)
		}
	}
	if len(keys) > 0 {
		t.Errorf("no door for %v", keys)
	}
}
