package builder

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/tlog"
)

// readEvents returns the events of a stream until it ends.
func (ts *testService) readEvents(t *testing.T, sp string) (names []string, events []Event) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", ts.url+"/"+sp+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	var name string
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if n, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
			name = n
		}
		if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
			var e Event
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatal(err)
			}
			names, events = append(names, name), append(events, e)
		}
	}
	return names, events
}

func TestHTTP(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	e.publish("example.org/lib", "v1.0.0", "-- lib.go --\npackage lib\n")
	ts := start(t, e, testOptions{})
	sp := "example.org/hello@v1.0.1/" + target() + "/"
	s, err := spec.Parse(sp)
	if err != nil {
		t.Fatal(err)
	}

	// A page starts nothing.
	for _, suffix := range []string{"", "log", "record", "dl", s.FileName()} {
		ts.get(t, "GET", "/"+sp+suffix)
	}
	// Nor does a HEAD, of anything.
	for path, status := range map[string]int{"/" + sp + "opinion": 200, "/" + sp + "events": 200, "/tlog/lookup/" + sp: 404} {
		if resp, _ := ts.get(t, "HEAD", path); resp.StatusCode != status {
			t.Errorf("HEAD %s: %d", path, resp.StatusCode)
		}
	}
	if res, err := ts.Result(s); err != nil || res.State != StateNone {
		t.Fatalf("after GET: %+v, %v", res, err)
	}

	names, events := ts.readEvents(t, sp)
	if len(events) < 2 || events[0].Kind != "QueuePosition" || events[len(events)-1].Kind != "Success" {
		t.Fatalf("events %+v", events)
	}
	seenBuilding, seenOutput := false, false
	for i, ev := range events {
		seenBuilding = seenBuilding || ev.Kind == "QueuePosition" && *ev.QueuePosition == 0
		seenOutput = seenOutput || ev.Kind == "Output" && ev.Line == "Compiling."
		if want := map[bool]string{true: "output", false: "update"}[ev.Kind == "Output"]; names[i] != want {
			t.Errorf("event %+v has the type %q", ev, names[i])
		}
	}
	if !seenBuilding || !seenOutput {
		t.Errorf("building %v, output %v: %+v", seenBuilding, seenOutput, events)
	}
	sum := events[len(events)-1].Sum
	if _, again := ts.readEvents(t, sp); len(again) != 1 || again[0].Kind != "Success" || again[0].Sum != sum {
		t.Errorf("events of a result: %+v", again)
	}

	result := "/" + sp + sum + "/"
	want := e.plainInstall("example.org/hello@v1.0.1", s.GOOS, s.GOARCH, "-buildid=")
	name := s.FileName()
	for _, tc := range []struct {
		method, path string
		header       []string
		status       int
		location     string
	}{
		{"GET", "/" + sp, nil, 302, result},
		{"GET", "/" + sp + "record", nil, 302, result + "record"},
		{"GET", result, nil, 200, ""},
		{"GET", result + "dl", nil, 307, result + name},
		{"GET", strings.TrimSuffix(result, "/"), nil, 301, result},
		{"GET", "/" + strings.TrimSuffix(sp, "/"), nil, 301, "/" + sp},
		{"GET", "/" + sp + "0AAECAwQFBgcICQoLDA0ODxAREhM/", nil, 404, ""},
		{"GET", result + "other", nil, 404, ""},
		{"GET", result + name + ".zip", nil, 404, ""},
		{"POST", result, nil, 405, ""},
		{"GET", "/" + sp + "retry", nil, 405, ""},
		{"POST", "/" + sp + "retry", nil, 303, "/" + sp},
		{"GET", "/example.org/hello@latest/" + target() + "/record", nil, 302, "/" + sp + "record"},
		{"GET", "/example.org/hello@v1.0.1/" + strings.Replace(target(), goVersion, "latest", 1) + "/", nil, 302, "/" + sp},
		{"GET", "/tlog/lookup/example.org/hello@latest/" + target() + "/", nil, 302, "/tlog/lookup/" + sp},
		{"GET", "/example.org/hello@v1.0.1", []string{"User-Agent", "X11; Linux x86_64"}, 302, "/example.org/hello@v1.0.1/linux-amd64-" + goVersion + "/"},
		{"GET", "/example.org/hello", nil, 200, ""},
		{"GET", "/example.org/lib", nil, 404, ""},
		{"GET", "/example.org/unknown", nil, 404, ""},
		{"GET", "/example.org/unknown@latest/" + target() + "/", nil, 404, ""},
		{"GET", "/../../etc/passwd", nil, 404, ""},
		{"GET", "/", nil, 200, ""},
		{"GET", "/robots.txt", nil, 200, ""},
		{"GET", "/" + strings.Repeat("a", 5000), nil, 414, ""},
		{"GET", result + name, []string{"Range", "bytes=10-19"}, 206, ""},
		{"GET", result + name + ".gz", []string{"Range", "bytes=10-19"}, 206, ""},
	} {
		resp, body := ts.get(t, tc.method, tc.path, tc.header...)
		if resp.StatusCode != tc.status || resp.Header.Get("Location") != tc.location {
			t.Errorf("%s %s: status %d, location %q; want %d, %q: %.200s", tc.method, tc.path, resp.StatusCode, resp.Header.Get("Location"), tc.status, tc.location, body)
		}
		if tc.status == 206 && len(body) != 10 {
			t.Errorf("%s: %d bytes", tc.path, len(body))
		}
		if strings.Contains(string(body), ts.dir) || strings.Contains(string(body), e.url) {
			t.Errorf("%s: the answer shows a path or the proxy: %s", tc.path, body)
		}
	}

	plainResp, body := ts.get(t, "GET", result+name, "Accept-Encoding", "identity")
	if !bytes.Equal(body, want) || plainResp.Header.Get("ETag") == "" || !strings.Contains(plainResp.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("plain: %d bytes instead of %d, headers %v", len(body), len(want), plainResp.Header)
	}
	gz, body := ts.get(t, "GET", result+name+".gz")
	if r, err := gzip.NewReader(bytes.NewReader(body)); err != nil {
		t.Error(err)
	} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) || gz.Header.Get("Content-Encoding") != "" {
		t.Errorf(".gz: %d bytes, %v, headers %v", len(got), err, gz.Header)
	}
	for coding, decode := range map[string]func([]byte) (io.Reader, error){
		"gzip": func(b []byte) (io.Reader, error) { return gzip.NewReader(bytes.NewReader(b)) },
		"zstd": func(b []byte) (io.Reader, error) { return zstd.NewReader(bytes.NewReader(b)) },
	} {
		resp, body := ts.get(t, "GET", result+name, "Accept-Encoding", coding)
		r, err := decode(body)
		if err != nil {
			t.Errorf("%s: %v", coding, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) || resp.Header.Get("Content-Encoding") != coding || resp.Header.Get("ETag") == plainResp.Header.Get("ETag") || resp.ContentLength != int64(len(body)) {
			t.Errorf("%s: %d bytes, %v, length %d, headers %v", coding, len(got), err, resp.ContentLength, resp.Header)
		}
		if resp, _ := ts.get(t, "GET", result+name, "Accept-Encoding", coding, "If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != 304 {
			t.Errorf("%s: status %d for a known ETag", coding, resp.StatusCode)
		}
	}
	resp, body := ts.get(t, "GET", result+"record")
	if rec, err := spec.ParseRecord(body); err != nil || rec.Sum != sum || rec.Size != int64(len(want)) || resp.Header.Get("X-Upkeep-Sha256") == "" {
		t.Errorf("record %q: %v", body, err)
	}
	if cc := resp.Header.Get("Cache-Control"); !strings.Contains(cc, "immutable") {
		t.Errorf("a record that nobody else is asked about: Cache-Control %q", cc)
	}
	if resp, _ := ts.get(t, "GET", result+"record", "If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != 304 {
		t.Errorf("record: status %d for a known ETag", resp.StatusCode)
	}
	if _, body = ts.get(t, "GET", result+"log"); !strings.Contains(string(body), "Compiling.\n") {
		t.Errorf("log %q", body)
	}
	if _, body = ts.get(t, "GET", "/example.org/hello"); !slices.Equal(strings.Split(strings.TrimSpace(string(body)), "\n"), []string{
		"example.org/hello@v1.0.1/linux-amd64-" + goVersion + "/", "example.org/hello@v1.0.1/cmd/other/linux-amd64-" + goVersion + "/"}) {
		t.Errorf("main packages: %q", body)
	}
}

