package main

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"example.org/upkeep/supervisor/doctor"
)

// effective is the unit's text as systemd sees it.
func effective(u unit) string {
	text := u.template() + "\n" + u.dropIn()
	return strings.NewReplacer("%%", "%%", "%i", u.instance).Replace(text)
}

func TestUnit(t *testing.T) {
	for name, c := range map[string]struct {
		s       setup
		systemd int
		has     []string
		hasNot  []string
	}{
		"plain": {setup{dir: "/srv/hello", name: "hello", user: "hello"}, 252,
			[]string{"Type=notify\n", "ExecReload=", "User=hello\n", "ReadWritePaths=/srv/hello\n", "ProtectHome=yes"}, []string{"ExecStart=\n", "DelegateSubgroup", "Type=notify-reload\n"}},
		"newer": {setup{dir: "/srv/hello", name: "hello", user: "hello"}, 254,
			[]string{"Type=notify-reload\n", "DelegateSubgroup=supervisor"}, []string{"ExecReload=", "Type=notify\n"}},
		"between": {setup{dir: "/srv/hello", name: "hello", user: "hello"}, 253, []string{"Type=notify-reload\n"}, []string{"DelegateSubgroup"}},
		"odd folder": {setup{dir: "/srv/my hello 5%", name: "hello", user: "hello"}, 252,
			[]string{"ExecStart=\n", `ReadWritePaths="/srv/my hello 5%%"`}, nil},
		"odd name":  {setup{dir: "/srv/a+b", name: "a+b", user: "hello"}, 0, []string{"ReadWritePaths=/srv/a+b\n"}, nil},
		"in a home": {setup{dir: "/home/x/hello", name: "hello", user: "x"}, 0, []string{"ProtectHome=read-only"}, nil},
	} {
		u := c.s.unit("/opt/100%/upkeep", c.systemd)
		text := effective(u)
		for _, want := range c.has {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
		for _, no := range c.hasNot {
			if strings.Contains(text, no) {
				t.Errorf("%s: %q in\n%s", name, no, text)
			}
		}
		got := doctor.Unit("u", text, doctor.UnitFacts{Config: c.s.config(), Dirs: []string{c.s.dir}, Exists: func(f string) bool { return f == "/opt/100%/upkeep" }})
		if len(got) != 1 || got[0].Level != doctor.OK {
			t.Errorf("%s: %+v\n%s", name, got, text)
		}
	}
	for text, want := range map[string]int{
		"systemd 252 (252.39-1~deb12u2)\n+PAM": 252, "systemd 257~rc1 (x)": 257, "systemd 256.4 (256.4-2.fc41)": 256, "": 0, "launchd 3": 0, "systemd": 0,
	} {
		if got := parseSystemdVersion(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestUnitOfSystemd has systemd judge the unit.
func TestUnitOfSystemd(t *testing.T) {
	prog, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("UPKEEP_TEST_FULL") == "1" {
			t.Fatal(err)
		}
		t.Skip("systemd-analyze is not installed (Debian package systemd)")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	account := me.Username
	if me.Uid == "0" {
		account = "daemon" // somebody that every system has
	}
	// supervisor/vm-test.sh takes the unit of the service speaker from there.
	if dir := os.Getenv("UPKEEP_UNIT_DIR"); dir != "" {
		for name, text := range (setup{dir: "/srv/speaker", name: "speaker", user: "hello"}).unit("/opt/upkeep/upkeep", systemdVersion()).files() {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := setup{dir: filepath.Join(dir, "hello"), name: "hello", user: account}
	u := s.unit(exe, systemdVersion())
	u.dir = filepath.Join(dir, "hello")
	if err := os.MkdirAll(u.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := u.write(); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(prog, args...)
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+u.dir+":")
		out, err := cmd.CombinedOutput()
		if err != nil || args[0] == "verify" && strings.Contains(string(out), "upkeep@") {
			t.Errorf("systemd-analyze %q: %v\n%s", args, err, out)
		}
		if args[0] == "security" {
			t.Logf("%s", out[max(0, len(out)-120):])
		}
	}
	run("verify", "--man=no", "upkeep@hello.service")
	run("security", "--offline=true", "--threshold=25", "upkeep@hello.service")
}
