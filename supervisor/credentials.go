package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"example.org/upkeep/supervisor/process"
)

// findUser looks up who the service runs as.
func (c *Config) findUser() error {
	c.cred = nil
	if c.Process.User == "" {
		if len(c.Process.Groups) > 0 || len(c.Process.AmbientCap) > 0 {
			return fmt.Errorf("%s: key process.groups and process.ambient_capabilities need process.user", c.File)
		}
		return nil
	}
	cred := new(process.Cred)
	u, err := user.Lookup(c.Process.User)
	if err != nil {
		u, err = user.LookupId(c.Process.User)
	}
	switch {
	case err == nil:
		uid, errU := strconv.ParseUint(u.Uid, 10, 32)
		gid, errG := strconv.ParseUint(u.Gid, 10, 32)
		if errU != nil || errG != nil {
			return fmt.Errorf("%s: key process.user: %q has the id %s:%s, which is no number", c.File, c.Process.User, u.Uid, u.Gid)
		}
		cred.UID, cred.GID = uint32(uid), uint32(gid)
		ids, err := u.GroupIds()
		if err == nil {
			for _, id := range ids {
				if g, err := strconv.ParseUint(id, 10, 32); err == nil {
					cred.Groups = append(cred.Groups, uint32(g))
				}
			}
		}
	default:
		// A number needs no entry in the user database, but then it needs groups.
		uid, errN := strconv.ParseUint(c.Process.User, 10, 32)
		if errN != nil {
			return fmt.Errorf("%s: key process.user: there is no user %q on this machine", c.File, c.Process.User)
		}
		if len(c.Process.Groups) == 0 {
			return fmt.Errorf("%s: key process.user: user %d is not in the user database; set process.groups too", c.File, uid)
		}
		cred.UID = uint32(uid)
	}
	if len(c.Process.Groups) > 0 {
		cred.Groups = nil
		for i, name := range c.Process.Groups {
			gid, err := lookupGroup(name)
			if err != nil {
				return fmt.Errorf("%s: key process.groups: %w", c.File, err)
			}
			if i == 0 {
				cred.GID = gid
			}
			cred.Groups = append(cred.Groups, gid)
		}
	}
	for _, name := range c.Process.AmbientCap {
		n, ok := capabilities[strings.TrimPrefix(strings.ToLower(name), "cap_")]
		if !ok {
			return fmt.Errorf("%s: key process.ambient_capabilities: %q is no capability; write it like \"net_bind_service\"", c.File, name)
		}
		cred.Ambient = append(cred.Ambient, n)
	}
	if os.Geteuid() == int(cred.UID) && os.Geteuid() != 0 && len(cred.Ambient) == 0 {
		return nil // already so, and without the right to set groups
	}
	c.cred = cred
	return nil
}

// userWarning says that the service's user isn't any more who it was when the
// configuration was read. The service runs on, and is started, as that one.
func (c *Config) userWarning() string {
	if c.cred == nil {
		return ""
	}
	u, err := user.Lookup(c.Process.User)
	var unknown user.UnknownUserError
	switch _, number := strconv.ParseUint(c.Process.User, 10, 32); {
	case errors.As(err, &unknown) && number != nil:
		return fmt.Sprintf("the service's user %q is no longer on this machine; it goes on as %d until upkeep is started again, which will fail", c.Process.User, c.cred.UID)
	case err == nil && u.Uid != strconv.FormatUint(uint64(c.cred.UID), 10):
		return fmt.Sprintf("the service's user %q is %s by now; it goes on as %d until upkeep reads its configuration again", c.Process.User, u.Uid, c.cred.UID)
	}
	return ""
}

func lookupUser(name string) (int, error) {
	id := name
	if u, err := user.Lookup(name); err == nil {
		id = u.Uid
	}
	uid, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q on this machine", name)
	}
	return int(uid), nil
}

func lookupGroup(name string) (uint32, error) {
	id := name
	if g, err := user.LookupGroup(name); err == nil {
		id = g.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q on this machine", name)
	}
	return uint32(gid), nil
}

// capabilities are Linux's, by number (capabilities(7)).
var capabilities = map[string]uintptr{
	"chown": 0, "dac_override": 1, "dac_read_search": 2, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7,
	"setpcap": 8, "linux_immutable": 9, "net_bind_service": 10, "net_broadcast": 11, "net_admin": 12, "net_raw": 13,
	"ipc_lock": 14, "ipc_owner": 15, "sys_module": 16, "sys_rawio": 17, "sys_chroot": 18, "sys_ptrace": 19,
	"sys_pacct": 20, "sys_admin": 21, "sys_boot": 22, "sys_nice": 23, "sys_resource": 24, "sys_time": 25,
	"sys_tty_config": 26, "mknod": 27, "lease": 28, "audit_write": 29, "audit_control": 30, "setfcap": 31,
	"mac_override": 32, "mac_admin": 33, "syslog": 34, "wake_alarm": 35, "block_suspend": 36, "audit_read": 37,
	"perfmon": 38, "bpf": 39, "checkpoint_restore": 40,
}
