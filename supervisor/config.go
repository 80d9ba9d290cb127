package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/upkeep/internal/config"
	"example.org/upkeep/supervisor/policy"
	"example.org/upkeep/supervisor/process"
	"example.org/upkeep/supervisor/schedule"
)

// ServiceConfig is the table [service].
type ServiceConfig struct {
	Path     string   `toml:"path" comment:"The service's binary: a symlink to a file beside it (upkeep makes one), or the file\nitself. Relative to this file's folder."`
	Args     []string `toml:"args" comment:"Its arguments; those behind \"upkeep run --\" follow."`
	Module   string   `toml:"module" comment:"Module of the service. Empty: as the binary's build information says."`
	Package  string   `toml:"package" comment:"Folder of its main package in the module, for example cmd/hello. Empty: as the\nbinary says."`
	Stripped bool     `toml:"stripped" comment:"Ask for binaries without symbol table."`
}

// UpdatesConfig is the table [updates].
type UpdatesConfig struct {
	Policy       policy.Level     `toml:"policy" comment:"What is installed by itself: \"patch\", \"minor\" or \"manual\"."`
	Toolchain    policy.Toolchain `toml:"toolchain" comment:"Which Go versions: \"follow\" (patches of the line in use; the newest together with a\nnew version of the service; onwards when the line goes out of support), \"patch\",\n\"minor\", \"supported\" or \"manual\"."`
	Prerelease   bool             `toml:"prerelease" comment:"Let a service that runs a pre-release go on to newer pre-releases."`
	Pseudo       bool             `toml:"pseudo" comment:"Let a service that runs an untagged commit go on to a tagged version."`
	Paused       bool             `toml:"paused" comment:"Start with updates paused."`
	Interval     config.Duration  `toml:"interval" comment:"How often new versions are asked for; at least 200ms. After a failure they are asked for\nsooner: after backoff_min, then twice as long each time, up to half an hour."`
	Delay        config.Duration  `toml:"delay" comment:"How old a version has to be, counted from its discovery."`
	RestartDelay bool             `toml:"restart_delay" comment:"A newer patch starts the delay again. If false, the older one may go when its own\ndelay is over."`
	Windows      []string         `toml:"windows" comment:"When updates may be installed, for example [\"mo-fr 9-17\", \"sa,su\", \"22:30-04:00\"].\nEmpty: at any time."`
	Timezone     string           `toml:"timezone" comment:"Time zone of the windows, for example \"Europe/Amsterdam\"; empty: the machine's."`
	Jitter       config.Duration  `toml:"jitter" comment:"Updates are spread over this time, so that many machines don't go at once."`
	BackoffMin   config.Duration  `toml:"backoff_min" comment:"Wait after the first failure, twice as long after each further one."`
	BackoffMax   config.Duration  `toml:"backoff_max" comment:"Longest wait after failures."`
	Keep         int              `toml:"keep" comment:"How many earlier binaries are kept for a roll-back without download."`
}

// SelfConfig is the table [self].
type SelfConfig struct {
	Policy    policy.Level     `toml:"policy" comment:"Which versions of upkeep itself are installed by themselves: \"patch\", \"minor\" or\n\"manual\". The times of the table updates hold for them too."`
	Toolchain policy.Toolchain `toml:"toolchain" comment:"Which Go versions, as in the table updates."`
	Delay     config.Duration  `toml:"delay" comment:"How old a version of upkeep has to be, counted from its discovery."`
	Path      string           `toml:"path" comment:"Name by which upkeep is started. Empty: as it was."`
	Stripped  bool             `toml:"stripped" comment:"Ask for binaries without symbol table."`
	Probation config.Duration  `toml:"probation" comment:"How long a new version is tried beside the running one before it takes its place, and\nwatched by that one afterwards."`
}

