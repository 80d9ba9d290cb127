//go:build unix

package builder

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/builder/toolchain"
	"example.org/upkeep/tlog"
)

// SIGKILL of the server while it installs a toolchain and while it fills the
// cache of the standard library: the next start removes what was half done, and
// what was asked for is built, with the bytes of go install.
func TestKillWhileSettingUp(t *testing.T) {
	if dir := os.Getenv("UPKEEP_TEST_KILL_DIR"); dir != "" {
		killedServer(t, dir)
		return
	}
	long := os.Getenv("UPKEEP_TEST_LONG") == "1"
	for _, confined := range []bool{false, true} {
		t.Run(fmt.Sprint("confined ", confined), func(t *testing.T) {
			if confined && !long {
				t.Skip("UPKEEP_TEST_LONG=1 does the same in the sandbox, with all of a toolchain and at many random instants")
			}
			killWhileSettingUp(t, confined, long)
		})
	}
}

func killWhileSettingUp(t *testing.T, confined, long bool) {
	o := testOptions{confined: confined, installs: true, idle: true}
	o.sandbox(t)
	dir, err := os.MkdirTemp(sharedDir, "setup-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e := newEcosystem(t)
	e.publishToolchain(long)
	publish := func(version string) string {
		e.publish("example.org/bare", version, "-- main.go --\npackage main\n\nimport \"example.org/bare/p\"\n\nfunc main() { println(p.One) }\n-- p/p.go --\npackage p\n\nconst One = 1\n")
		return "example.org/bare@" + version + "/" + target() + "/"
	}
	sp := publish("v1.0.0")
	signer, verifier, err := tlog.GenerateKey("build.test")
	if err != nil {
		t.Fatal(err)
	}
	o.dir, o.key = dir, signer

	// kill starts a server, whose queue holds the build or gets it, and kills it
	// when at returns or it has stopped itself.
	kill := func(t *testing.T, stop string, at func(*killedBuild)) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillWhileSettingUp$")
		cmd.Env = append(os.Environ(), "TMPDIR="+sharedDir, "UPKEEP_TEST_KILL_DIR="+dir, "UPKEEP_TEST_KILL_KEY="+signer, "UPKEEP_TEST_KILL_PROXY="+e.url,
			"UPKEEP_TEST_KILL_DB="+e.key, "UPKEEP_TEST_KILL_INSTALLS=1", fmt.Sprint("UPKEEP_TEST_KILL_CONFINED=", confined), "UPKEEP_TEST_KILL_AT="+stop)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		endless := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		sc := bufio.NewScanner(out)
		if !sc.Scan() || !endless.Stop() {
			t.Fatalf("the server does not start within %v: %v", patience, sc.Err())
		}
		b := &killedBuild{ended: make(chan struct{})}
		b.watch(t, sc.Text()+"/"+sp+"events")
		if at != nil {
			at(b)
			return
		}
		stopped := make(chan bool, 1)
		go func() { stopped <- sc.Scan() && sc.Text() == "stopped" }()
		select {
		case ok := <-stopped:
			if !ok {
				t.Error("the server ended by itself")
			}
		case <-b.ended:
			t.Error("the build ended before the server was killed")
		}
	}
	// A server that starts and builds nothing has removed what was half done.
	check := func(t *testing.T) {
		ts := start(t, e, o)
		defer ts.stop()
		for _, pattern := range []string{"work/*", "std/*.dirty", "deps/*.dirty", "*/*.tmp-*", "*/??/*.tmp-*", "toolchains/new-*"} {
			if left, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern))); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
		entries, err := os.ReadDir(filepath.Join(dir, "toolchains"))
		if list := ts.toolchains.Installed(); err != nil || len(entries) != 2*len(list) {
			t.Errorf("toolchains %v, but installed %v (%v)", entries, list, err)
		}
		for _, sub := range []string{"std", "deps"} { // the sandbox lets dependencies be shared
			checkCache(t, filepath.Join(dir, sub))
		}
	}
	line := func(prefix string) func(*killedBuild) { return func(b *killedBuild) { b.untilLine(prefix) } }
	file := func(pattern string) func(*killedBuild) {
		return func(b *killedBuild) { b.untilFile(filepath.Join(dir, filepath.FromSlash(pattern))) }
	}
	for _, tc := range []struct {
		name, stop string // where the server stops by itself
		at         func(*killedBuild)
	}{
		{"download", "", line("Downloading ")},
		{"unpack", "", file("toolchains/new-*/root/*")},
		{"rename", "rename toolchains/[0-9a-f][0-9a-f]*", nil},
		{"name", "rename toolchains/go*.json", nil},
		{"before the standard library", "rename std/*.dirty", nil},
		{"standard library", "", file("std/*/??/*-d")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kill(t, tc.stop, tc.at)
			check(t)
		})
	}
	if long {
		for i := range 12 {
			d := rand.N(15 * time.Second)
			t.Run(d.String(), func(t *testing.T) {
				// Another program, and everything is installed anew.
				sp = publish(fmt.Sprintf("v1.1.%d", i))
				for _, sub := range []string{"std", "toolchains"} {
					if err := removeAll(filepath.Join(dir, sub)); err != nil {
						t.Fatal(err)
					}
				}
				kill(t, "", func(b *killedBuild) {
					select {
					case <-b.ended:
					case <-time.After(d):
					}
				})
				check(t)
			})
		}
	}
	o.idle = false
	ts := start(t, e, o)
	rec, err := ts.lookup(t, sp)
	if err != nil {
		t.Fatal(err)
	}
	want := spec.NewDigest()
	want.Write(e.plainInstall(strings.TrimSuffix(sp, "/"+target()+"/"), runtime.GOOS, runtime.GOARCH, "-buildid="))
	if rec.Sum != want.Sum() {
		t.Error("other bytes than those of go install")
	}
	ts.stop()
	check(t)
	if _, err := tlog.CheckLog(t.Context(), filepath.Join(dir, "log"), verifier, nil, func(s string) { t.Error(s) }); err != nil {
		t.Error(err)
	}
}

