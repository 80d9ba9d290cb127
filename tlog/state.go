package tlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/httpget"
)

// maxEvidence bounds the files of each kind that a hostile log, or a server that
// lags behind, can make us write.
const maxEvidence = 100

// Kinds of evidence. Two tree heads that a server which merely lags behind can show
// must not take the place of those that prove a fork.
const (
	evidenceFork   = "fork"
	evidenceShrunk = "shrunk"
)

// A stateDir keeps the newest accepted tree head of one log on disk.
type stateDir struct {
	dir      string
	name     string // first part of the file names
	verifier note.Verifier
	log      *slog.Logger
	metrics  *clientMetrics
}

func newStateDir(dir string, v note.Verifier, log *slog.Logger, m *clientMetrics) (*stateDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the state folder of log %s: %w", v.Name(), err)
	}
	return &stateDir{dir, fileName(v.Name()) + fmt.Sprintf("-%08x", v.KeyHash()), v, log, m}, nil
}

// fileName makes a log's name fit for a file name everywhere.
func fileName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

func (s *stateDir) file(suffix string) string { return filepath.Join(s.dir, s.name+suffix) }

// A kept is a tree head with those accepted before it, newest first: a server
// that falls back to one of them is known to be stale without any tile.
type kept struct {
	TreeHead
	before []ct.Tree
}

const (
	keptPrefix = "upkeep tree head v1\naccepted "
	maxBefore  = 256
	maxState   = maxNote + 100*(maxBefore+2)
)

func formatKept(k kept) []byte {
	b := fmt.Appendf(nil, "%s%s\n", keptPrefix, k.Accepted.UTC().Format(time.RFC3339Nano))
	for _, t := range k.before {
		b = fmt.Appendf(b, "before %d %s\n", t.N, t.Hash)
	}
	return append(append(b, '\n'), k.Note...)
}

func parseKept(data []byte, v note.Verifier) (k kept, err error) {
	rest, ok := bytes.CutPrefix(data, []byte(keptPrefix))
	lines, msg, ok2 := bytes.Cut(rest, []byte("\n\n"))
	if !ok || !ok2 {
		return kept{}, errors.New("is not a kept tree head")
	}
	if k.TreeHead, err = openHead(msg, v); err != nil {
		return kept{}, err
	}
	when, before, _ := strings.Cut(string(lines), "\n")
	if k.Accepted, err = time.Parse(time.RFC3339Nano, when); err != nil {
		return kept{}, fmt.Errorf("has a malformed time: %w", err)
	}
	for line := range strings.Lines(before) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "before" || len(k.before) >= maxBefore {
			return kept{}, errors.New("has a malformed list of earlier tree heads")
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return kept{}, errors.New("has a malformed list of earlier tree heads")
		}
		h, err := ct.ParseHash(f[2])
		if err != nil {
			return kept{}, err
		}
		k.before = append(k.before, ct.Tree{N: size, Hash: h})
	}
	return k, nil
}

// load returns the kept tree head; ok is false when there is none. A damaged
// file is as good as none: its previous copy is older, and an older head only
// makes the next consistency proof longer.
func (s *stateDir) load() (k kept, ok bool, err error) {
	damaged := false
	for _, suffix := range []string{".head", ".head.previous"} {
		data, err := readFile(s.file(suffix), maxState)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, httpget.ErrTooLarge) {
			return kept{}, false, fmt.Errorf("reading the kept tree head of log %s: %w", s.verifier.Name(), err)
		}
		if err == nil {
			k, err = parseKept(data, s.verifier)
		}
		if err == nil {
			return k, true, nil
		}
		damaged = true
		s.metrics.recover()
		s.log.Error("kept tree head is damaged; using the copy before it, or the log's own if there is none", "file", s.file(suffix), "err", err)
	}
	if damaged {
		s.log.Error("no kept tree head could be read: the next one is taken on without a proof that it extends what was accepted before", "log", s.verifier.Name(), "dir", s.dir)
	}
	return kept{}, false, nil
}

// errChanged says that another process replaced the kept head meanwhile.
var errChanged = errors.New("kept tree head changed")

// replace keeps head instead of old, unless old (nil: none) is no longer what is kept.
func (s *stateDir) replace(old *kept, head TreeHead) error {
	lock, err := durable.LockWait(s.file(".lock"))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	now, ok, err := s.load()
	if err != nil {
		return err
	}
	if ok != (old != nil) || ok && (now.Size != old.Size || now.Hash != old.Hash) {
		return errChanged
	}
	next := kept{TreeHead: head}
	if ok {
		next.before = append([]ct.Tree{{N: now.Size, Hash: now.Hash}}, now.before...)
		next.before = next.before[:min(len(next.before), maxBefore)]
		if err := durable.WriteFile(s.file(".head.previous"), formatKept(now), 0o644); err != nil {
			return err
		}
	}
	return durable.WriteFile(s.file(".head"), formatKept(next), 0o644)
}

// evidence keeps two signed notes and returns the file's name, "" if they could
// not be written; they are in the program's log then.
func (s *stateDir) evidence(kind, why string, kept, got TreeHead) string {
	id := sha256.Sum256(append(append([]byte{}, kept.Note...), got.Note...))
	name := s.file("." + kind + "-" + hex.EncodeToString(id[:8]) + ".txt")
	if _, err := os.Stat(name); err == nil {
		return name
	}
	var err error
	if have, _ := filepath.Glob(s.file("." + kind + "-*.txt")); len(have) >= maxEvidence {
		err = fmt.Errorf("there are %d such files already", len(have))
	} else {
		text := fmt.Sprintf("Log %s: %s.\nFound at %s.\n\n== accepted at %s\n\n%s\n== refused\n\n%s",
			s.verifier.Name(), why, time.Now().UTC().Format(time.RFC3339), kept.Accepted.UTC().Format(time.RFC3339), kept.Note, got.Note)
		err = durable.WriteFile(name, []byte(text), 0o644)
	}
	if err != nil {
		s.log.Error("evidence against a log could not be written", "file", name, "err", err, "kept", string(kept.Note), "got", string(got.Note))
		return ""
	}
	return name
}