// ProcessConfig is the table [process].
type ProcessConfig struct {
	User       string          `toml:"user" comment:"User to run the service as, by name or number. Empty: upkeep's own."`
	Groups     []string        `toml:"groups" comment:"Its groups, the first one being the primary; empty: the user's."`
	AmbientCap []string        `toml:"ambient_capabilities" comment:"Linux capabilities that it keeps as that user, for example [\"net_bind_service\"]."`
	Limits     []string        `toml:"limits" comment:"Resource limits (Linux), for example [\"nofile=65536\", \"core=0:infinity\"]: soft and hard."`
	Dir        string          `toml:"dir" comment:"Working directory. Empty: upkeep's own."`
	Env        []string        `toml:"env" comment:"Environment variables to set, NAME=value."`
	ClearEnv   bool            `toml:"clear_env" comment:"Don't pass on upkeep's own environment, except PATH, HOME, LANG, LC_* and TZ."`
	StopSignal string          `toml:"stop_signal" comment:"Signal that asks the service to end."`
	Reload     string          `toml:"reload_signal" comment:"Signal that the service gets when upkeep is told to read its configuration again\n(SIGHUP), for example \"HUP\". Empty: none, since a service that does not know it ends."`
	Grace      config.Duration `toml:"grace" comment:"Time to end before its process group is killed."`
	Output     string          `toml:"output" comment:"\"keep\": the output passes through upkeep, which keeps the last lines for the page;\n\"inherit\": the service writes to upkeep's own output."`
	Restart    string          `toml:"restart" comment:"When the service ends by itself: \"exit\" (upkeep exits with the same status, for\nsystemd to restart) or \"always\" (upkeep restarts it with growing delay)."`
	Notify     string          `toml:"notify" comment:"What the service says by sd_notify (Linux). \"auto\": it is listened to, and a new version has\nto say READY=1 when the one before did; \"ready\": it has to, within health.start_time;\n\"off\": it gets no notify socket."`
	Watchdog   config.Duration `toml:"watchdog" comment:"The service has to send WATCHDOG=1 this often, or it is ended and what process.restart says\nhappens. 0: only when it asks for it itself (WATCHDOG_USEC)."`
	Handover   string          `toml:"handover" comment:"How a new version takes the connections over. \"retain\": upkeep keeps the service's\nlistening sockets open while it restarts (Linux), and the service knows nothing of it;\n\"listen-fds\": it gets the sockets below, as from systemd; \"proxy\": upkeep\nlistens for it (table proxy); \"restart\": nobody answers\nuntil the new process does. \"auto\": the best of these that works here; status says which."`
	Sockets    []SocketConfig  `toml:"socket" comment:"Sockets that upkeep opens and passes to the service (LISTEN_FDS), which has to be made\nfor that: tables [[process.socket]] with name, network (\"tcp\", \"udp\", \"unix\", \"unixgram\"),\naddress and, for files, mode, user and group."`
}

// HealthConfig is the table [health].
type HealthConfig struct {
	URL       string          `toml:"url" comment:"HTTP address that tells whether the service is well, for example\nhttp://127.0.0.1:8080/health. Empty: it is well when it runs."`
	Status    string          `toml:"status" comment:"Statuses that are good: \"200-299\", or several, \"200,204,300-399\"."`
	Body      string          `toml:"body" comment:"Text that the answer has to contain (in its first 64 kB); empty: any."`
	TCP       string          `toml:"tcp" comment:"Address that has to accept connections, host:port, instead of or beside url."`
	Command   []string        `toml:"command" comment:"Command that has to exit with 0, instead of or beside the others."`
	Timeout   config.Duration `toml:"timeout" comment:"For one check."`
	Interval  config.Duration `toml:"interval" comment:"Between checks during probation."`
	Successes int             `toml:"successes" comment:"Good checks needed in a row at the end of probation."`
	StartTime config.Duration `toml:"start_time" comment:"Time for a started version to become healthy for the first time."`
	Failures  int             `toml:"failures" comment:"Bad checks in a row, after the first good one, that end probation."`
	Probation config.Duration `toml:"probation" comment:"How long a new version is watched before it stays."`
}

// HooksConfig is the table [hooks].
type HooksConfig struct {
	Before   []string        `toml:"before_update" comment:"Command run before the old version is stopped, for example a backup. Exit status 75:\nnot now, try again later; any other than 0: the update fails."`
	After    []string        `toml:"after_update" comment:"Command run when the new version stays."`
	Rollback []string        `toml:"on_rollback" comment:"Command run when the previous version is back."`
	Timeout  config.Duration `toml:"timeout" comment:"For each of them."`
}

// ControlConfig is the table [control].
type ControlConfig struct {
	Socket string `toml:"socket" comment:"Control socket. Empty: control.sock in the state folder."`
	Group  string `toml:"group" comment:"Group that may use it beside upkeep's user."`
}