// Everything that the service keeps is there after a restart, and a result
// whose details were lost is known from the log.
func TestRestart(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{})
	good, bad := "example.org/hello@v1.0.0/"+target()+"/", "example.org/hello@v1.0.0/lib/"+target()+"/"
	rec, err := ts.lookup(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ts.lookup(t, bad); err == nil {
		t.Fatal("a library was built")
	}
	ts.stop()
	// Without the proxy what is known is answered all the same.
	e.setBroken(func(string) int { return 500 })
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
	if again, err := ts.lookup(t, good); err != nil || again != rec {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
	if resp, body := ts.get(t, "GET", "/tlog/lookup/"+bad); resp.StatusCode != 404 || !strings.Contains(string(body), "not a command") {
		t.Errorf("failure after a restart: %d %s", resp.StatusCode, body)
	}
	if st := ts.Status(t.Context()); len(st.Recent) == 0 || st.Recent[0].Sum != rec.Sum || st.LogSize != 1 {
		t.Errorf("status after a restart: %+v", st)
	}
	// A kept failure that the disk has damaged is found anew, and says nothing of files.
	badSpec, err := spec.Parse(bad)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ts.results.file(badSpec, ".json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if resp, body := ts.get(t, "GET", "/tlog/lookup/"+bad); resp.StatusCode != 500 || strings.Contains(string(body), ts.dir) || !strings.Contains(string(body), "try again") {
		t.Errorf("damaged failure with a broken proxy: %d %s", resp.StatusCode, body)
	}
	if resp, _ := ts.get(t, "POST", "/"+bad+"retry"); resp.StatusCode != 303 {
		t.Errorf("retry: %d", resp.StatusCode)
	}
	if resp, body := ts.get(t, "GET", "/tlog/lookup/"+bad); resp.StatusCode != 500 {
		t.Errorf("after a retry with a broken proxy: %d %s", resp.StatusCode, body)
	}
	ts.stop()
	e.setBroken(nil)
	if err := removeAll(ts.results.dir); err != nil {
		t.Fatal(err)
	}
	ts = start(t, e, testOptions{dir: ts.dir, key: ts.key})
	// The binary's hash is not known any more: it is built again, to the same sum.
	resp, body := ts.get(t, "GET", "/"+good+rec.Sum+"/"+rec.FileName())
	d := spec.NewDigest()
	d.Write(body)
	if resp.StatusCode != 200 || d.Sum() != rec.Sum {
		t.Errorf("built again: %d, %d bytes, sum %s instead of %s", resp.StatusCode, len(body), d.Sum(), rec.Sum)
	}
}

// A binary that was removed to save space is built again on demand.
func TestQuota(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Quota = 1 }})
	var recs []spec.Record
	for _, v := range []string{"v1.0.0", "v1.0.1"} {
		rec, err := ts.lookup(t, "example.org/hello@"+v+"/"+target()+"/")
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	res, err := ts.Result(recs[0].Spec)
	if err != nil || res.Removed {
		t.Fatalf("removed at once: %+v, %v", res, err)
	}
	// Both are larger than the quota; an hour later both are out of use.
	n, err := ts.blobs.trim(1<<20, res.Started.Add(3600e9))
	if err != nil || n != 2 {
		t.Errorf("removed %d, %v", n, err)
	}
	if res, err = ts.Result(recs[0].Spec); err != nil || !res.Removed {
		t.Fatalf("not removed: %+v, %v", res, err)
	}
	if resp, _ := ts.get(t, "HEAD", res.URL()+recs[0].FileName()); resp.StatusCode != 200 || ts.blobs.has(res.SHA256) {
		t.Errorf("HEAD: %d, built again: %v", resp.StatusCode, ts.blobs.has(res.SHA256))
	}
	resp, body := ts.get(t, "GET", res.URL()+recs[0].FileName(), "Accept-Encoding", "identity")
	d := spec.NewDigest()
	d.Write(body)
	if resp.StatusCode != 200 || d.Sum() != recs[0].Sum {
		t.Errorf("built again: %d, sum %s", resp.StatusCode, d.Sum())
	}
	if st := ts.Status(t.Context()); st.LogSize != 2 || len(st.Alarms) != 0 {
		t.Errorf("the log has %d records, alarms %v", st.LogSize, st.Alarms)
	}
}

