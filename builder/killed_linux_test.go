package builder

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
)

// compilerOf returns the process that compiles a package, 0 if none does.
func compilerOf(pkg string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		args := bytes.Split(data, []byte{0})
		if err != nil || filepath.Base(string(args[0])) != "compile" {
			continue
		}
		for i, a := range args[1:] {
			if string(a) == "-p" && i+2 < len(args) && string(args[i+2]) == pkg {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				return pid
			}
		}
	}
	return 0
}

// A compiler that the kernel kills, as it does when memory is short, is a
// failure that passes: the build is tried again and is not remembered as failed,
// however often that happens.
func TestCompilerKilled(t *testing.T) {
	e := newEcosystem(t)
	// A package that takes long enough to be caught.
	var slow strings.Builder
	slow.WriteString("-- main.go --\npackage main\n\nimport \"example.org/slow/p\"\n\nfunc main() { println(p.F(1)) }\n-- p/p.go --\npackage p\n\nfunc F(x int) int {\n")
	for i := range 3000 {
		fmt.Fprintf(&slow, "\tif x == %d {\n\t\tx = x*%d + g(x)\n\t}\n", i, i)
	}
	slow.WriteString("\treturn x\n}\n\nfunc g(x int) int { return x ^ 7 }\n")
	const versions = 8
	for v := range versions {
		e.publish("example.org/slow", fmt.Sprintf("v1.%d.0", v), slow.String()+fmt.Sprintf("\nconst v = %d\n", v))
	}
	ts := start(t, e, testOptions{change: func(c *Config) { c.Tries = 2 }})
	// watch builds a version and kills its compilers so many times.
	watch := func(sp spec.Spec, kills int) (res Result, lines []string, caught bool) {
		done := make(chan error, 1)
		go func() {
			var err error
			res, err = ts.Watch(t.Context(), sp, "127.0.0.0/24", func(ev Event) error {
				lines = append(lines, ev.Line)
				return nil
			})
			done <- err
		}()
		last, want := 0, kills
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Fatal(err)
				}
				// One that was killed while it ended made no difference.
				return res, lines, kills == 0 && !(res.State == StateSuccess && res.Tries <= want)
			case <-time.After(2 * time.Millisecond):
			}
			if pid := compilerOf("example.org/slow/p"); kills > 0 && pid != 0 && pid != last && syscall.Kill(pid, syscall.SIGKILL) == nil {
				last = pid
				kills--
			}
		}
	}
	// A compiler that was done before it was caught proves nothing: another version then.
	v := 0
	build := func(kills int) (spec.Spec, Result, []string) {
		for ; v < versions; v++ {
			sp, err := spec.Parse(fmt.Sprintf("example.org/slow@v1.%d.0/%s/", v, target()))
			if err != nil {
				t.Fatal(err)
			}
			if res, lines, caught := watch(sp, kills); caught {
				return sp, res, lines
			}
		}
		t.Fatal("no compiler was caught")
		panic("not reached")
	}
	// Every try is killed.
	sp, res, _ := build(ts.cfg.Tries)
	if res.State != StateTempFailed || !strings.Contains(res.Error, "memory") {
		t.Errorf("%+v", res)
	}
	if _, kept, err := ts.results.load(sp); kept || err != nil {
		t.Errorf("it is remembered: %v", err)
	}
	if err := ts.Forget(sp); err != nil { // or the next request waits for the back-off to end
		t.Fatal(err)
	}
	// The first is, and the second is not.
	_, res, lines := build(1)
	if res.State != StateSuccess || res.Tries != 2 {
		t.Errorf("%+v: %q", res, lines)
	}
	if !slices.ContainsFunc(lines, func(l string) bool {
		return strings.Contains(l, "tried again") || strings.HasPrefix(l, "Trying again in ")
	}) {
		t.Errorf("output %q", lines)
	}
}
