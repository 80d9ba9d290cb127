// Package config reads and prints the programs' TOML files.
//
// A configuration is a struct with its default values set. Its fields carry
// the key in a toml tag and the documentation in a comment tag, so that the
// printed default configuration is the reference. Reading is strict: a key
// that the struct does not have is an error that names the file, the line and
// the nearest key there is.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// maxSize bounds a configuration file; a larger one is a mistake.
const maxSize = 1 << 20

// An Error says where in which file what is wrong.
type Error struct {
	File   string
	Line   int // 0 if it has none
	Column int
	Key    string // dotted, may be empty
	Msg    string
}

func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	if e.Key != "" {
		s += ": key " + e.Key
	}
	return s + ": " + e.Msg
}

// Load reads the file into a struct that holds the default values.
func Load(file string, into any) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1)) // a device or pipe may have no end
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if len(data) > maxSize {
		return &Error{File: file, Msg: fmt.Sprintf("is too long; a configuration has at most %d bytes", maxSize)}
	}
	return Parse(file, data, into)
}

// Parse is Load for a text at hand; file is its name in errors. With several
// mistakes in the text it returns all of them, joined.
func Parse(file string, data []byte, into any) error {
	if err := checkTexts(file, data, reflect.TypeOf(into)); err != nil {
		return err
	}
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(into)
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var errs []error
		for i := range missing.Errors {
			de := &missing.Errors[i]
			line, col := de.Position()
			msg := "is not known"
			if near := nearest(de.Key(), reflect.TypeOf(into)); near != "" {
				msg += "; did you mean " + near + "?"
			}
			errs = append(errs, &Error{File: file, Line: line, Column: col, Key: strings.Join(de.Key(), "."), Msg: msg})
		}
		return errors.Join(errs...)
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, col := de.Position()
		return &Error{File: file, Line: line, Column: col, Key: strings.Join(de.Key(), "."),
			Msg: plain(strings.TrimPrefix(de.Error(), "toml: "))}
	}
	if err != nil {
		return &Error{File: file, Msg: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return nil
}

// Default prints a configuration with the documentation of every key.
func Default(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.SetIndentTables(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("printing the configuration: %w", err)
	}
	return b.Bytes(), nil
}

// plain says in a user's words that a value is of the wrong type: the decoder
// names the types of the program.
func plain(msg string) string {
	what, ok := strings.CutPrefix(msg, "cannot decode TOML ")
	if !ok {
		return msg
	}
	what, _, _ = strings.Cut(what, " into ")
	return "can't be of the type " + what + "; 'config default' shows how it is written"
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// nearest returns the known key that looks most like the unknown one, or "".
func nearest(key []string, t reflect.Type) string {
	var known []string
	var walk func(prefix string, t reflect.Type)
	walk = func(prefix string, t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(textUnmarshaler) {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name := tomlName(f)
			if name == "-" || !f.IsExported() {
				continue
			}
			known = append(known, prefix+name)
			walk(prefix+name+".", f.Type)
		}
	}
	walk("", t)
	sort.Strings(known)

	want := strings.Join(key, ".")
	best, bestDist := "", 1<<30
	for _, k := range known {
		d := distance(want, k)
		// The right name in the wrong table is as near as one slip.
		d = min(d, distance(last(want), last(k))+1)
		if d < bestDist {
			best, bestDist = k, d
		}
	}
	if bestDist > max(2, len(last(want))/2) {
		return ""
	}
	return best
}

func last(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is the Levenshtein distance of two short strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cur := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev+cost, cur+1, row[j]+1)
			prev = cur
		}
	}
	return row[len(b)]
}

// A Duration is a time.Duration in a configuration: a text like "72h" or
// "1m30s", or a number of days like "3d".
type Duration time.Duration

// D returns the duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// MarshalText writes the shortest form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText reads a duration; it is never negative.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if number, ok := strings.CutSuffix(s, "d"); ok {
		if days, err := strconv.Atoi(number); err == nil && number == strconv.Itoa(days) && days >= 0 && days < 36500 {
			*d = Duration(time.Duration(days) * 24 * time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration; write it like \"90s\", \"1h30m\" or \"3d\"", s)
	}
	*d = Duration(v)
	return nil
}
