package process

import (
	"errors"
	"os"
	"syscall"
)

// joinGroup has the next start take place in a control group.
func joinGroup(attr *syscall.SysProcAttr, dir string) (done func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}, err
	}
	// The file stays open until done, so its number stays right.
	attr.UseCgroupFD, attr.CgroupFD = true, int(f.Fd())
	return func() { f.Close() }, nil
}

// leaveGroup takes that back when the start failed in a way that the group can
// be the reason of, and reports whether it did.
func leaveGroup(attr *syscall.SysProcAttr, err error) bool {
	if !attr.UseCgroupFD {
		return false
	}
	for _, e := range []error{syscall.EACCES, syscall.EPERM, syscall.EBUSY, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENODEV, syscall.EINVAL, syscall.E2BIG, syscall.EBADF} {
		if errors.Is(err, e) {
			attr.UseCgroupFD, attr.CgroupFD = false, 0
			return true
		}
	}
	return false
}
