package main

import (
	_ "embed"
	"fmt"
	"strings"

	"golang.org/x/mod/semver"
)

// The sample service. Its files end in .txt because the go command leaves a
// folder with a go.mod file out of what it embeds.
const (
	sampleModule = "example.org/hello"
	sampleFirst  = "v1.0.0"
	sampleSecond = "v1.0.1"
)

var (
	//go:embed hello/main.go.txt
	sampleMain string
	//go:embed hello/go.mod.txt
	sampleGoMod string
)

// sampleFiles returns the source of a version; each greets in another way.
func sampleFiles(version string) map[string][]byte {
	greeting := "Hello"
	if version != sampleFirst {
		greeting = "Hello again, better than ever,"
	}
	return map[string][]byte{
		"go.mod":  []byte(sampleGoMod),
		"main.go": []byte(strings.Replace(sampleMain, "{{GREETING}}", greeting, 1)),
	}
}

// nextPatch returns the patch version after v.
func nextPatch(v string) (string, error) {
	var major, minor, patch int
	if !semver.IsValid(v) {
		return "", fmt.Errorf("%q is not a version", v)
	}
	if _, err := fmt.Sscanf(semver.Canonical(v), "v%d.%d.%d", &major, &minor, &patch); err != nil {
		return "", fmt.Errorf("%q is not a version: %w", v, err)
	}
	return fmt.Sprintf("v%d.%d.%d", major, minor, patch+1), nil
}
