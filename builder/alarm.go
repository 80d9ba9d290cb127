package builder

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// An alarmError marks an error that must never happen; its kind is a label of
// the metric.
type alarmError struct {
	kind string
	err  error
}

func (e *alarmError) Error() string { return e.err.Error() }

func (e *alarmError) Unwrap() error { return e.err }

// alarmKinds are the kinds of alarms there are.
var alarmKinds = []string{"hash_mismatch", "sum_differs", alarmDiffers}

const alarmDiffers = "verifier_differs"

// alarmOf raises the alarm that an error calls for, if any.
func (s *Service) alarmOf(f *Failure) {
	var a *alarmError
	if errors.As(f, &a) {
		s.alarm(a.kind, f.Text)
	}
}

func (s *Service) alarm(kind, text string) {
	s.logger.Error("alarm", "kind", kind, "text", text)
	s.metrics.alarms.WithLabelValues(kind).Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Each try raises it again, which is to push no other out.
	s.alarms = slices.DeleteFunc(s.alarms, func(a Alarm) bool { return a.Kind == kind && a.Text == text })
	s.alarms = slices.Insert(s.alarms, 0, Alarm{time.Now().UTC(), kind, text})
	s.alarms = s.alarms[:min(len(s.alarms), maxAlarms)]
}

// room refuses a build when a disk is nearly full.
func (s *Service) room() error {
	low, err := s.diskLow(int64(s.cfg.DiskFree) << 20)
	if err != nil {
		return err
	}
	if low {
		s.askTrim() // what was downloaded can be had again
		return temporary("The build server has too little free disk space.", nil)
	}
	return nil
}

// diskLow reports whether less than floor bytes are free; the folders may be on
// several disks.
func (s *Service) diskLow(floor int64) (bool, error) {
	if floor == 0 {
		return false, nil
	}
	for _, dir := range []string{s.workDir, s.modCache, s.blobs.dir, s.dir} {
		free, err := diskFree(dir)
		if err != nil {
			return false, fmt.Errorf("asking for free disk space: %w", err)
		}
		if free < floor {
			return true, nil
		}
	}
	return false, nil
}
