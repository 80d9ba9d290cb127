package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"example.org/upkeep/builder/sandbox"
	"example.org/upkeep/builder/source"
	"example.org/upkeep/builder/toolchain"
	"example.org/upkeep/internal/goproxy"
	"example.org/upkeep/internal/httpget"
	"example.org/upkeep/tlog"
)

// A Failure is a build that gave no binary.
type Failure struct {
	Permanent bool          // the same spec will fail again
	NotFound  bool          // the fault is the request's; without Permanent it may be right later: a version can be published
	Text      string        // for people, without local paths
	Status    int           // of HTTP; 0: 404 or 500
	Err       error         // for the log of the server, may be nil
	after     time.Duration // of a refusal: when it is worth asking again
}

func (f *Failure) Error() string { return f.Text }

func (f *Failure) Unwrap() error { return f.Err }

// HTTPStatus returns the status of a log lookup that met the failure.
func (f *Failure) HTTPStatus() int {
	if f.Status != 0 {
		return f.Status
	}
	if f.NotFound {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}

func notFound(text string) *Failure { return &Failure{Permanent: true, NotFound: true, Text: text} }

// unknown is a request for what does not exist now.
func unknown(text string) *Failure { return &Failure{NotFound: true, Text: text} }

func permanent(text string) *Failure { return &Failure{Permanent: true, Text: text} }

func temporary(text string, err error) *Failure { return &Failure{Text: text, Err: err} }

// failureOf explains an error of a step that ran no command.
func failureOf(err error) *Failure {
	var f *Failure
	var hash *source.HashError
	var status *httpget.StatusError
	var fork *tlog.ForkError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &fork), errors.Is(err, tlog.ErrSignature), errors.Is(err, tlog.ErrInconsistent), errors.Is(err, tlog.ErrShrunk):
		return temporary("The checksum database contradicts itself or its key, so that nothing it says can be verified.", &alarmError{"hash_mismatch", err})
	case errors.As(err, &hash):
		return temporary(sentence(hash.Error()), &alarmError{"hash_mismatch", err})
	case errors.Is(err, toolchain.ErrUnknown):
		return unknown(sentence(err.Error()))
	case errors.Is(err, goproxy.ErrNotFound):
		var missing *goproxy.MissingError
		if errors.As(err, &missing) {
			text := missing.What + " is not known to the module proxy."
			if missing.Text != "" {
				text += " It says: " + missing.Text
			}
			return unknown(text)
		}
		return unknown("The module proxy does not know this module or version.")
	case errors.Is(err, tlog.ErrNotFound):
		return unknown("The checksum database does not know this module or version.")
	case errors.As(err, &status) && status.Code/100 == 4 && !status.Temporary():
		// Some proxies refuse what they don't have.
		text := fmt.Sprintf("The module proxy refuses this module or version (%d).", status.Code)
		if status.Text != "" {
			text += " It says: " + status.Text
		}
		return unknown(text)
	case errors.Is(err, context.Canceled):
		return temporary("The build was cancelled.", err)
	case errors.Is(err, context.DeadlineExceeded):
		return errProxySlow
	case errors.Is(err, syscall.ENOSPC):
		return temporary("The build server's disk is full.", err)
	case errors.Is(err, source.ErrTooLarge):
		return permanent("The module's go.mod is larger than this server accepts.")
	case errors.Is(err, httpget.ErrTooLarge): // so that nothing of it was verified
		return temporary("The module proxy's answer is larger than this server accepts.", err)
	}
	return temporary("The build server could not get what it needs; it will try again.", err)
}

// errProxySlow is a download that took too long.
var errProxySlow = temporary("The module proxy or the checksum database took longer than this server allows.", context.DeadlineExceeded)

// A rule recognises one cause in the output of the go command.
type rule struct {
	re       *regexp.Regexp
	notFound bool
	text     string // with $1…; "" takes the matching line
}