// WebConfig is the table [web].
type WebConfig struct {
	Listen  string   `toml:"listen" comment:"Address of the web page and /metrics, for example 127.0.0.1:8300. Empty: none."`
	Metrics string   `toml:"metrics" comment:"Second address, beside listen, that serves /metrics alone and without a login. Empty: the\nmetrics are on the page's address, behind its login."`
	Hosts   []string `toml:"hosts" comment:"Host names under which the page may be used, beside its address and localhost."`
	Access  string   `toml:"access" comment:"File with the passwords and tokens that \"upkeep passwd\" and \"upkeep token\" write. Empty:\naccess.json in the state folder. Without a password in it nobody has to log in, and only\na loopback address may be listened on."`
	Cert    string   `toml:"cert" comment:"PEM file with the page's TLS certificate and its chain; read again when it changes."`
	Key     string   `toml:"key" comment:"PEM file with the certificate's key."`
	ACME    string   `toml:"acme" comment:"Instead of cert and key: the directory of an ACME server, for example\nhttps://acme-v02.api.letsencrypt.org/directory, which issues a certificate for the names in hosts. Setting\nit agrees to that server's terms. Port 443 of these names has to lead to listen."`
	Contact string   `toml:"acme_contact" comment:"Mail address that the ACME server may write to."`
	Roots   string   `toml:"acme_roots" comment:"PEM file of the roots that the ACME server's own certificate comes from. Empty: the system's."`
	Plain   bool     `toml:"plain" comment:"Allow an address that other machines reach without TLS: a proxy in front takes care of that."`

	UserHeader string   `toml:"user_header" comment:"Header in which a proxy in front says who has logged in there, for example X-Remote-User."`
	Proxies    []string `toml:"proxies" comment:"Addresses or networks of the proxies whose user_header is believed."`

	EditConfig    bool   `toml:"edit_config" comment:"Let people who have logged in change this file on the page. It names commands that upkeep\nruns: whoever knows a password can then do what upkeep's user can."`
	PublicVersion bool   `toml:"public_version" comment:"Serve /version, the running version as JSON, without a login."`
	ReleaseNotes  string `toml:"release_notes" comment:"Address of the service's release notes, with {version} where the version goes. Empty: made\nfrom the module's path for well-known hosts."`
}

// Config is what the engine is told, apart from discovery and building.
type Config struct {
	State   string // folder
	File    string // configuration file, for the status
	Socket  string // control socket; "" = in the state folder
	Service ServiceConfig
	Updates UpdatesConfig
	Process ProcessConfig
	Health  HealthConfig
	Hooks   HooksConfig
	Self    SelfConfig
	Proxy   ProxyConfig

	cred *process.Cred // of the service, found by findUser
}

// Defaults returns the tables as they are when the configuration is silent.
func Defaults() Config {
	return Config{
		Updates: UpdatesConfig{
			Policy:       policy.LevelPatch,
			Toolchain:    policy.ToolchainFollow,
			Interval:     config.Duration(24 * time.Hour),
			Delay:        config.Duration(72 * time.Hour),
			RestartDelay: true,
			Jitter:       config.Duration(5 * time.Minute),
			BackoffMin:   config.Duration(time.Minute),
			BackoffMax:   config.Duration(24 * time.Hour),
			Keep:         2,
		},
		Process: ProcessConfig{
			StopSignal: "TERM",
			Grace:      config.Duration(30 * time.Second),
			Output:     "keep",
			Restart:    "exit",
			Notify:     notifyAuto,
			Handover:   HandoverAuto,
		},
		Health: HealthConfig{
			Status:    "200-299",
			Timeout:   config.Duration(5 * time.Second),
			Interval:  config.Duration(time.Second),
			Successes: 2,
			Failures:  3,
			StartTime: config.Duration(20 * time.Second),
			Probation: config.Duration(30 * time.Second),
		},
		Hooks: HooksConfig{Timeout: config.Duration(10 * time.Minute)},
		Proxy: ProxyConfig{Hold: config.Duration(15 * time.Second), Drain: config.Duration(5 * time.Second)},
		Self: SelfConfig{
			Policy:    policy.LevelPatch,
			Toolchain: policy.ToolchainFollow,
			Delay:     config.Duration(72 * time.Hour),
			Stripped:  true,
			Probation: config.Duration(10 * time.Second),
		},
	}
}

