# The unit that "upkeep init" writes, under the systemd that is process 1 of the
# virtual machine; vm-test.sh reads this file there. The service is speaker, as
# in systemd-test.sh: under the machine's systemd, then under that of a user.
say() { printf '\n# %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; failed=1; }
show() { printf '$ %s\n' "$*"; "$@" || fail "$* ended with $?"; }
until_() {
	local what=$1 n; shift
	for n in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
	fail "$what"
	journalctl -q --no-pager -n 30 -o cat
	return 1
}
# manager is systemctl of whoever is asked.
manager=(systemctl)
property() { "${manager[@]}" show -P "$2" "$1"; }
mainpid() { property "$1" MainPID; }
answers() { bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n1 <&3"; }
# tells PORT notes the answer; one that is cut off is asked again.
tells() { answers "$1" >/tmp/answer 2>/dev/null && grep -q '^speaker [0-9]' /tmp/answer; }
# other PORT ANSWER is true when another process than that one answers.
other() { tells "$1" && [ "$(cat /tmp/answer)" != "$2" ]; }
changed() { [ "$(mainpid "$1")" != "$2" ] && [ "$(mainpid "$1")" != 0 ]; }
groups() { (shopt -s nullglob && cd "/sys/fs/cgroup$(property upkeep@speaker ControlGroup)" && for d in . */; do
	echo "$d $(while read -r p; do tr '\0' ' ' <"/proc/$p/cmdline" | cut -d' ' -f1; done <"$d/cgroup.procs" | tr '\n' ' ')"; done); }

handover() {
	echo '$ # how a new version would take the connections over'
	/opt/upkeep/upkeep status -config /srv/speaker/upkeep.toml -json | grep -A 12 '"handover"' | grep -E '"(mode|reason|address)"'
}

# speaks PORT LINES does everything under one manager: the system's, or a user's.
# LINES is how much the service says when it starts.
speaks() {
	local before service
	show "${manager[@]}" start upkeep@speaker
	until_ 'the service does not answer' tells "$1" || return
	show "${manager[@]}" show -p Type -p NotifyAccess -p ActiveState -p StatusText upkeep@speaker
	echo '$ # what the service found'
	journalctl -q --no-pager -o cat | grep -E '^(found|credential|environment|control)' | tail -n "$2"
	echo '$ # the processes of each control group of the unit'
	groups
	handover
	before=$(mainpid upkeep@speaker)
	show "${manager[@]}" reload upkeep@speaker
	[ "$(mainpid upkeep@speaker)" = "$before" ] && echo 'main process unchanged' || fail 'the main process changed'

	say 'It falls silent: its own watchdog'
	until_ 'the service does not tell who it is' tells "$1"
	service=$(cat /tmp/answer)
	kill -USR1 "${service#speaker }" || fail 'nobody to silence'
	until_ 'the service is not started again' other "$1" "$service"
	[ "$(mainpid upkeep@speaker)" = "$before" ] && echo 'main process unchanged' || fail 'the main process changed'
	printf 'descriptors kept by systemd: %s\n' "$(property upkeep@speaker NFileDescriptorStore)"

	say 'SIGKILL of upkeep: what the service had kept is there again, and its socket'
	kill -9 "$before"
	until_ 'upkeep is not started again' changed upkeep@speaker "$before"
	until_ 'the service does not answer' tells "$1"
	until_ 'not active' sh -c "${manager[*]} is-active upkeep@speaker"
	journalctl -q --no-pager -o cat | grep '^found' | tail -n 1 | tee /tmp/found
	grep -q 'kept by process' /tmp/found || fail 'the note is lost'

	say 'Stop: nothing is left'
	show "${manager[@]}" stop upkeep@speaker
	pgrep -a 'speaker|upkeep' || pgrep -ax sleep && fail 'processes are left' || echo 'no process is left'
	show "${manager[@]}" show -p Result -p ExecMainStatus upkeep@speaker
}

say 'The unit of upkeep init, with a credential and an environment file'
useradd --system --create-home --shell /bin/sh hello
mkdir -p /opt/upkeep /srv/speaker
cp /vm/upkeep /opt/upkeep/upkeep
cp /vm/speaker /srv/speaker/speaker
cat >/srv/speaker/upkeep.toml <<'TOML'
state = "upkeep-state"
[service]
path = "speaker"
[process]
notify = "ready"
watchdog = "10s"
restart = "always"
env = ["ADDR=127.0.0.1:8081", "GODEBUG=multipathtcp=0"]
TOML
echo FROM_FILE=passed >/srv/speaker/env
echo -n secret >/root/word
chown -R hello: /srv/speaker
(cd /tmp && UPKEEP_UNIT_DIR=/etc/systemd/system /vm/unit-writer -test.run TestUnitOfSystemd >/dev/null) || fail 'no unit'
printf '[Service]\nLoadCredential=word:/root/word\nSetCredential=second:plain\nEnvironmentFile=/srv/speaker/env\n' >/etc/systemd/system/upkeep@speaker.service.d/more.conf
systemctl daemon-reload
show systemd-analyze verify --man=no upkeep@speaker.service
speaks 8081 5

# dropped NAME PORT LINES COMMAND... runs the service at a port, with the lines
# in a drop-in, and then the command.
dropped() {
	local conf=/etc/systemd/system/upkeep@speaker.service.d/$1.conf port=$2
	printf '[Service]\n%s\n' "$3" >"$conf"
	shift 3
	systemctl daemon-reload
	show systemctl start upkeep@speaker
	until_ 'the service does not answer' tells "$port" && echo 'it answers'
	[ $# = 0 ] || "$@"
	show systemctl stop upkeep@speaker
	rm "$conf"
}
say 'A port below 1024'
sed -i 's/:8081/:81/' /srv/speaker/upkeep.toml
users() { ps -C upkeep,speaker -o user=,comm=; }
dropped port 81 'AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE' users
sed -i 's/:81"/:8081"/' /srv/speaker/upkeep.toml

say 'A service under another user than upkeep'
sed -i 's/^\[process\]$/&\nuser = "hello"/' /srv/speaker/upkeep.toml
dropped user 8081 'User=root
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_DAC_OVERRIDE
SystemCallFilter=@setuid' users
sed -i '/^user = /d' /srv/speaker/upkeep.toml
chown -R hello: /srv/speaker

say 'Where pidfd_getfd is forbidden'
dropped getfd 8081 'SystemCallFilter=~pidfd_getfd' handover

say 'A new version of the service, without CAP_NET_ADMIN and with it'
cp -r /vm/world /srv/world
chmod -R a+rX /srv/world
(cd /tmp && UPKEEP_TEST_WORLD=/srv/world exec /vm/unit-writer -test.run '^TestRealSelfUpdate$' -test.timeout=0 >/tmp/world.log 2>&1) &
world=$!
until_ 'nobody serves versions' grep -q '^serving' /tmp/world.log || cat /tmp/world.log
go=$(sed -n 's/^serving with //p' /tmp/world.log)
cat /srv/world/world.toml - >>/srv/speaker/upkeep.toml <<'TOML'
[updates]
policy = "manual"
toolchain = "manual"
[health]
probation = "5s"
[self]
policy = "manual"
toolchain = "manual"
probation = "30s"
TOML
cp /srv/world/supervisor/testdata/speaker@v0.1.10 /srv/speaker/speaker
# upkeep itself in a folder of its own that it may write, under a versioned name.
own=upkeep-v0.1.10-$go-stripped
cp /srv/world/cmd/upkeep@v0.1.10 "/opt/upkeep/$own"
ln -sf "$own" /opt/upkeep/upkeep
chown -hR hello: /opt/upkeep /srv/speaker
printf '[Service]\nReadWritePaths=/opt/upkeep\nWatchdogSec=60\n' >/etc/systemd/system/upkeep@speaker.service.d/self.conf
order() { show /opt/upkeep/upkeep "$@" -config /srv/speaker/upkeep.toml; }
warnings() { /opt/upkeep/upkeep status -config /srv/speaker/upkeep.toml -json | grep -o '[^"]*may be lost[^"]*' || echo 'new connections were held off'; }
renew() { order "$@" -wait && warnings; }
dropped plain 8081 '' renew update -version v0.1.11
dropped admin 8081 'AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN' renew rollback

say 'upkeep updates itself: to versions that are well on trial and fail in command, and to a good one'
systemctl daemon-reload
show systemctl start upkeep@speaker
until_ 'the service does not answer' tells 8081
# renews VERSION RESULT does that, and tells who runs then.
renews() {
	local before service
	before=$(mainpid upkeep@speaker)
	until_ 'the service does not tell who it is' tells 8081
	service=$(cat /tmp/answer)
	echo "$ /opt/upkeep/upkeep update -self -wait -version $1"
	/opt/upkeep/upkeep update -self -wait -version "$1" -config /srv/speaker/upkeep.toml
	until_ "no end of the update to $1" sh -c "/opt/upkeep/upkeep history -config /srv/speaker/upkeep.toml | grep -q 'self_update  *$2 .*$1'" || return
	/opt/upkeep/upkeep history -config /srv/speaker/upkeep.toml | grep self_update | head -n 1 | cut -c22-
	until_ 'not active' systemctl is-active upkeep@speaker
	until_ 'the service does not answer' tells 8081
	/opt/upkeep/upkeep status -v -config /srv/speaker/upkeep.toml | grep -o '^upkeep  *[^,]*'
	[ "$(mainpid upkeep@speaker)" = "$before" ] && echo 'main process unchanged' || echo 'the main process is another one'
	if [ "$(cat /tmp/answer)" = "$service" ]; then
		echo 'the process of the service is the same'
	else
		echo 'the service was started again'
		journalctl -q --no-pager -o cat -u upkeep@speaker | grep -E 'kind=(watchdog|crashed)|the service ended' | tail -n 2
	fi
	show systemctl show -p NRestarts -p ActiveState upkeep@speaker
}
renews v0.1.11 rolled_back
renews v0.1.12 rolled_back
renews v0.1.13 installed
show systemctl stop upkeep@speaker
pgrep -a 'speaker|upkeep' | grep -v unit-writer && fail 'processes are left' || echo 'no process is left'
kill "$world"
# As it was, for a user.
sed -i '/^\[discovery\]/,$d' /srv/speaker/upkeep.toml
cp --remove-destination /vm/upkeep /opt/upkeep/upkeep
cp --remove-destination /vm/speaker /srv/speaker/speaker
rm -rf /srv/speaker/upkeep-state
chown -R hello: /srv/speaker

say "The unit under a user's systemd, with the drop-in of docs/systemd.md"
rm -r /etc/systemd/system/upkeep@speaker.service.d /etc/systemd/system/upkeep@.service
systemctl daemon-reload
home=~hello/.config/systemd/user
mkdir -p "$home/upkeep@.service.d"
(cd /tmp && UPKEEP_UNIT_DIR=$home /vm/unit-writer -test.run TestUnitOfSystemd >/dev/null) || fail 'no unit'
cp /vm/user.conf "$home/upkeep@.service.d/"
printf '[Service]\nEnvironmentFile=/srv/speaker/env\n' >"$home/upkeep@speaker.service.d/more.conf"
chown -R hello: ~hello/.config
show loginctl enable-linger hello
until_ 'no manager of the user' systemctl is-active "user@$(id -u hello).service"
manager=(runuser -u hello -- env "XDG_RUNTIME_DIR=/run/user/$(id -u hello)" systemctl --user)
until_ 'no bus of the user' "${manager[@]}" daemon-reload
speaks 8081 3
