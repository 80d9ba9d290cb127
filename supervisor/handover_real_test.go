//go:build linux

package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Programs that other people wrote, as the module proxy has them. It takes
// minutes the first time, to build them.
func TestHandoverReal(t *testing.T) {
	if os.Getenv("UPKEEP_TEST_LONG") != "1" {
		t.Skip("builds other people's programs: UPKEEP_TEST_LONG=1")
	}
	needTelling(t)
	for _, tc := range []struct {
		name, pkg, version string
		setup              func(b *bench, addr, second string)
		path               string
		warning            string // of a limit that it meets
	}{
		{"go-httpbin", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin", "v2.26.0", func(b *bench, addr, _ string) {
			host, port, _ := strings.Cut(addr, ":")
			b.cfg.Service.Args = []string{"-host", host, "-port", port}
		}, "get", ""},
		{"caddy", "github.com/caddyserver/caddy/v2/cmd/caddy", "v2.10.2", func(b *bench, addr, second string) {
			host, port, _ := strings.Cut(addr, ":")
			host2, port2, _ := strings.Cut(second, ":")
			file := filepath.Join(b.dir, "Caddyfile")
			text := fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tgrace_period 30s\n}\nhttp://:%s {\n\tbind %s\n\trespond hello\n}\nhttp://:%s {\n\tbind %s\n\trespond hello\n}\n",
				port, host, port2, host2)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				b.t.Fatal(err)
			}
			b.cfg.Service.Args = []string{"run", "--config", file, "--adapter", "caddyfile"}
			b.cfg.Process.Env = append(b.cfg.Process.Env, "HOME="+b.dir, "XDG_DATA_HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir)
		}, "", "SO_REUSEPORT"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			cmd := exec.Command("go", "install", tc.pkg+"@"+tc.version)
			cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=")
			cmd.Dir = bin
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("building %s: %v: %s", tc.name, err, out)
			}
			s := testScale()
			c := newCrowd(t, HandoverAuto, s)
			c.program = filepath.Join(bin, tc.name)
			if err := os.Remove(filepath.Join(c.dir, "hello-v1.0.0-"+testGo)); err != nil {
				t.Fatal(err)
			}
			c.place("v1.0.0")
			second := freeAddr(t)
			c.cfg.Process.Env = []string{"GODEBUG=multipathtcp=0"}
			tc.setup(c.bench, c.addr, second)
			c.cfg.Health.URL = "http://" + c.addr + "/" + tc.path
			c.start()
			for end := time.Now().Add(time.Minute); asked(c.addr, tc.path) != nil; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it does not answer")
				}
			}
			url := "http://" + c.addr + "/" + tc.path
			clients := []*client{
				httpClient("new", s.rate/2, url, newConns(), nil),
				httpClient("keep GET", s.rate/4, url, keptConns(), nil),
			}
			if tc.name == "caddy" {
				clients = append(clients, httpClient("second", s.rate/4, "http://"+second+"/", newConns(), nil))
			}
			l := startLoad(t, clients...)
			c.upgrade()
			st := c.state().Service.Handover
			l.report(fmt.Sprintf("%s %s: %d upgrades; %v", tc.name, tc.version, s.upgrades, st.Warnings))
			if st.Mode != HandoverRetain || !strings.Contains(fmt.Sprint(st.Warnings), tc.warning) {
				t.Errorf("status %+v", st)
			}
			l.must(0)
		})
	}
}
