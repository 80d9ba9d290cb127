package config

import (
	"encoding"
	"errors"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// checkTexts hands each text of the file to the UnmarshalText method of the
// field that it is for, and returns what that says with the place in the file.
// The decoder alone would name no place, and it does not ask fields whose
// underlying type is a string.
func checkTexts(file string, data []byte, t reflect.Type) error {
	var errs []error
	var p unstable.Parser
	p.Reset(data)
	check := func(key []string, t reflect.Type, value *unstable.Node) {
		if value.Kind != unstable.String || !reflect.PointerTo(t).Implements(textUnmarshaler) {
			return
		}
		err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText(value.Data)
		if err != nil {
			at := p.Shape(value.Raw).Start
			errs = append(errs, &Error{File: file, Line: at.Line, Column: at.Column, Key: strings.Join(key, "."), Msg: err.Error()})
		}
	}
	var visit func(key []string, value *unstable.Node)
	visit = func(key []string, value *unstable.Node) {
		switch value.Kind {
		case unstable.InlineTable:
			for it := value.Children(); it.Next(); {
				visit(append(key[:len(key):len(key)], keyOf(it.Node())...), it.Node().Value())
			}
		case unstable.Array:
			if ft := fieldType(t, key); ft != nil && ft.Kind() == reflect.Slice {
				for it := value.Children(); it.Next(); {
					if it.Node().Kind == unstable.InlineTable {
						visit(key, it.Node())
					} else {
						check(key, ft.Elem(), it.Node())
					}
				}
			}
		default:
			if ft := fieldType(t, key); ft != nil {
				check(key, ft, value)
			}
		}
	}
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keyOf(e)
		case unstable.KeyValue:
			visit(append(table[:len(table):len(table)], keyOf(e)...), e.Value())
		}
	}
	return errors.Join(errs...) // a syntax error is the decoder's to report
}

func keyOf(n *unstable.Node) []string {
	var key []string
	for it := n.Key(); it.Next(); {
		key = append(key, string(it.Node().Data))
	}
	return key
}

// fieldType returns the type that a key's value is decoded into, or nil.
func fieldType(t reflect.Type, key []string) reflect.Type {
	for _, name := range key {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		var found reflect.Type
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && strings.EqualFold(tomlName(f), name) {
				found = f.Type
				break
			}
		}
		if found == nil {
			return nil
		}
		t = found
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// tomlName is the key of a field; "-" is none.
func tomlName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	if name == "" {
		name = strings.ToLower(f.Name)
	}
	return name
}