// Causes that pass. They are looked for first: a download that broke can
// make a later message look like a fault of the module.
var temporaryRE = regexp.MustCompile(`(?i)signal: (killed|bus error|segmentation)|out of memory|cannot allocate memory|no space left on device|disk quota exceeded|file too large|resource temporarily unavailable|too many open files|connection (refused|reset)|\bGet "(?:https?://|PROXY)|i/o timeout|no such host|tls handshake|unexpected EOF|server misbehaving|network is unreachable|context deadline exceeded|: (429|5\d\d) |stream error|text file busy|input/output error|pthread_create failed|runtime: failed to create`)

// Signs of too little memory: the kernel's choice, or the limit of a process.
var memoryRE = regexp.MustCompile(`signal: killed|fatal error: runtime: (cannot allocate|out of) memory|fatal error: out of memory|runtime: cannot allocate memory|mmap: cannot allocate memory`)

// A proxy that serves other bytes than the checksum database records.
var securityRE = regexp.MustCompile(`SECURITY ERROR|checksum mismatch`)

// A record that could not be had from the checksum database, or not be proven.
var verifyingRE = regexp.MustCompile(`verifying (?:module|zip|go\.mod): `)

// What is not there, also in the checksum database.
var missingRE = regexp.MustCompile(`reading \S+: (?:404|410) `)

// What is not there for now: it may be published, or the proxy be half a one.
var goneRE = regexp.MustCompile(`(\S+@\S+): reading \S+: (?:404|410)`)

// Answers of a proxy that nothing could be verified of, perhaps named with the
// line of the source that imports the package.
var unusableRE = regexp.MustCompile(`reading \S+: [1-5]\d\d |invalid response from proxy|proxy returned info|zip: (?:not a valid|checksum|unsupported)|zip for \S+ has unexpected file|flate: corrupt`)

var rules = []rule{
	{regexp.MustCompile(`package (\S+) is not a main package`), true, "Package $1 is not a command: it is not package main."},
	{regexp.MustCompile(`module (\S+) found[^,]*, but does not contain package (\S+)`), true, "There is no package $2 in $1."},
	{regexp.MustCompile(`no required module provides package (\S+);`), true, "There is no package $1 in this version."},
	{regexp.MustCompile(`contains\s+one\s+or\s+more\s+(replace|exclude)\s+directives`), true, "The module's go.mod has a $1 directive, with which nobody can install it as package@version."},
	{regexp.MustCompile(`requires go >= (\S+) \(running go (\S+?)[;)]`), true, "The module or one of its dependencies needs Go $1 or later; the build was asked for with Go $2."},
	{regexp.MustCompile(`build constraints exclude all Go files in (?:\S*/)?([^/\s]+)`), true, "Package $1 has no Go files for this target without cgo."},
	{regexp.MustCompile(`requires external \(cgo\) linking, but cgo is not enabled`), true, "Programs for this target can't be linked without cgo."},
	{regexp.MustCompile(`package (\S+) is not in std`), true, "The Go version asked for has no package $1."},
	{regexp.MustCompile(`no (?:non-test )?Go files in`), true, "The package has no Go files."},
	{regexp.MustCompile(`unzip \S+: (.*(?:malformed file path|name collision|both a file and a directory|too large|larger than declared).*)`), false, "The zip of a module can't be unpacked: $1"},
	{regexp.MustCompile(`fatal error: stack overflow`), false, "The compiler ran out of stack: the source is nested too deeply."},
	{regexp.MustCompile(`import cycle not allowed`), false, "The package imports itself in a cycle."},
	{regexp.MustCompile(`pattern (\S+): no matching files found`), false, "The package embeds files that the module does not hold ($1)."},
	{regexp.MustCompile(`pattern (\S+): cannot embed`), false, "The package embeds something that can't be embedded ($1)."},
	{regexp.MustCompile(`use of internal package (\S+) not allowed`), false, "The package uses the internal package $1 of another module."},
	{regexp.MustCompile(`(?m)^.*(?:unknown revision|invalid version|malformed|errors parsing|unknown directive|module declares its path as|invalid (?:import path|module|character)|unexpected module path|ambiguous import|cannot find (?:module|package)|invalid input (?:directory|file) name).*$`), false, ""},
	// What the compiler, the assembler and the linker say of source.
	{regexp.MustCompile(`(?m)^\S+?:\d+(?::\d+)?: .+$`), false, "The source does not compile: $0"},
	{regexp.MustCompile(`(?m)^(?:(?:\S*/)?link|load(?:elf|macho|pe|xcoff)): .+$|^.*: relocation target \S+ not defined.*$|^.*function main is undeclared in the main package.*$|^.*missing function body.*$`), false, "The program does not link: $0"},
}

