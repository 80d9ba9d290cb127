package index_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"example.org/upkeep/tlog"
	"example.org/upkeep/tlog/index"
)

// A watching index shows nothing of a module that is no longer watched.
func TestOnly(t *testing.T) {
	const hash = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	s := open(t, filepath.Join(t.TempDir(), "index.db"), index.Options{Kind: index.Watching})
	versions := map[string]string{
		"code.example.org/a/b": "v1.0.0", "code.example.org/a/b/v2": "v2.0.0", "code.example.org/a/b/v3": "v3.0.0",
		"old.example.net/x/y": "v1.0.0", "golang.org/toolchain": "v0.0.1-go1.27.4.linux-amd64",
	}
	var id int64
	for path, v := range versions {
		rec := tlog.Record{ID: id, Data: fmt.Appendf(nil, "%s %s %s\n%s %s/go.mod %s\n", path, v, hash, path, v, hash)}
		if err := s.Add(tlog.TreeHead{Size: id + 1}, path, []index.Found{{Version: v, Time: 1, Record: rec}}, true); err != nil {
			t.Fatal(err)
		}
		id++
	}
	type shown struct {
		Modules, Later, Prefixes, Hosts, Each []string
		Toolchains                            int
	}
	show := func(r interface {
		index.Reader
		Each(func(string, bool) error) error
	}) (got shown) {
		t.Helper()
		note := func(list *[]string, what string, ok bool, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				*list = append(*list, what)
			}
		}
		for _, path := range []string{"code.example.org/a/b", "code.example.org/a/b/v2", "code.example.org/a/b/v3", "old.example.net/x/y", "golang.org/toolchain", "code.example.org/a"} {
			_, ok, err := r.Module(path)
			note(&got.Modules, path, ok, err)
		}
		for _, path := range []string{"code.example.org", "code.example.org/a", "code.example.org/a/b", "code.example.org/a/b/v2", "old.example.net", "old.example.net/x", "golang.org"} {
			ok, err := r.IsPrefix(path)
			note(&got.Prefixes, path, ok, err)
		}
		for _, host := range []string{"org", "example.org", "code.example.org", "ode.example.org", "net", "example.net", "golang.org"} {
			ok, err := r.HostSuffix(host)
			note(&got.Hosts, host, ok, err)
		}
		var err error
		if got.Later, err = r.Later("code.example.org/a/b"); err != nil {
			t.Fatal(err)
		}
		note(&got.Each, "", false, r.Each(func(path string, _ bool) error {
			got.Each = append(got.Each, path)
			return nil
		}))
		tools, err := r.Toolchains()
		if err != nil {
			t.Fatal(err)
		}
		got.Toolchains = len(tools)
		return got
	}
	all := show(s)
	if len(all.Modules) != 5 || len(all.Prefixes) != 6 || len(all.Hosts) != 6 || len(all.Later) != 2 || len(all.Each) != 5 || all.Toolchains != 1 {
		t.Fatalf("the index holds %+v", all)
	}
	if got := show(s.Only([]string{"code.example.org/a/b", "code.example.org/a/b/v2", "code.example.org/a/b/v3", "old.example.net/x/y"}, true)); !reflect.DeepEqual(got, all) {
		t.Errorf("watching all: %+v; want %+v", got, all)
	}
	if got := show(s.Only([]string{"golang.org/toolchain"}, false)); got.Toolchains != 1 {
		t.Errorf("watching the module of Go's releases shows %d", got.Toolchains)
	}
	want := shown{
		Modules: []string{"code.example.org/a/b", "code.example.org/a/b/v2"}, Later: []string{"code.example.org/a/b/v2"},
		Prefixes: []string{"code.example.org", "code.example.org/a", "code.example.org/a/b"},
		Hosts:    []string{"org", "example.org", "code.example.org"},
		Each:     []string{"code.example.org/a/b", "code.example.org/a/b/v2"},
	}
	if got := show(s.Only([]string{"code.example.org/a/b", "code.example.org/a/b/v2"}, false)); !reflect.DeepEqual(got, want) {
		t.Errorf("watching two: %+v; want %+v", got, want)
	}
}