// CheckStart returns what is wrong with the part of the configuration without
// which the service cannot be started.
func (c *Config) CheckStart() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: key %s %s", c.File, key, fmt.Sprintf(format, args...)))
	}
	if c.Service.Path == "" {
		bad("service.path", "is not set; it names the service's binary")
	}
	if c.State == "" {
		bad("state", "is not set; it names the folder for upkeep's own files")
	}
	if _, ok := signalByName(c.Process.StopSignal); !ok {
		bad("process.stop_signal", "is %q, which is no signal; try \"TERM\"", c.Process.StopSignal)
	}
	if s := c.Process.Reload; s != "" {
		if _, ok := signalByName(s); !ok {
			bad("process.reload_signal", "is %q, which is no signal; try \"HUP\"", s)
		}
	}
	oneOf := func(key, value string, values ...string) {
		for _, v := range values {
			if v == value {
				return
			}
		}
		bad(key, "is %q; it can be %s", value, strings.Join(values, ", "))
	}
	oneOf("process.output", c.Process.Output, "keep", "inherit")
	oneOf("process.restart", c.Process.Restart, "exit", "always")
	oneOf("process.notify", c.Process.Notify, notifyAuto, notifyReady, notifyOff)
	if d := c.Process.Watchdog.D(); d < 0 || d > 0 && d < 10*time.Millisecond {
		bad("process.watchdog", "is %v; at least 10ms, or 0 for none", c.Process.Watchdog)
	}
	oneOf("process.handover", c.Process.Handover, HandoverAuto, HandoverRetain, HandoverListenFDs, HandoverProxy, HandoverRestart)
	if err := errors.Join(c.checkSockets(), c.checkProxy()); err != nil {
		errs = append(errs, err)
	}
	for _, l := range c.Process.Limits {
		if _, err := process.ParseRlimit(l); err != nil {
			bad("process.limits", "has %v", err)
		}
	}
	for _, e := range c.Process.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			bad("process.env", "has %q, which is not NAME=value", e)
		}
	}
	// What the kernel would refuse at the next start, when nothing runs any more.
	for key, list := range map[string][]string{"process.env": c.Process.Env, "service.args": c.Service.Args} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				bad(key, "has %q with a zero byte, which no program can be given", s)
			}
		}
	}
	if dir := c.Process.Dir; dir != "" {
		if fi, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !fi.IsDir() {
			bad("process.dir", "is %q, where no folder is", dir)
		}
	}
	if err := new(*c).findUser(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// CheckUpdates returns what is wrong with the rest; with such mistakes the
// service runs and updates are paused.
func (c *Config) CheckUpdates() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: key %s %s", c.File, key, fmt.Sprintf(format, args...)))
	}
	if c.Updates.Interval.D() < 200*time.Millisecond {
		bad("updates.interval", "is %v; at least 200ms", c.Updates.Interval)
	}
	if c.Updates.Keep < 1 {
		bad("updates.keep", "is %d; at least 1, to have something to go back to", c.Updates.Keep)
	}
	if _, err := schedule.ParseWindows(c.Updates.Windows, c.Updates.Timezone); err != nil {
		bad("updates.windows", "%v", err)
	}
	if c.Health.URL != "" {
		u, err := url.Parse(c.Health.direct(c.Proxy.Listen, c.sampleBackends()).URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Port() != "" && !isAddress(u.Host, 1) {
			bad("health.url", "is %q, which is no http or https address", c.Health.URL)
		}
	}
	if c.Health.TCP != "" {
		if !isAddress(c.Health.direct(c.Proxy.Listen, c.sampleBackends()).TCP, 1) {
			bad("health.tcp", "is %q, which is not host:port", c.Health.TCP)
		}
	}
	// Such a service runs, and is killed when it should end: no reason not to start it.
	if sig, _ := signalByName(c.Process.StopSignal); !ends(sig) {
		bad("process.stop_signal", "is %q, by which no service ends; try \"TERM\"", c.Process.StopSignal)
	}
	if _, err := parseStatuses(c.Health.Status); err != nil {
		bad("health.status", "%v", err)
	}
	if c.Health.Interval.D() < 10*time.Millisecond {
		bad("health.interval", "is %v; at least 10ms", c.Health.Interval)
	}
	if c.Self.Probation.D() < 100*time.Millisecond {
		bad("self.probation", "is %v; at least 100ms", c.Self.Probation)
	}
	if h := c.Hooks; h.Timeout.D() <= 0 && len(h.Before)+len(h.After)+len(h.Rollback) > 0 {
		bad("hooks.timeout", "is %v; it has to be more than 0", h.Timeout)
	}
	if c.Health.Timeout.D() <= 0 {
		bad("health.timeout", "is %v; it has to be more than 0", c.Health.Timeout)
	}
	return errors.Join(errs...)
}

// isAddress says whether a text is host:port, with a port of at least the given
// one or a name of it.
func isAddress(addr string, least int) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := net.LookupPort("ip", port) // in /etc/services, not in DNS
	return err == nil && n >= least
}

// CheckControl returns what is wrong with the table [control]; the service is
// updated also without its socket.
func CheckControl(c ControlConfig) error {
	if c.Group == "" {
		return nil
	}
	if _, err := lookupGroup(c.Group); err != nil {
		return fmt.Errorf("key control.group: %w", err)
	}
	return nil
}

// ControlSocket returns the control socket's file name.
func ControlSocket(c ControlConfig, state string) string {
	if c.Socket != "" {
		return c.Socket
	}
	return filepath.Join(state, "control.sock")
}
