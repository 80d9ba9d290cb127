package builder

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
)

// Bounds on what is kept of a command's output.
const (
	maxOutput = 256 << 10
	maxLine   = 4 << 10
)

// lines is a writer that hands complete lines to a function. Longer lines are
// cut, and control characters are removed: the text is foreign.
type lines struct {
	emit func(string)
	buf  []byte
	skip bool // until the end of a line that was cut
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := maxLine - len(l.buf); !l.skip {
			l.buf = append(l.buf, part[:min(len(part), room)]...)
			l.skip = len(part) > room
		}
		if i < 0 {
			break
		}
		l.flush()
		p = p[i+1:]
	}
	return n, nil
}

// flush hands on what stands in an unfinished line.
func (l *lines) flush() {
	if len(l.buf) > 0 || l.skip {
		l.emit(printable(string(l.buf)))
	}
	l.buf, l.skip = l.buf[:0], false
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// A plan reads the output of go install -n: which packages would be compiled,
// and what the go command says besides.
type plan struct {
	packages []string
	said     []string
	size     int
	last     string
	live     func(string)
}

var headerRE = regexp.MustCompile(`^# ([A-Za-z0-9_~.+/-]+)$`)

// maxPackages bounds a build: no real program has nearly as many.
const maxPackages = 20_000

func (p *plan) line(s string) {
	// A package starts with "#", "# its/path", "#".
	if m := headerRE.FindStringSubmatch(s); m != nil && p.last == "#" && len(p.packages) < maxPackages {
		p.packages = append(p.packages, m[1])
	}
	p.last = s
	if strings.HasPrefix(s, "go: ") {
		p.live(s)
	}
	if p.size < maxOutput {
		p.size += len(s) + 1
		p.said = append(p.said, s)
	}
}

// standard returns the packages of the standard library among those planned,
// in the form in which the go command accepts them.
func (p *plan) standard(isStd func(string) bool) []string {
	var std []string
	for _, pkg := range p.packages {
		if first, _, _ := strings.Cut(pkg, "/"); first == "vendor" || strings.Contains(first, ".") {
			continue // what the library itself imports is compiled with it
		}
		if isStd(pkg) {
			std = append(std, pkg)
		}
	}
	return std
}
