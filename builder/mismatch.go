package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	kgzip "github.com/klauspost/compress/gzip"

	"example.org/upkeep/builder/bindiff"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/httpget"
)

// A mismatch is what is kept of a verifier that came to another result.
type mismatch struct {
	Time   time.Time
	Spec   string
	Ours   ourSide
	Theirs opinion
	Diff   []string `json:",omitempty"` // in what the binaries differ
	Error  string   `json:",omitempty"` // why that is not known
}

type ourSide struct {
	Record, SHA256, Toolchain string
}

// text is the alarm's.
func (m mismatch) text() string {
	return fmt.Sprintf("The verifier %s has another result for %s: it says %q, this server %q.", m.Theirs.Verifier, m.Spec, m.Theirs.Record, m.Ours.Record)
}

// loadAlarms makes the alarms of what is kept be shown after a restart too.
func (s *Service) loadAlarms() error {
	dir := os.DirFS(s.dir) // the folder's own name is no pattern
	names, err := fs.Glob(dir, "mismatches/*.json")
	if err != nil {
		return err
	}
	var list []Alarm
	for _, name := range names {
		data, err := fs.ReadFile(dir, name)
		if err != nil {
			return fmt.Errorf("reading a mismatch: %w", err)
		}
		var m mismatch
		if err := json.Unmarshal(data, &m); err != nil {
			s.logger.Error("a kept mismatch is damaged", "file", name, "err", err)
			continue
		}
		list = append(list, Alarm{m.Time, alarmDiffers, m.text()})
	}
	slices.SortFunc(list, func(a, b Alarm) int { return b.Time.Compare(a.Time) })
	s.alarms = list[:min(len(list), maxAlarms)]
	return nil
}

// evidence returns the size of the binaries that are kept of others.
func evidence(dir string) (size int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && filepath.Ext(e.Name()) == "" {
			size += fi.Size()
		}
	}
	return size, nil
}

// differs raises the alarm and keeps both sides. What can be had of their binary
// is fetched and compared in the background until ctx ends: a verifier that lies
// may also take its time, and nobody is to wait for that.
func (s *Service) differs(ctx context.Context, v *verifier, out built, o opinion) {
	m := mismatch{Time: time.Now().UTC(), Spec: out.record.Spec.String(), Theirs: o,
		Ours: ourSide{strings.TrimSpace(string(out.record.Line())), fmt.Sprintf("%x", out.sha256), out.toolchain}}
	s.alarm(alarmDiffers, m.text())
	keep := func() {
		if err := s.keepMismatch(m); err != nil {
			s.logger.Error("keeping a mismatch", "err", err)
		}
	}
	keep() // before anything can go wrong
	compare := func() {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.VerifyTimeout.D())
		defer cancel()
		theirs, err := spec.ParseRecord([]byte(o.Record + "\n"))
		if err == nil {
			m.Diff, err = s.diff(ctx, v.http, v.base, theirs, m.Ours.SHA256, out.record.Size)
		}
		if err != nil {
			m.Error = err.Error()
		}
		keep()
	}
	if !inBackground(&s.background, s.comparing, compare) {
		m.Error = "the binaries of other mismatches are being fetched"
		keep()
	}
}

// maxCompared bounds the binaries of others that are fetched at the same time.
const maxCompared = 4

func (s *Service) keepMismatch(m mismatch) error {
	dir := filepath.Join(s.dir, "mismatches")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	sp, err := spec.Parse(m.Spec)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(s.results.file(sp, ".json")), ".json") + "-" + url.PathEscape(m.Theirs.Verifier) + ".json"
	return durable.WriteFile(filepath.Join(dir, name), data, 0o644)
}

// diff gets the binary that another builder recorded, keeps it, and says in
// what it differs from ours.
func (s *Service) diff(ctx context.Context, hc *http.Client, base string, rec spec.Record, ours string, size int64) ([]string, error) {
	if rec.Size > int64(s.cfg.MaxBinary)<<20 {
		return nil, fmt.Errorf("its log records %d bytes; this server keeps at most %d MiB", rec.Size, s.cfg.MaxBinary)
	}
	dir := filepath.Join(s.dir, "mismatches")
	kept, err := evidence(dir)
	if err != nil {
		return nil, err
	}
	if max := 2 * int64(s.cfg.MaxBinary) << 20; kept+rec.Size > max {
		return nil, fmt.Errorf("the binaries of other mismatches take %d bytes already, and all may take %d: remove those in %s that are not needed", kept, max, dir)
	}
	body, err := httpget.Open(ctx, hc, base+"/"+rec.Spec.String()+rec.Sum+"/"+rec.FileName()+".gz")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	z, err := kgzip.NewReader(io.LimitReader(body, rec.Size+1<<20))
	if err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(s.workDir, "theirs-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	d := spec.NewDigest()
	if _, err := io.Copy(io.MultiWriter(tmp, d), io.LimitReader(z, rec.Size+1)); err != nil {
		return nil, err
	}
	if d.Size() != rec.Size || d.Sum() != rec.Sum {
		return nil, fmt.Errorf("what it serves is not what its log records: %d bytes with the sum %s", d.Size(), d.Sum())
	}
	mine, err := s.blobs.open(ours, plain)
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	// Kept as evidence: the other side may remove it.
	if err := errors.Join(os.MkdirAll(dir, 0o755), tmp.Chmod(0o644), tmp.Sync(), durable.Rename(tmp.Name(), filepath.Join(dir, d.Hex()))); err != nil {
		return nil, err
	}
	return bindiff.Compare(mine, tmp, size, rec.Size)
}