// classify explains a command that failed, from its output. What the go command
// says of the checksum database it says while it fetches; later, only source can
// say it.
func classify(output string, err error, fetching bool) *Failure {
	var exit *sandbox.ExitError
	switch {
	case errors.Is(err, sandbox.ErrTimeout):
		return temporary("The build took longer than this server allows.", err)
	case errors.Is(err, sandbox.ErrMemory):
		return temporary("The build needed more memory than this server allows.", err)
	case errors.Is(err, errWorkFull):
		return temporary("The build needed more disk space than this server allows.", err)
	case errors.Is(err, errDiskLow):
		return temporary("The build was ended because the build server's disk was nearly full.", err)
	case errors.Is(err, context.Canceled):
		return temporary("The build was cancelled.", err)
	case !errors.As(err, &exit):
		return temporary("The build server could not run the build.", err)
	case exit.Signal != "":
		return temporary("The build was ended by the system ("+exit.Signal+").", err)
	}
	if m := securityRE.FindString(output); fetching && m != "" {
		return &Failure{Text: "The module proxy served something else than the checksum database records. " + line(output, m), Err: &alarmError{"hash_mismatch", err}}
	}
	if m := memoryRE.FindString(output); m != "" {
		return temporary("The build needed more memory than it could have: "+line(output, m), fmt.Errorf("%w: %w", sandbox.ErrMemory, err))
	}
	if m := temporaryRE.FindString(output); m != "" {
		return temporary("The build stopped for a reason that may pass: "+line(output, m), err)
	}
	if m := verifyingRE.FindString(output); fetching && m != "" {
		l := line(output, m)
		if missingRE.MatchString(l) {
			return temporary("The checksum database does not know a dependency: "+l, err)
		}
		return &Failure{Text: "The checksum database's record of a module could not be verified: " + l, Err: &alarmError{"hash_mismatch", err}}
	}
	if m := goneRE.FindStringSubmatch(output); fetching && m != nil {
		return unknown(httpget.Line(m[1], 500) + " is not known to the module proxy.")
	}
	if m := unusableRE.FindString(output); fetching && m != "" {
		return temporary("The module proxy's answer can't be used: "+line(output, m), err)
	}
	for _, r := range rules {
		loc := r.re.FindStringSubmatchIndex(output)
		if loc == nil {
			continue
		}
		text := string(r.re.ExpandString(nil, strings.ReplaceAll(r.text, "$0", "${0}"), output, loc))
		if r.text == "" {
			text = output[loc[0]:loc[1]]
		}
		return &Failure{Permanent: true, NotFound: r.notFound, Text: httpget.Line(text, 1000), Err: err}
	}
	last := crashRE.FindString(output)
	if last == "" {
		last = lastLine(output)
	}
	return temporary("The build failed: "+httpget.Line(last, 500), err)
}

// The reason of a crash stands above its stacks.
var crashRE = regexp.MustCompile(`(?m)^(?:panic|fatal error): .+$`)

// line returns the line of text that holds part.
func line(text, part string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, part) {
			return httpget.Line(l, 500)
		}
	}
	return ""
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// sentence makes an error's text one.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
