package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// findUnit returns the file of the unit of a service's binary: one of its own,
// or upkeep's template, installed or beside it, as that of the instance.
func findUnit(path string) string {
	if path == "" {
		return ""
	}
	for _, dir := range []string{"/etc/systemd/system", filepath.Dir(path)} {
		own := filepath.Join(dir, filepath.Base(path)+".service")
		if _, err := os.Stat(own); err == nil {
			return own
		}
		if _, err := os.Stat(filepath.Join(dir, "upkeep@.service")); err == nil {
			return filepath.Join(dir, "upkeep@"+filepath.Base(path)+".service")
		}
	}
	return ""
}

// readUnit returns the text of a unit as systemd sees it: its template, then its
// drop-ins, with the instance's name filled in.
func readUnit(file string) (string, error) {
	dir, name := filepath.Dir(file), filepath.Base(file)
	prefix, instance, isInstance := strings.Cut(strings.TrimSuffix(name, ".service"), "@")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && isInstance {
		data, err = os.ReadFile(filepath.Join(dir, prefix+"@.service"))
	}
	if err != nil {
		return "", err
	}
	text := string(data)
	dropIns, _ := filepath.Glob(filepath.Join(dir, name+".d", "*.conf"))
	for _, f := range dropIns {
		more, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		text += "\n" + string(more)
	}
	return strings.NewReplacer("%%", "%%", "%i", instance).Replace(text), nil
}

// UnitFacts are what a unit file must fit to.
type UnitFacts struct {
	Config string   // configuration file
	Dirs   []string // that must be writable
	Exists func(file string) bool
}

// Unit judges the text of a systemd unit.
func Unit(file, text string, facts UnitFacts) []Finding {
	keys := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '[' {
			continue
		}
		k, v, _ := strings.Cut(line, "=")
		keys[k] = append(keys[k], v)
	}
	last := func(k string) string {
		if v := keys[k]; len(v) > 0 {
			return v[len(v)-1]
		}
		return ""
	}
	var out []Finding
	bad := func(level, what, next string) {
		out = append(out, Finding{"unit", level, file + ": " + what, "the unit file", next})
	}
	exec := words(last("ExecStart"))
	switch {
	case len(exec) == 0:
		bad(Fail, "it has no ExecStart", "Write a new unit with upkeep init -force.")
	case !facts.Exists(exec[0]):
		bad(Fail, fmt.Sprintf("ExecStart names %s, which does not exist", exec[0]), "Install upkeep there, or correct ExecStart.")
	case len(exec) < 2 || exec[1] != "run":
		bad(Fail, "ExecStart does not run \"upkeep run\"", "Write a new unit with upkeep init -force.")
	}
	for i, w := range exec {
		if (w == "-config" || w == "--config") && i+1 < len(exec) && facts.Config != "" && !sameFile(exec[i+1], facts.Config) {
			bad(Fail, fmt.Sprintf("it uses the configuration %s, examined is %s", exec[i+1], facts.Config), "Run upkeep doctor -config with the unit's file, or correct the unit.")
		}
	}
	if p := last("ProtectSystem"); p == "strict" || p == "full" || p == "yes" {
		var writable []string
		for _, v := range keys["ReadWritePaths"] {
			writable = append(writable, words(v)...)
		}
		for _, dir := range facts.Dirs {
			if dir != "" && p == "strict" && !within(dir, writable) {
				bad(Fail, fmt.Sprintf("ProtectSystem=strict makes %s read-only", dir), "Add the folder to ReadWritePaths, so that updates can be installed.")
			}
		}
	}
	if r := last("Restart"); r == "" || r == "no" {
		bad(Warn, "it has no Restart=, so a crash of the service stays", "Set Restart=always.")
	}
	if k := last("KillMode"); k == "process" || k == "none" {
		bad(Warn, fmt.Sprintf("KillMode=%s leaves the service behind when upkeep ends", k), "Set KillMode=mixed.")
	}
	if last("User") == "" && last("DynamicUser") == "" {
		bad(Warn, "without User= the service runs as root", "Make a user for the service, give it the folder and name it in User=.")
	}
	if len(out) == 0 {
		out = append(out, Finding{Link: "unit", Level: OK, What: file + " fits the configuration"})
	}
	return out
}

func sameFile(a, b string) bool { return filepath.Clean(a) == filepath.Clean(b) }

func within(dir string, roots []string) bool {
	for _, r := range roots {
		r = strings.TrimLeft(r, "-+")
		if rel, err := filepath.Rel(r, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// words splits a command line of a unit: quotes and backslashes as
// systemd.service(5) says, %% is %, $$ is $.
func words(s string) []string {
	s = strings.TrimLeft(s, "@-:+!")
	var out []string
	var cur strings.Builder
	quote, inside := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			cur.WriteByte(s[i])
			inside = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inside = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inside {
				out = append(out, cur.String())
				cur.Reset()
				inside = false
			}
		case (c == '%' || c == '$') && i+1 < len(s) && s[i+1] == c:
			i++
			cur.WriteByte(c)
			inside = true
		default:
			cur.WriteByte(c)
			inside = true
		}
	}
	if inside {
		out = append(out, cur.String())
	}
	return out
}
