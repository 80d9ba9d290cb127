package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"example.org/upkeep/internal/durable"
)

// unit is what is written for systemd: a template for all services whose
// folders are beside each other, and a drop-in for this one.
type unit struct {
	exe, dir, config string
	instance         string
	user             string // "" = not decided
	systemd          int    // version
}

// templateName is the template's file name.
const templateName = "upkeep@.service"

// unit describes the service's unit.
func (s setup) unit(exe string, systemd int) unit {
	account := s.user
	if account == "" {
		if u, err := user.Current(); err == nil && u.Uid != "0" {
			account = u.Username
		}
	}
	return unit{exe: exe, dir: s.dir, config: s.config(), instance: instanceName(s.name), user: account, systemd: systemd}
}

// instanceName is a service's name as part of a unit's name, where few characters are allowed.
func instanceName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}

// name is that of the service's unit.
func (u unit) name() string { return "upkeep@" + u.instance + ".service" }

// files are the unit's files, below the service's folder or /etc/systemd/system.
func (u unit) files() map[string]string {
	return map[string]string{
		templateName: u.template(),
		filepath.Join(u.name()+".d", "service.conf"): u.dropIn(),
	}
}

// write writes the files into the service's folder.
func (u unit) write() error {
	for name, text := range u.files() {
		file := filepath.Join(u.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := durable.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The versions of systemd that know what older ones don't.
const (
	withNotifyReload = 253
	withSubgroup     = 254
)

// template is a unit in which service and upkeep can write to their own folder
// and to nothing else.
func (u unit) template() string {
	kind := "# From systemd " + strconv.Itoa(withNotifyReload) + " on, Type=notify-reload can stand here instead of these two lines.\nType=notify\nExecReload=/bin/kill -HUP $MAINPID\n"
	if u.systemd >= withNotifyReload {
		kind = "Type=notify-reload\n"
	}
	delegate := "Delegate=yes\n"
	if u.systemd >= withSubgroup {
		delegate += "DelegateSubgroup=supervisor\n"
	}
	return `[Unit]
Description=%i, kept up to date by upkeep
After=network-online.target
Wants=network-online.target

[Service]
` + kind + `ExecStart=` + unitQuote(u.exe) + ` run -config ` + unitQuoteWith(filepath.Dir(u.dir), "/%i/"+defaultConfigFile) + `
WorkingDirectory=` + unitEscape(filepath.Dir(u.dir)) + `/%i
# Who it runs as is in the drop-in of the service; so are credentials, limits
# and environment files, all of which upkeep passes on.
UMask=0027
Restart=always
RestartSec=2
# upkeep says that it works; the service's own watchdog is process.watchdog.
WatchdogSec=2min
# upkeep passes SIGTERM on, waits for the service and asks for more time while it
# does; only what is left then is killed.
KillMode=mixed
TimeoutStopSec=90
# Groups below the unit's own, so that upkeep can end all that the service started.
` + delegate + `# Sockets that outlive a crash of upkeep.
FileDescriptorStoreMax=256

# The folder must be writable for updates. The rest of the machine is read-only.
ProtectSystem=strict
ReadWritePaths=` + unitQuoteWith(filepath.Dir(u.dir), "/%i") + `
# Where the services of this host share answers about versions, if it is there.
ReadWritePaths=-` + sharedCache + `
ProtectHome=` + u.protectHome() + `
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
NoNewPrivileges=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
# seccomp and pidfd_getfd: to keep the service's sockets open over its restart.
SystemCallFilter=@system-service seccomp pidfd_getfd
SystemCallFilter=~@privileged @resources
SystemCallFilter=@chown
SystemCallErrorNumber=EPERM
# For a port below 1024 put CAP_NET_BIND_SERVICE in both, in the drop-in.
CapabilityBoundingSet=
AmbientCapabilities=

[Install]
WantedBy=multi-user.target
`
}

// dropIn is what this service needs beside the template.
func (u unit) dropIn() string {
	text := "[Service]\n"
	if u.user != "" {
		text += "User=" + unitEscape(u.user) + "\n"
	} else {
		text += "# Without User= the service runs as root. Make a user for it, give it the folder, and name it here.\n#User=" + u.instance + "\n"
	}
	if u.instance != filepath.Base(u.dir) {
		text += "ExecStart=\nExecStart=" + unitQuote(u.exe) + " run -config " + unitQuote(u.config) + "\n" +
			"WorkingDirectory=" + unitEscape(u.dir) + "\nReadWritePaths=" + unitQuote(u.dir) + "\n"
	}
	return text
}

// protectHome hides the homes, unless the service or upkeep is in one.
func (u unit) protectHome() string {
	for _, dir := range []string{u.dir, u.exe} {
		for _, home := range []string{"/home/", "/root/", "/run/user/"} {
			if strings.HasPrefix(dir, home) {
				return "read-only"
			}
		}
	}
	return "yes"
}

// unitEscape keeps systemd from reading % as a specifier.
func unitEscape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// unitQuote is for a word of a command line or list (systemd.service(5), "Command lines").
func unitQuote(s string) string { return unitQuoteWith(s, "") }

// unitQuoteWith does that for a word with an end that systemd is to expand.
func unitQuoteWith(s, end string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(s) + end
	if strings.ContainsAny(s, " \t'\"\\;") {
		return `"` + s + `"`
	}
	return s
}

// systemdVersion asks this machine's systemd; 0 = there is none, or an old one is assumed.
func systemdVersion() int {
	out, err := exec.Command("systemctl", "--version").Output()
	if err != nil {
		return 0
	}
	return parseSystemdVersion(string(out))
}

// parseSystemdVersion reads "systemd 252 (252.39-1~deb12u2)".
func parseSystemdVersion(s string) int {
	f := strings.Fields(s)
	if len(f) < 2 || f[0] != "systemd" {
		return 0
	}
	digits := strings.IndexFunc(f[1]+" ", func(r rune) bool { return r < '0' || r > '9' })
	n, err := strconv.Atoi(f[1][:digits])
	if err != nil {
		return 0
	}
	return n
}

// print says how to install the unit.
func (u unit) print() {
	fmt.Printf("\nOr as a system service:\n  sudo cp -r %s %s /etc/systemd/system/\n  sudo systemctl enable --now %s\n",
		shellQuote(filepath.Join(u.dir, templateName)), shellQuote(filepath.Join(u.dir, u.name()+".d")), shellQuote(strings.TrimSuffix(u.name(), ".service")))
}
