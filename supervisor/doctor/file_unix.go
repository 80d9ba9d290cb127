//go:build unix

package doctor

import (
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"syscall"
)

// judgeFile looks at who can execute and who can write the binary. An empty
// name stands for the user of this process.
func judgeFile(file string, fi fs.FileInfo, name string) []Finding {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	u, err := user.Current()
	if name != "" {
		if u, err = user.Lookup(name); err != nil {
			u, err = user.LookupId(name)
		}
	}
	if err != nil {
		return []Finding{{"binary", Fail, fmt.Sprintf("the service's user %q: %v", name, err), "this configuration", "Create the user, or correct process.user."}}
	}
	groups, _ := u.GroupIds() // without them only the primary group counts
	mode := fi.Mode().Perm()
	access := func(bit fs.FileMode) bool {
		switch {
		case u.Uid == strconv.FormatUint(uint64(st.Uid), 10):
			return mode&(bit<<6) != 0
		case slices.Contains(append(groups, u.Gid), strconv.FormatUint(uint64(st.Gid), 10)):
			return mode&(bit<<3) != 0
		}
		return mode&bit != 0
	}
	var out []Finding
	if u.Uid == "0" && mode&0o111 == 0 || u.Uid != "0" && !access(1) {
		out = append(out, Finding{"binary", Fail, fmt.Sprintf("the user %s cannot execute %s (mode %o)", u.Username, file, mode), "this machine's file permissions", "chmod a+rx the file, and its folders likewise."})
	}
	if name != "" && u.Uid != "0" && access(2) {
		out = append(out, Finding{"binary", Warn, fmt.Sprintf("the service's own user %s can write %s", u.Username, file), "this machine's file permissions", "Let another user own the binary: a service that is broken into must not be able to exchange it."})
	}
	if mode&0o002 != 0 {
		out = append(out, Finding{"binary", Fail, fmt.Sprintf("everybody on this machine can write %s", file), "this machine's file permissions", "chmod o-w the file."})
	}
	if len(out) == 0 {
		out = append(out, Finding{Link: "binary", Level: OK, What: fmt.Sprintf("%s can be executed by %s", file, u.Username)})
	}
	return out
}
