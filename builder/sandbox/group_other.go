//go:build !unix

package sandbox

import "os/exec"

func ownGroup(*exec.Cmd) {}

func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = cmd.Process.Kill() // it may have ended
	}
}

func exitError(exit *exec.ExitError) error { return &ExitError{Code: exit.ExitCode()} }
