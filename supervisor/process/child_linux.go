package process

import (
	"fmt"
	"os"
)

// isChild returns an error unless a process is a child of this one, ended or not.
func isChild(pid int) error {
	s, err := procStat(pid)
	if err != nil {
		return err
	}
	if s.ppid != os.Getpid() {
		return fmt.Errorf("process %d is not our child", pid)
	}
	return nil
}
