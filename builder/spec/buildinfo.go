package spec

import (
	"fmt"
	"go/version"
	"runtime/debug"
)

// CheckBuildInfo compares the build information inside a binary with the spec
// it is said to be built from. The first difference is the error.
func CheckBuildInfo(bi *debug.BuildInfo, s Spec) error {
	differs := func(what, got, want string) error {
		if got == want {
			return nil
		}
		if got == "" {
			got = "none"
		}
		return fmt.Errorf("build information: %s is %.200q, not %q", what, got, want)
	}
	if err := differs("main package", bi.Path, s.Package()); err != nil {
		return err
	}
	if err := differs("module", bi.Main.Path, s.Module); err != nil {
		return err
	}
	if err := differs("version", bi.Main.Version, s.Version); err != nil {
		return err
	}
	if bi.Main.Replace != nil {
		return fmt.Errorf("build information: the main module is replaced by %.200q", bi.Main.Replace.Path)
	}
	for _, dep := range bi.Deps {
		if dep.Replace != nil {
			return fmt.Errorf("build information: dependency %.200q is replaced by %.200q", dep.Path, dep.Replace.Path)
		}
	}
	if err := differs("Go version", bi.GoVersion, s.GoVersion); err != nil {
		return err
	}
	// The go command records settings since go1.18.
	if version.Compare(s.GoVersion, "go1.18") < 0 {
		return nil
	}
	settings := map[string]string{}
	for _, set := range bi.Settings {
		if old, ok := settings[set.Key]; ok && old != set.Value {
			return fmt.Errorf("build information: two values of %.100q", set.Key)
		}
		settings[set.Key] = set.Value
	}
	for _, want := range [][2]string{{"GOOS", s.GOOS}, {"GOARCH", s.GOARCH}, {"CGO_ENABLED", "0"}, {"-trimpath", "true"}, {"-compiler", "gc"}} {
		if err := differs(want[0], settings[want[0]], want[1]); err != nil {
			return err
		}
	}
	return nil
}
