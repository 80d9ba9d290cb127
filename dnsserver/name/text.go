package name

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// MaxText is the size of one string in a TXT record.
const MaxText = 255

// Bounds for texts that others wrote: more than any honest server sends.
const (
	maxForeign = 4096
	maxEntries = 64
	maxVersion = 200
	maxTime    = 253402300799 // 9999-12-31T23:59:59Z
)

// An Entry is one version in a record.
type Entry struct {
	Version string
	Time    time.Time // when it was discovered; zero if the record doesn't say
	Kind    string    // for toolchains "cur", "prev" or "next"
}

// FormatTXT writes entries into one string of at most 255 bytes. Those that no
// longer fit are left out from the end.
func FormatTXT(entries []Entry) string {
	b := make([]byte, 0, MaxText)
	for i, e := range entries {
		n := len(b)
		if i > 0 {
			b = append(b, "; "...)
		}
		b = append(append(b, "v="...), e.Version...)
		if e.Kind != "" {
			b = append(append(b, " k="...), e.Kind...)
		}
		if !e.Time.IsZero() {
			b = strconv.AppendInt(append(b, " t="...), e.Time.Unix(), 16)
		}
		if len(b) > MaxText {
			b = b[:n]
			break
		}
	}
	return string(b)
}

// ParseTXT reads the versions of a record, in its order. Unknown fields are
// ignored; an entry without a version, or with a malformed one, is an error:
// the reader must not act on half of what was said.
func ParseTXT(txt string) ([]Entry, error) {
	if len(txt) > maxForeign {
		return nil, fmt.Errorf("the record has %d bytes; at most %d are read", len(txt), maxForeign)
	}
	parts := strings.Split(txt, ";")
	if len(parts) > maxEntries {
		return nil, fmt.Errorf("the record has %d entries; at most %d are read", len(parts), maxEntries)
	}
	entries := make([]Entry, 0, len(parts))
	for _, part := range parts {
		e, err := parseEntry(part)
		if err != nil {
			return nil, fmt.Errorf("entry %s of the record: %w", strconv.QuoteToASCII(cut(part)), err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseEntry(s string) (e Entry, err error) {
	f, err := fields(s)
	if err != nil {
		return e, err
	}
	e.Version, e.Kind = f["v"], f["k"]
	if e.Version == "" {
		return e, errors.New("has no version")
	}
	if !validVersion(e.Version) {
		return e, errors.New("has a malformed version")
	}
	if t, ok := f["t"]; ok {
		if e.Time, err = parseTime(t); err != nil {
			return e, err
		}
	}
	return e, nil
}

// fields reads key=value fields that are separated by spaces. A key that is
// there twice would mean two things to two readers.
func fields(s string) (map[string]string, error) {
	f := map[string]string{}
	for field := range strings.FieldsSeq(s) {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			continue // not ours
		}
		if _, twice := f[key]; twice {
			return nil, fmt.Errorf("has the field %s twice", strconv.QuoteToASCII(cut(key)))
		}
		f[key] = value
	}
	return f, nil
}

func parseTime(hex string) (time.Time, error) {
	sec, err := strconv.ParseUint(hex, 16, 63)
	if err != nil || sec > maxTime {
		return time.Time{}, fmt.Errorf("has a malformed time %s", strconv.QuoteToASCII(cut(hex)))
	}
	return time.Unix(int64(sec), 0).UTC(), nil
}

// validVersion accepts canonical module versions and Go releases.
func validVersion(v string) bool {
	if len(v) > maxVersion {
		return false
	}
	if rest, ok := strings.CutPrefix(v, "go1"); ok {
		return validGo(rest)
	}
	base := strings.TrimSuffix(v, "+incompatible")
	return semver.IsValid(base) && semver.Canonical(base) == base
}

// validGo checks what follows "go1" in a release: .27, .27.4, .28rc1.
func validGo(s string) bool {
	if s == "" {
		return true
	}
	rest, ok := number(strings.CutPrefix(s, "."))
	if !ok || rest == "" {
		return ok
	}
	for _, sep := range []string{".", "rc", "beta"} {
		if after, found := strings.CutPrefix(rest, sep); found {
			rest, ok = number(after, true)
			return ok && rest == ""
		}
	}
	return false
}

// number cuts a decimal number without leading zeros off the front of s.
func number(s string, prefixed bool) (rest string, ok bool) {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return s[n:], prefixed && n > 0 && n < 6 && (n == 1 || s[0] != '0')
}

// StatusText says how far the index behind a server is.
type StatusText struct {
	Size int64     // records of the log
	Hash [32]byte  // root hash at that size
	At   time.Time // when this tree head was accepted
}

// Format writes the text of the status record.
func (s StatusText) Format() string {
	return fmt.Sprintf("n=%d h=%s at=%x", s.Size, base64.StdEncoding.EncodeToString(s.Hash[:]), s.At.Unix())
}

// ParseStatus reads the text of the status record.
func ParseStatus(txt string) (StatusText, error) {
	var s StatusText
	fail := func(err error) (StatusText, error) {
		return StatusText{}, fmt.Errorf("status record %s: %w", strconv.QuoteToASCII(cut(txt)), err)
	}
	if len(txt) > maxForeign {
		return fail(errors.New("is too long"))
	}
	f, err := fields(txt)
	if err != nil {
		return fail(err)
	}
	s.Size, err = strconv.ParseInt(f["n"], 10, 64)
	if err != nil || s.Size < 0 {
		return fail(errors.New("has no size"))
	}
	h, err := base64.StdEncoding.Strict().DecodeString(f["h"])
	if err != nil || len(h) != len(s.Hash) {
		return fail(errors.New("has no root hash"))
	}
	copy(s.Hash[:], h)
	if s.At, err = parseTime(f["at"]); err != nil {
		return fail(err)
	}
	return s, nil
}

// ParseUpdates reads a program's own record, `v=UPDATES0; l=v0.0.11`, and
// returns the latest version.
func ParseUpdates(txt string) (latest string, err error) {
	fail := func(msg string) (string, error) {
		return "", fmt.Errorf("updates record %s %s", strconv.QuoteToASCII(cut(txt)), msg)
	}
	if len(txt) > maxForeign {
		return fail("is too long")
	}
	for i, part := range strings.Split(txt, ";") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch {
		case i == 0:
			if !ok || key != "v" || value != "UPDATES0" {
				return fail("does not start with v=UPDATES0")
			}
		case ok && key == "l":
			if latest != "" {
				return fail("names two versions")
			}
			if !validVersion(value) || !strings.HasPrefix(value, "v") {
				return fail("has a malformed version")
			}
			latest = value
		}
	}
	if latest == "" {
		return fail("names no version")
	}
	return latest, nil
}

// cut shortens foreign text for an error message.
func cut(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}
