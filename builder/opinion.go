package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/httpget"
)

// Builders that name each other as verifiers can't both wait for the other's
// log. So a builder says what it built before it logs it, in a note signed with
// the key of its log: GET <spec>opinion answers
//
//	upkeep build opinion
//	<record>
//	logged
//
// the third line only when its log has the record. An opinion waits for a build
// and for nothing else, so builders may ask each other in any circle. A record
// follows; one that says otherwise is an alarm.

const (
	opinionTitle  = "upkeep build opinion"
	opinionLogged = "logged"
	opinionHeader = "X-Upkeep-Opinion" // on every answer: other servers don't know the address

	maxOpinion = 16 << 10
)

func formatOpinion(rec spec.Record, logged bool) string {
	text := opinionTitle + "\n" + string(rec.Line())
	if logged {
		text += opinionLogged + "\n"
	}
	return text
}

// parseOpinion reads a signed opinion.
func parseOpinion(msg []byte, key note.Verifier) (rec spec.Record, logged bool, err error) {
	n, err := note.Open(msg, note.VerifierList(key))
	if err != nil {
		return rec, false, fmt.Errorf("its opinion is not signed with its key: %w", err)
	}
	title, rest, _ := strings.Cut(n.Text, "\n")
	line, rest, _ := strings.Cut(rest, "\n")
	if title != opinionTitle || rest != "" && rest != opinionLogged+"\n" {
		return rec, false, errors.New("it signed something that is no opinion")
	}
	rec, err = spec.ParseRecord([]byte(line + "\n"))
	return rec, rest != "", err
}

// Opinion builds a spec, unless that was done, and returns its record whether
// it is logged or still waits for verifiers.
func (s *Service) Opinion(ctx context.Context, sp spec.Spec, client string) (rec spec.Record, logged bool, err error) {
	res, err := s.Result(sp)
	if err != nil {
		return rec, false, err
	}
	if res.State != StateSuccess && !known(res) {
		defer s.watchers.Add(-1)
		if s.watchers.Add(1) > maxWatchers {
			return rec, false, errQueueFull
		}
		j, err := s.enqueue(ctx, sp, client)
		if err != nil {
			return rec, false, err
		}
		defer s.queue.leave(j)
		for {
			made, done, change := s.queue.made(j)
			if made != nil {
				return *made, false, nil
			}
			if done {
				res = j.res
				break
			}
			select {
			case <-change:
			case <-ctx.Done():
				return rec, false, context.Cause(ctx)
			}
		}
	}
	if res.State != StateSuccess {
		return rec, false, &Failure{Permanent: res.State == StateFailed, NotFound: res.NotFound, Text: res.Error, Status: res.status}
	}
	return spec.Record{Spec: sp, Size: res.Size, Sum: res.Sum}, true, nil
}

func (s *Service) serveOpinion(w http.ResponseWriter, r *http.Request, sp spec.Spec) {
	h := w.Header()
	h.Set(opinionHeader, "1")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		return
	}
	rec, logged, err := s.Opinion(r.Context(), sp, ClientOf(r))
	s.patience(w, 0)
	var msg []byte
	if err == nil {
		msg, err = s.log.Sign(formatOpinion(rec, logged))
	}
	if err != nil {
		retryAfter(h, err)
		status, text := s.statusOf(err)
		http.Error(w, text, status)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(msg) // an error is the other side's going away
}

// errNoOpinions is the answer of a server that gives none.
var errNoOpinions = errors.New("the server does not know opinions")

// opinion asks a verifier what it built. Whoever keeps it from answering makes
// us ask its log instead, which proves more.
func (v *verifier) opinion(ctx context.Context, sp spec.Spec) (rec spec.Record, logged bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.base+"/"+sp.String()+"opinion", nil)
	if err != nil {
		return rec, false, err
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return rec, false, err
	}
	defer resp.Body.Close()
	if resp.Header.Get(opinionHeader) == "" {
		return rec, false, errNoOpinions
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxOpinion))
	if err != nil {
		return rec, false, err
	}
	if resp.StatusCode != http.StatusOK {
		return rec, false, fmt.Errorf("it answers %d: %s", resp.StatusCode, httpget.Line(string(bytes.TrimSpace(data)), 500))
	}
	if rec, logged, err = parseOpinion(data, v.key); err == nil && rec.Spec != sp {
		err = fmt.Errorf("its opinion is of %s instead of %s", rec.Spec, sp)
	}
	return rec, logged, err
}