// checkCache compares everything in caches of compiled packages with what
// names it.
func checkCache(t *testing.T, dir string) {
	t.Helper()
	entries, err := filepath.Glob(filepath.Join(dir, "*", "??", "*-a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		a, err := readAction(name, strings.TrimSuffix(filepath.Base(name), "-a"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(name)), a.output[:2], a.output+"-d"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the entry counts as none; the output was in another cache, which is thrown away
		}
		if err == nil {
			err = checkOutput(a, data)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// publishToolchain puts the machine's Go into the ecosystem as a toolchain:
// all that builds need of it, or only what a server reads, with a bin/go that
// runs the machine's.
func (e *ecosystem) publishToolchain(whole bool) {
	t := e.t
	t.Helper()
	root, err := filepath.EvalSymlinks(goRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	m := module.Version{Path: toolchain.ModulePath, Version: "v0.0.1-" + goVersion + "." + runtime.GOOS + "-" + runtime.GOARCH}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name string, data []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: m.String() + "/" + name, Method: zip.Store})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	wanted := func(dir string) bool {
		return dir != "src/cmd" && path.Base(dir) != "testdata" && !strings.HasPrefix(path.Base(dir), "_")
	}
	add("VERSION", read("VERSION"))
	add("go.mod", []byte("module golang.org/toolchain\n"))
	if !whole {
		add("bin/go", fmt.Appendf(nil, "#!/bin/sh\nGOROOT='%s' exec '%s/bin/go' \"$@\"\n", root, root))
		add("src/internal/platform/zosarch.go", read("src/internal/platform/zosarch.go"))
	} else {
		add("bin/go", read("bin/go"))
		add("go.env", read("go.env"))
	}
	for _, top := range []string{"src", "pkg/tool", "pkg/include"} {
		err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(top)), func(name string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			switch {
			case d.IsDir() && !wanted(rel):
				return filepath.SkipDir
			case d.IsDir() && !whole:
				if top == "src" {
					add(rel+"/dir", nil) // says that there is such a package
				}
			case !d.IsDir() && whole && !strings.HasSuffix(rel, "_test.go"):
				add(strings.Replace(rel, "src/go.mod", "src/_go.mod", 1), read(rel))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	e.publishZip(m, []byte("module golang.org/toolchain\n"), b.Bytes())
}
