package proxy

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(15 * time.Second)
		ctx := t.Context()
		one, two := Backends{"a": "1"}, Backends{"a": "2"}
		type entered struct {
			r   *run
			err error
		}
		enter := func() chan entered {
			c := make(chan entered, 1)
			go func() {
				r, err := g.enter(ctx)
				c <- entered{r, err}
			}()
			synctest.Wait()
			return c
		}
		// Before there is a service, requests wait, and only so long.
		g.release()
		early := enter()
		if _, waiting, held := g.stats(); waiting != 1 || !held {
			t.Fatalf("%d wait, held %v", waiting, held)
		}
		time.Sleep(15 * time.Second)
		if e := <-early; !errors.Is(e.err, errTooLong) {
			t.Fatal(e.err)
		}
		early = enter()
		g.use(one)
		g.release()
		first := <-early
		if first.err != nil || first.r.backends["a"] != "1" {
			t.Fatalf("got %+v", first)
		}
		// Held: nothing new goes through; what is under way is waited for.
		g.hold()
		later := enter()
		drained := make(chan int, 1)
		go func() { drained <- g.drain(ctx) }()
		synctest.Wait()
		select {
		case <-drained:
			t.Fatal("drained while a request is under way")
		case <-later:
			t.Fatal("let through while held")
		default:
		}
		g.leave(first.r)
		if left := <-drained; left != 0 {
			t.Fatalf("%d are left", left)
		}
		g.use(two)
		g.release()
		second := <-later
		if second.r.backends["a"] != "2" {
			t.Fatalf("got %+v", second)
		}
		// Overlapping: the old run's requests go on, the new one takes what is new.
		g.use(one)
		third := <-enter()
		if third.r.backends["a"] != "1" {
			t.Fatalf("got %+v", third)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if left := g.drain(short); left != 1 {
			t.Fatalf("%d are left of the former run, want 1", left)
		}
		g.leave(second.r)
		if left := g.drain(ctx); left != 0 {
			t.Fatalf("%d are left of former runs, the one in force doesn't count", left)
		}
		if busy, _, _ := g.stats(); busy != 1 {
			t.Fatalf("%d are under way", busy)
		}
		g.leave(third.r)

		// A client that goes away doesn't wait on.
		g.hold()
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := g.enter(gone); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		// The queue has an end.
		for range maxWaiting {
			go g.enter(ctx)
		}
		synctest.Wait()
		if e := <-enter(); !errors.Is(e.err, errFull) {
			t.Fatal(e.err)
		}
		g.release()
		synctest.Wait()
		if busy, waiting, held := g.stats(); busy != maxWaiting || waiting != 0 || held {
			t.Fatalf("after the release: %d, %d, %v", busy, waiting, held)
		}
	})
}

func TestCheck(t *testing.T) {
	good := Listen{"a", "127.0.0.1:0", HTTP}
	for name, list := range map[string][]Listen{
		"none":       nil,
		"no name":    {{"", "127.0.0.1:0", HTTP}},
		"twice":      {good, good},
		"mode":       {{"a", "127.0.0.1:0", "udp"}},
		"no address": {{"a", "127.0.0.1", TCP}},
	} {
		if Check(list) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := Check([]Listen{good, {"b", ":443", TCP}}); err != nil {
		t.Error(err)
	}
	b, err := Reserve([]Listen{good, {"b", ":443", TCP}})
	if err != nil || len(b) != 2 || b["a"] == b["b"] {
		t.Errorf("reserved %v, %v", b, err)
	}
	for name, addr := range b {
		a, err := netip.ParseAddrPort(addr)
		if err != nil || !a.Addr().IsLoopback() || runtime.GOOS == "linux" && clientPorts() > lowestPort+1000 && int(a.Port()) >= clientPorts() {
			t.Errorf("%s is %s, %v; clients have ports from %d on", name, addr, err, clientPorts())
		}
	}
	if s, err := free(lowestPort); err != nil { // clients have them all
		t.Error(err)
	} else {
		s.Close()
	}
}
