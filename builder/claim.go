package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/source"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/tlog"
)

// The go command says when a module is not what the checksum database records.
// It also repeats source, with line breaks (the pattern of a go:embed), so its
// words alone are no reason for an alarm: the modules that they name are looked
// at again, by other code.

var versionRE = regexp.MustCompile(`([^\s@:"]+)@(v[^\s@:/"]+)`)

// maxClaimed bounds the modules that are looked at.
const maxClaimed = 10

// claimed returns the modules that an output says something about which would
// be an alarm.
func claimed(output string) []module.Version {
	var list []module.Version
	for l := range strings.Lines(output) {
		if !securityRE.MatchString(l) && !verifyingRE.MatchString(l) {
			continue
		}
		for _, m := range versionRE.FindAllStringSubmatch(l, maxClaimed) {
			v := module.Version{Path: m[1], Version: m[2]}
			if module.Check(v.Path, v.Version) == nil && !slices.Contains(list, v) && len(list) < maxClaimed {
				list = append(list, v)
			}
		}
	}
	return list
}

// lied reports whether one of the modules that the go command complains about is
// not what the checksum database records, or the database is at odds with itself.
func (b *build) lied(ctx context.Context, output string) bool {
	ctx, cancel := context.WithTimeout(ctx, b.s.cfg.FetchTimeout.D())
	defer cancel()
	dir, err := os.MkdirTemp(b.s.workDir, "claim-")
	if err != nil {
		return true // rather an alarm too many
	}
	defer os.RemoveAll(dir)
	for _, m := range claimed(output) {
		_, err := b.s.src.GoMod(ctx, m)
		if err == nil {
			file := filepath.Join(dir, "zip")
			if _, err = b.s.src.Zip(ctx, m, file, goproxy.MaxZip, nil); err == nil {
				err = os.Remove(file)
			}
		}
		var hash *source.HashError
		var fork *tlog.ForkError
		if errors.As(err, &hash) || errors.As(err, &fork) || errors.Is(err, tlog.ErrSignature) || errors.Is(err, tlog.ErrInconsistent) {
			return true
		}
	}
	return false
}
