package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/web/servicepage"
)

// settings is the configuration file as the web page sees it.
type settings struct{ file string }

var _ servicepage.Settings = settings{}

func (s settings) File() string { return s.file }

func (s settings) Read() (string, []servicepage.Setting, error) {
	data, err := os.ReadFile(s.file)
	if err != nil {
		return "", nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := defaultConfig()
	err = config.Parse(s.file, data, &c)
	given := map[string]any{}
	if e := toml.Unmarshal(data, &given); e != nil && err == nil {
		err = e
	}
	return string(data), flatten("", reflect.ValueOf(c), given), err
}

// flatten lists the values of a configuration with where each comes from.
func flatten(prefix string, v reflect.Value, given map[string]any) []servicepage.Setting {
	var list []servicepage.Setting
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		below, inFile := given[name]
		if f.Type.Kind() == reflect.Struct {
			table, _ := below.(map[string]any)
			list = append(list, flatten(prefix+name+".", v.Field(i), table)...)
			continue
		}
		origin := "default"
		if inFile {
			origin = "file"
		}
		list = append(list, servicepage.Setting{Key: prefix + name, Value: valueText(v.Field(i)), Origin: origin,
			Doc: strings.ReplaceAll(f.Tag.Get("comment"), "\n", " ")})
	}
	return list
}

// valueText is a value as the file would have it.
func valueText(v reflect.Value) string {
	out, err := toml.Marshal(map[string]any{"x": v.Interface()})
	if err != nil {
		return fmt.Sprint(v.Interface())
	}
	text := strings.TrimSpace(string(out))
	if rest, ok := strings.CutPrefix(text, "x = "); ok {
		return rest
	}
	return text
}

// Check looks at everything that a start looks at, before anything is saved.
func (s settings) Check(text string) []servicepage.Problem {
	c := defaultConfig()
	err := config.Parse(s.file, []byte(text), &c)
	if err == nil {
		c.resolve(s.file)
		err = checkSettings(c, s.file)
	}
	return problems(s.file, err)
}

// problems takes joined errors apart.
func problems(file string, err error) []servicepage.Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var list []servicepage.Problem
		for _, e := range joined.Unwrap() {
			list = append(list, problems(file, e)...)
		}
		return list
	}
	var ce *config.Error
	if errors.As(err, &ce) {
		text := ce.Msg
		if ce.Key != "" {
			text = "key " + ce.Key + " " + ce.Msg
		}
		return []servicepage.Problem{{Line: ce.Line, Column: ce.Column, Text: text}}
	}
	return []servicepage.Problem{{Text: strings.TrimPrefix(err.Error(), file+": ")}}
}

// Save keeps the file's permissions.
func (s settings) Save(text string) error {
	perm := fs.FileMode(0o600)
	if fi, err := os.Stat(s.file); err == nil {
		perm = fi.Mode().Perm()
	}
	return durable.WriteFile(s.file, []byte(text), perm)
}
