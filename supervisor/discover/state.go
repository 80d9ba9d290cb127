package discover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"example.org/upkeep/internal/durable"
)

// state is the file discovery.json.
type state struct {
	Marks   map[string]mark `json:"marks"`   // by zone and source
	Modules map[string]seen `json:"modules"` // by path
}

const (
	maxState    = 4 << 20
	maxEvidence = 200 // files; beyond that somebody fills the disk
)

// loadState reads the state. A file that cannot be read is an error beside an
// empty state: the marks are lost, and the caller says so.
func loadState(dir string) (state, error) {
	s := state{Marks: map[string]mark{}, Modules: map[string]seen{}}
	if dir == "" {
		return s, nil
	}
	file := filepath.Join(dir, "discovery.json")
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var data []byte
	if err == nil && fi.Size() > maxState {
		err = fmt.Errorf("it is %d bytes long", fi.Size())
	}
	if err == nil {
		data, err = os.ReadFile(file)
	}
	var got state
	if err == nil {
		err = json.Unmarshal(data, &got)
	}
	if err != nil {
		return s, fmt.Errorf("reading what was seen before from %s: %w; how far the sources' logs were is forgotten", file, err)
	}
	if got.Marks != nil {
		s.Marks = got.Marks
	}
	if got.Modules != nil {
		s.Modules = got.Modules
	}
	return s, nil
}

// saveEvery bounds how old the times in the file are. It is less than the
// tolerance that they are compared with.
const saveEvery = tolerance / 2

// essence is the state without the times that change with every poll.
func (s state) essence() string {
	e := state{map[string]mark{}, map[string]seen{}}
	for k, m := range s.Marks {
		m.At = time.Time{}
		e.Marks[k] = m
	}
	for k, m := range s.Modules {
		m.Last, m.Since = time.Time{}, time.Time{}
		e.Modules[k] = m
	}
	data, err := json.Marshal(e)
	if err != nil {
		return ""
	}
	return string(data)
}

func (s state) save(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keeping what was seen: %w", err)
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("keeping what was seen: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "discovery.json"), append(data, '\n'), 0o600)
}

// A report is what is kept of a source that contradicts itself or another.
type report struct {
	At       time.Time
	Source   string
	Before   mark // the log that it showed before
	Messages []message
}

type message struct {
	Name, Type string
	Wire       []byte // the DNS message
}

func newReport(now time.Time, source string, before mark, evs []evidence) report {
	r := report{At: now, Source: source, Before: before}
	for _, e := range evs {
		r.Messages = append(r.Messages, message{e.question.name, typeName(e.question.typ), e.wire})
	}
	return r
}

// keepEvidence writes answers as received. The files' names say when.
func keepEvidence(dir string, now time.Time, reports []report) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	dir = filepath.Join(dir, "evidence")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeping evidence: %w", err)
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("keeping evidence: %w", err)
	}
	if len(have) >= maxEvidence {
		return nil, fmt.Errorf("keeping evidence: %s holds %d files already; look at them and move them away", dir, len(have))
	}
	var files []string
	for i, r := range reports {
		data, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return files, fmt.Errorf("keeping evidence: %w", err)
		}
		file := filepath.Join(dir, fmt.Sprintf("%s-%d.json", now.UTC().Format("20060102T150405.000000000Z"), i+1))
		if err := durable.WriteFile(file, append(data, '\n'), 0o600); err != nil {
			return files, fmt.Errorf("keeping evidence: %w", err)
		}
		files = append(files, file)
	}
	return files, nil
}
