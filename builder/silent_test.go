package builder

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/config"
)

// A verifier that takes requests and never answers keeps nobody from building:
// there are more such builds than places, and each new one is built.
func TestVerifierSilent(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // connections are taken by the kernel, and nobody reads
	ts := start(t, e, testOptions{change: func(c *Config) {
		c.Verifiers, c.Require, c.MaxQueue = []Verifier{{Key: newKey(t, "silent.test"), URL: "http://" + ln.Addr().String() + "/tlog"}}, 1, 2
		c.VerifyTimeout = config.Duration(24 * time.Hour)
		c.Drain = 0
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var mu sync.Mutex
	ended := map[int]Result{}
	specs := []string{"example.org/hello@v1.0.0/", "example.org/hello@v1.0.1/", "example.org/hello@v1.0.0/cmd/other/", "example.org/hello@v1.0.1/cmd/other/"}
	for i, text := range specs {
		sp, err := spec.Parse(text + target() + "/")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			res, err := ts.Watch(ctx, sp, "192.0.2.0/24", nil)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				ended[i] = res
			}
		})
		until(t, "its binary is there", func() bool {
			ts.queue.mu.Lock()
			defer ts.queue.mu.Unlock()
			j := ts.queue.jobs[sp]
			return j != nil && j.made != nil
		})
	}
	until(t, "the oldest give way", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(ended) >= len(specs)-2
	})
	mu.Lock()
	defer mu.Unlock()
	for i := range 2 {
		if res := ended[i]; res.State != StateTempFailed || res.Error != errCrowded.Text {
			t.Errorf("%s: %+v", specs[i], res)
		}
	}
	if building, queued := ts.queue.list(); len(building) != 2 || len(queued) != 0 || len(ended) != 2 {
		t.Errorf("building %v, queued %v, ended %v", building, queued, ended)
	}
}

// A verifier that has another result, or none, after enough others agreed is
// seen as well; one that never answers does not keep the others from being heard.
func TestVerifiersBehind(t *testing.T) {
	e := newEcosystem(t)
	publishHello(e)
	good := start(t, e, testOptions{})
	text := "example.org/hello@v1.0.0/" + target() + "/"
	truth, err := good.lookup(t, text)
	if err != nil {
		t.Fatal(err)
	}
	lie := truth
	lie.Sum = "0AAECAwQFBgcICQoLDA0ODxAREhM"
	liar := newForeignBuilder(t, lie)
	if err := liar.build(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	// The liar says nothing until the record is logged.
	logged := make(chan struct{})
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-logged:
			http.StripPrefix("/tlog", liar.log.Handler(nil)).ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	defer door.Close()
	silentKey := newKey(t, "silent.test")
	ts := start(t, e, testOptions{change: func(c *Config) {
		c.Verifiers = []Verifier{{Key: silentKey, URL: "http://" + silent.Addr().String() + "/tlog"},
			{Key: liar.key, URL: door.URL + "/tlog"}, {Key: good.log.VerifierKey(), URL: good.url + "/tlog"}}
		c.Require, c.MaxQueue = 1, 1
		c.VerifyTimeout = config.Duration(24 * time.Hour)
	}})
	if _, err := ts.lookup(t, text); err != nil {
		t.Fatal(err)
	}
	path := "/" + text + truth.Sum + "/record"
	before, _ := ts.get(t, "GET", path)
	if cc := before.Header.Get("Cache-Control"); strings.Contains(cc, "immutable") || before.Header.Get("ETag") == "" {
		t.Errorf("a record with agreements to come: Cache-Control %q, ETag %q", cc, before.Header.Get("ETag"))
	}
	close(logged)
	until(t, "an alarm", func() bool { return len(ts.Status(t.Context()).Alarms) > 0 })
	until(t, "only the silent one is waited for", func() bool {
		res, err := ts.Result(truth.Spec)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(res.Pending, []string{silentKey})
	})
	// That goes on and takes all the places there are; others are still heard.
	if err := ts.results.forget(truth.Spec); err != nil {
		t.Fatal(err)
	}
	ts.confirmLater(t.Context(), built{record: truth}, Result{Spec: truth.Spec, State: StateSuccess, Sum: truth.Sum, Pending: []string{silentKey, good.log.VerifierKey()}})
	until(t, "the good one is heard", func() bool {
		res, err := ts.Result(truth.Spec)
		return err == nil && slices.Equal(res.Pending, []string{silentKey}) && len(res.Agreed) == 1 && res.Agreed[0].Name == "build.test"
	})
	silent.Close()
}
