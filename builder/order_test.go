package builder

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"example.org/upkeep/builder/spec"
)

// Who has to go: of the client with most, the first.
func TestCrowded(t *testing.T) {
	for _, tc := range []struct {
		jobs []waiting
		want int
	}{
		{[]waiting{{client: "a", seq: 1}}, 0},
		{[]waiting{{client: "a", seq: 3}, {client: "b", seq: 2}, {client: "c", seq: 1}}, 2},
		{[]waiting{{client: "a", seq: 1}, {client: "b", seq: 4}, {client: "b", seq: 3}, {client: "c", seq: 2}}, 2},
		{[]waiting{{client: "a", seq: 2}, {client: "b", seq: 1}, {client: "a", seq: 4}, {client: "b", seq: 3}}, 1},
	} {
		if got := crowded(tc.jobs); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.jobs, got, tc.want)
		}
	}
}

func testSpec(i int) spec.Spec {
	return spec.Spec{Module: "example.org/hello", Version: fmt.Sprintf("v1.0.%d", i), GOOS: "linux", GOARCH: "amd64", GoVersion: "go1.26.8"}
}

// Jobs that wait for verifiers take no place of those that are to be built; of
// them there are as many at most.
func TestQueuePlaces(t *testing.T) {
	q, err := openQueue(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	causes := make([]error, 4)
	for i := range causes {
		j, err := q.add(testSpec(i), "c")
		if err != nil {
			t.Fatalf("job %d: %v", i, err)
		}
		if got, _ := q.next(func(bool) bool { return true }); got != j {
			t.Fatalf("job %d: next is %+v", i, got)
		}
		q.setCancel(j, func(err error) { causes[i] = err })
		q.built(j, spec.Record{Spec: j.spec})
	}
	if !errors.Is(causes[0], errCrowded) || !errors.Is(causes[1], errCrowded) || causes[2] != nil || causes[3] != nil {
		t.Errorf("ended with %v", causes)
	}
	for i := 4; i < 6; i++ {
		if _, err := q.add(testSpec(i), "c"); err != nil {
			t.Errorf("job %d: %v", i, err)
		}
	}
	if _, err := q.add(testSpec(6), "c"); !errors.Is(err, errQueueFull) {
		t.Errorf("one more: %v", err)
	}
}

// What is built ahead takes nobody's place.
func TestAddAhead(t *testing.T) {
	q, err := openQueue(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	j, err := q.add(testSpec(0), "c")
	if err != nil {
		t.Fatal(err)
	}
	if q.addAhead(testSpec(0)) || q.addAhead(testSpec(1)) || q.jobs[testSpec(0)] != j || len(q.jobs) != 1 {
		t.Errorf("added beside another: %v", q.jobs)
	}
	if err := q.finish(j, Result{Spec: j.spec, State: StateFailed}, false); err != nil {
		t.Fatal(err)
	}
	if !q.addAhead(testSpec(1)) || len(q.jobs) != 1 {
		t.Errorf("not added: %v", q.jobs)
	}
}

// Whose turn was last is forgotten of those who have nothing to wait for.
func TestForgetTurns(t *testing.T) {
	q, err := openQueue(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.add(testSpec(0), "here"); err != nil {
		t.Fatal(err)
	}
	for i := range maxClients {
		q.lastTurn[fmt.Sprint(i)] = int64(i)
	}
	if j, _ := q.next(func(bool) bool { return true }); j == nil || len(q.lastTurn) != 1 || q.lastTurn["here"] == 0 {
		t.Errorf("%d turns", len(q.lastTurn))
	}
}

// A build that is asked for again while it is being cancelled goes on.
func TestWaitedForAgain(t *testing.T) {
	q, err := openQueue(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	j, err := q.add(testSpec(0), "c")
	if err != nil {
		t.Fatal(err)
	}
	var cause error
	q.setCancel(j, func(err error) { cause = err })
	q.next(func(bool) bool { return true })
	q.leave(j)
	if q.waitedFor(j) {
		t.Error("nobody waits")
	}
	if queued := q.abandoned(time.Now().Add(time.Hour)); len(queued) != 0 || !errors.Is(cause, errAbandoned) {
		t.Errorf("%v, cause %v", queued, cause)
	}
	if q.join(j.spec) != j || !q.waitedFor(j) {
		t.Error("somebody waits")
	}
}
