package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"example.org/upkeep/internal/durable"
)

// record names a running service, so that the next supervisor finds it when
// this one is killed. An empty record means that nothing runs.
type record struct {
	Mark  string `json:"mark,omitempty"`
	Pid   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // clock ticks since boot, or what the system has instead
	Boot  string `json:"boot,omitempty"`
}

func describe(pid int, mark string) record {
	start, _ := startTime(pid) // 0 where it can't be known
	return record{Mark: mark, Pid: pid, Start: start, Boot: bootID()}
}

// write replaces the record. It has to survive the supervisor, not the
// machine, since the service does neither: nothing is synced.
func (r *OS) write(rec record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	err = durable.Try("create", r.recordFile())
	tmp := r.recordFile() + ".tmp-"
	if err == nil {
		err = os.WriteFile(tmp, data, 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, r.recordFile())
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(tmp) // it may not be there
	// A full disk still has the room of the record before.
	if overwrite(r.recordFile(), data) == nil {
		return nil
	}
	return fmt.Errorf("noting the service's process: %w", err)
}

// overwrite replaces what is in a file in one step, without asking for room.
func overwrite(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if more := int(fi.Size()) - len(data); more > 0 {
		data = append(data, bytes.Repeat([]byte{' '}, more)...)
	}
	_, err = f.WriteAt(data, 0)
	return err
}

// Recover ends the process that the record names, with its group, and every
// process that carries the record's mark.
func (r *OS) Recover() (string, error) {
	var data []byte
	fi, err := os.Stat(r.recordFile())
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", r.recordFile()) // opening a pipe would wait for ever
	}
	if err == nil {
		data, err = os.ReadFile(r.recordFile())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for a service left running: %w", err)
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return "", fmt.Errorf("looking for a service left running: %s is damaged: %w", filepath.Base(r.recordFile()), err)
	}
	if rec.Mark == "" || rec.Boot != "" && rec.Boot != bootID() {
		return "", nil
	}
	said := ""
	deadline := time.Now().Add(killTime)
	for {
		n := 0
		if rec.Pid > 0 {
			if start, err := startTime(rec.Pid); err == nil && start != 0 && start == rec.Start {
				n++
				said = fmt.Sprintf("ended process %d, which a killed supervisor left running", rec.Pid)
				killGroup(rec.Pid)
			}
		}
		for _, pid := range markedProcesses(rec.Mark) {
			n++
			if said == "" {
				said = fmt.Sprintf("ended process %d, which a killed supervisor left running", pid)
			}
			killOne(pid)
		}
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			return said, fmt.Errorf("a service that a killed supervisor left running (process %d) can't be ended", rec.Pid)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return said, r.write(record{})
}
