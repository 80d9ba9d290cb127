package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// reexecTool is the program's first argument when it stands between the go
// command and one of its tools (go install -toolexec).
const reexecTool = "sandbox-tool"

// Tool returns the value for -toolexec that confines each compiler process to
// the folder of its own package: source that takes over the compiler can
// change what comes of itself, and nothing else.
func (b *bwrap) Tool() string {
	for _, m := range b.missing {
		if m == Landlock {
			return ""
		}
	}
	return innerPath + " " + reexecTool
}

// This runs before the packages that only the server needs are initialised: a
// build starts a thousand tools.
func init() {
	if len(os.Args) < 3 || os.Args[1] != reexecTool || os.Args[0] != innerPath {
		return
	}
	err := tool(os.Args[2:])
	fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
	os.Exit(125)
}

func tool(argv []string) error {
	runtime.LockOSThread() // as in inner
	if err := restrict(innerSetup{}, toolFolders(argv)); err != nil {
		return err
	}
	return fmt.Errorf("starting %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// errNoFolder is never shown: a tool without an output writes nothing.
var errNoFolder = errors.New("no folder")

// toolFolders returns the folders that a tool's command line says it writes
// to: that of its output, within the go command's work folder of the package.
func toolFolders(argv []string) []string {
	var dirs []string
	add := func(file string) {
		if dir, err := packageFolder(file); err == nil {
			dirs = append(dirs, dir)
		}
	}
	for i, a := range argv[1:] {
		next := ""
		if i+2 < len(argv) {
			next = argv[i+2]
		}
		switch {
		case a == "-o":
			add(next)
		case strings.HasPrefix(a, "-o="):
			add(a[len("-o="):])
		case a == "--":
			return dirs
		}
	}
	if filepath.Base(argv[0]) == "pack" && len(argv) > 2 {
		add(argv[2])
	}
	return dirs
}

// packageFolder returns .../go-build123/b045 of a file in it.
func packageFolder(file string) (string, error) {
	if !filepath.IsAbs(file) || filepath.Clean(file) != file {
		return "", errNoFolder
	}
	elems := strings.Split(file, "/")
	for i, e := range elems {
		if strings.HasPrefix(e, "go-build") && i+2 < len(elems) && strings.HasPrefix(elems[i+1], "b") {
			return strings.Join(elems[:i+2], "/"), nil
		}
	}
	return "", errNoFolder
}
