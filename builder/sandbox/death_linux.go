package sandbox

import (
	"os/exec"
	"syscall"
)

// endWithServer has the kernel kill a command when the server is killed. It
// would go on writing into folders that the next server cleans.
func endWithServer(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