// A binary that is built again and does not have the sum that is in the log is
// an alarm, and nobody gets it.
func TestBuiltAgainDiffers(t *testing.T) {
	e, rec := hello(t)
	rec.Sum = "0AAECAwQFBgcICQoLDA0ODxAREhM"
	ts := start(t, e, testOptions{change: func(c *Config) { c.Tries = 1 }})
	if _, err := ts.log.Append(t.Context(), tlog.Entry{Key: rec.Spec.String(), Text: rec.Line()}); err != nil {
		t.Fatal(err)
	}
	resp, body := ts.get(t, "GET", "/"+rec.Spec.String()+rec.Sum+"/"+rec.FileName(), "Accept-Encoding", "identity")
	if resp.StatusCode != 500 || !strings.Contains(string(body), "gave another sum than the log records") {
		t.Errorf("%d %.200s", resp.StatusCode, body)
	}
	if st := ts.Status(t.Context()); st.LogSize != 1 || len(st.Alarms) != 1 || st.Alarms[0].Kind != "sum_differs" {
		t.Errorf("%d records, alarms %+v", st.LogSize, st.Alarms)
	}
	if res, err := ts.Result(rec.Spec); err != nil || res.State != StateSuccess || res.Sum != rec.Sum || !res.Removed {
		t.Errorf("%+v, %v", res, err)
	}
}

// Requests that are refused say why and start nothing.
func TestRefused(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ts := start(t, e, testOptions{change: func(c *Config) { c.Deny = []string{"example.org/hello"} }})
	resp, body := ts.get(t, "GET", "/tlog/lookup/example.org/hello@v1.0.0/"+target()+"/")
	if resp.StatusCode != 404 || !strings.Contains(string(body), "This server does not build example.org/hello.") {
		t.Errorf("denied: %d %s", resp.StatusCode, body)
	}
	ts.stop()
	ts = start(t, e, testOptions{change: func(c *Config) { c.Limit.Recent, c.Limit.Old = 1, 1 }})
	var got []int
	for i := range 3 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("/tlog/lookup/example.org/none%d@v1.0.0/%s/", i, target()), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "192.0.2.1:1000"
		w := &recorder{header: http.Header{}}
		ts.ServeHTTP(w, r)
		got = append(got, w.status)
	}
	if !slices.Equal(got, []int{404, 429, 429}) {
		t.Errorf("limited: %v", got)
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
