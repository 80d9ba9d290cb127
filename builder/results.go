package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/durable"
)

// results keeps the outcome of each build with the output that people saw:
// <dir>/xx/<hash of the spec>.json and .log.
type results struct{ dir string }

func (r results) file(s spec.Spec, ext string) string {
	sum := sha256.Sum256([]byte(s.String()))
	name := hex.EncodeToString(sum[:16])
	return filepath.Join(r.dir, name[:2], name+ext)
}

// save writes a final result.
func (r results) save(res Result, output []byte) error {
	file := r.file(res.Spec, ".log")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("keeping the result: %w", err)
	}
	if err := durable.WriteFile(file, output, 0o644); err != nil {
		return err
	}
	return r.saveResult(res)
}

// saveResult writes a final result whose output is kept already.
func (r results) saveResult(res Result) error {
	data, err := json.Marshal(res)
	if err != nil {
		return fmt.Errorf("keeping the result: %w", err)
	}
	return durable.WriteFile(r.file(res.Spec, ".json"), data, 0o644)
}

// load returns a kept result; ok is false when there is none.
func (r results) load(s spec.Spec) (res Result, ok bool, err error) {
	data, err := os.ReadFile(r.file(s, ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Result{}, false, nil
	}
	if err != nil {
		return Result{}, false, fmt.Errorf("reading the kept result: %w", err)
	}
	if err := json.Unmarshal(data, &res); err != nil {
		return Result{}, false, fmt.Errorf("reading the kept result %s: it is damaged: %w", r.file(s, ".json"), err)
	}
	if res.Spec != s {
		return Result{}, false, fmt.Errorf("reading the kept result %s: it is of %s", r.file(s, ".json"), res.Spec)
	}
	return res, true, nil
}

// output returns the kept output of a build.
func (r results) output(s spec.Spec) ([]byte, error) { return os.ReadFile(r.file(s, ".log")) }

// forget removes a result.
func (r results) forget(s spec.Spec) error {
	for _, ext := range []string{".json", ".log"} {
		if err := os.Remove(r.file(s, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the kept result: %w", err)
		}
	}
	return nil
}
