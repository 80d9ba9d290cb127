package servicepage

import (
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/internal/sockdir"
	"example.org/upkeep/supervisor"
)

// verbs are all verbs that the engine has, from its source.
func verbs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../supervisor/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(v.Names[0].Name, "Verb") || len(v.Values) != 1 {
				return true
			}
			lit, ok := v.Values[0].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is no literal", v.Names[0])
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, text)
			return true
		})
	}
	slices.Sort(list)
	return list
}

// The page's API, the control socket and the docs have the same verbs, and an
// action arrives at the engine the same by all ways.
func TestVerbsAreTheSame(t *testing.T) {
	all := verbs(t)
	if len(all) < 14 {
		t.Fatalf("only %d verbs: %v", len(all), all)
	}
	if page := slices.Sorted(maps.Keys(knownVerbs)); !slices.Equal(page, all) {
		t.Errorf("the pages know %v, the engine %v", page, all)
	}
	docs, err := os.ReadFile("../../docs/web.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^Verbs: (.*)$`).FindSubmatch(docs)
	if m == nil {
		t.Fatal("docs/web.md lists no verbs")
	}
	var said []string
	for _, v := range regexp.MustCompile("`([a-z]+)`").FindAllSubmatch(m[1], -1) {
		said = append(said, string(v[1]))
	}
	slices.Sort(said)
	if !slices.Equal(said, all) {
		t.Errorf("docs/web.md says %v, the engine has %v", said, all)
	}

	bySocket, byAPI, byForm := newFake(), newFake(), newFake()
	socket := filepath.Join(sockdir.New(t), "c.sock")
	l, err := supervisor.ListenControl(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- supervisor.ServeControl(ctx, l, bySocket, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-served }()
	client := supervisor.NewClient(socket)
	api, form := New(Config{}, byAPI), New(Config{}, byForm)
	at := time.Date(2030, 7, 1, 4, 30, 0, 0, time.UTC)
	for _, verb := range all {
		for _, self := range []bool{false, true} {
			a := supervisor.Action{Verb: verb, Version: "v1.4.2", GoVersion: "go1.26.8", By: "web", Reason: "why", Self: self}
			if verb == supervisor.VerbSchedule {
				a.At = at
			}
			if err := client.Do(t.Context(), a); err != nil {
				t.Errorf("%s by the control socket: %v", verb, err)
			}
			data, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("POST", "http://localhost/api/v1/actions", strings.NewReader(string(data)))
			r.Header.Set("Content-Type", "application/json")
			if w := send(t, api, r); w.Code != 202 {
				t.Errorf("%s by the API: status %d: %s", verb, w.Code, w.Body)
			}
			fields := url.Values{"verb": {verb}, "version": {a.Version}, "go_version": {a.GoVersion}, "reason": {"why"}, "confirmed": {"yes"}}
			if self {
				fields.Set("self", "true")
			}
			if !a.At.IsZero() {
				fields.Set("at", a.At.Format(time.RFC3339))
			}
			if w := send(t, form, post("/action", fields)); w.Code != 303 {
				t.Errorf("%s by the form: status %d", verb, w.Code)
			}
		}
	}
	for name, f := range map[string]*fake{"API": byAPI, "form": byForm} {
		got, want := f.done(), bySocket.done()
		if len(got) != len(want) || len(want) != 2*len(all) {
			t.Fatalf("%s: %d actions, by the socket %d", name, len(got), len(want))
		}
		for i := range want {
			want[i].By = got[i].By // the socket says which user of the machine it was
			if got[i] != want[i] {
				t.Errorf("%s: %+v, by the socket %+v", name, got[i], want[i])
			}
		}
	}
}

func TestScheduledAt(t *testing.T) {
	want := time.Date(2030, 7, 1, 2, 30, 0, 0, time.UTC)
	for _, tt := range []struct {
		at, local string
		ok        bool
	}{
		{"2030-07-01T02:30:00.000Z", "2030-07-01T04:30", true}, // the script's instant counts
		{"2030-07-01T04:30:00+02:00", "", true},
		{"", "2030-07-01T02:30", true}, {"", "2030-07-01T02:30:00", true}, {"", "2030-07-01 02:30", true},
		{"tomorrow", "2030-07-01T02:30", false}, {"", "", false}, {"", "2030-13-01T02:30", false},
	} {
		got, err := scheduledAt(tt.at, tt.local)
		if (err == nil) != tt.ok || tt.ok && !got.Equal(want) {
			t.Errorf("scheduledAt(%q, %q) = %v, %v", tt.at, tt.local, got, err)
		}
	}
	h := New(Config{}, newFake())
	for body, want := range map[string]int{`{"verb":"schedule","version":"v1.4.2"}`: 400, `{"verb":"schedule","at":"soon"}`: 400} {
		r := httptest.NewRequest("POST", "http://localhost/api/v1/actions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if w := send(t, h, r); w.Code != want {
			t.Errorf("%s: status %d, want %d", body, w.Code, want)
		}
	}
	if w := get(t, h, "/schedule"); w.Code != 400 {
		t.Errorf("without a version: status %d", w.Code)
	}
}
