package spec

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Record is one leaf of the build log.
type Record struct {
	Spec
	Size int64  // of the binary, in bytes, never 0
	Sum  string // of the binary, see [Sum]
}

// maxRecord bounds a record's line: a spec and three short fields.
const maxRecord = maxLen + 128

// ParseRecord reads the line of a record, with its newline. The variant field
// may be left out.
func ParseRecord(line []byte) (Record, error) {
	if len(line) > maxRecord {
		return Record{}, fmt.Errorf("build record is %d bytes long; at most %d are allowed", len(line), maxRecord)
	}
	body, ok := bytes.CutSuffix(line, []byte("\n"))
	if !ok {
		return Record{}, errors.New("build record does not end in a newline")
	}
	for _, c := range body {
		if c < ' ' {
			return Record{}, fmt.Errorf("build record %q holds a control character", body)
		}
	}
	f := strings.Split(string(body), " ")
	if len(f) != 8 && len(f) != 9 {
		return Record{}, fmt.Errorf("build record %q has %d fields instead of 9", body, len(f))
	}
	dir, ok := strings.CutPrefix(f[2], "/")
	if !ok {
		return Record{}, fmt.Errorf("build record %q: package folder %q does not start with a slash", body, f[2])
	}
	r := Record{Spec: Spec{Module: f[0], Version: f[1], Dir: dir, GOOS: f[3], GOARCH: f[4], GoVersion: f[5]}, Sum: f[7]}
	if len(f) == 9 && f[8] != "" {
		if f[8] != "stripped" {
			return Record{}, fmt.Errorf("build record %q: variant %q is not known", body, f[8])
		}
		r.Stripped = true
	}
	size, err := strconv.ParseInt(f[6], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != f[6] {
		return Record{}, fmt.Errorf("build record %q: size %q is not a decimal number", body, f[6])
	}
	r.Size = size
	if err := r.Check(); err != nil {
		return Record{}, fmt.Errorf("build record %q: %w", body, err)
	}
	return r, nil
}

// Check says what is wrong with a record, if anything.
func (r Record) Check() error {
	if err := r.Spec.Check(); err != nil {
		return err
	}
	if r.Size <= 0 || r.Size == math.MaxInt64 {
		return fmt.Errorf("size %d is not that of a binary", r.Size)
	}
	return CheckSum(r.Sum)
}

// Line returns the record's line, with its newline. Without a variant the line
// ends in a space before the newline.
func (r Record) Line() []byte {
	variant := ""
	if r.Stripped {
		variant = "stripped"
	}
	return fmt.Appendf(nil, "%s %s /%s %s %s %s %d %s %s\n",
		r.Module, r.Version, r.Dir, r.GOOS, r.GOARCH, r.GoVersion, r.Size, r.Sum, variant)
}
