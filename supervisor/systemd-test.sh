#!/usr/bin/env bash
# upkeep under a real systemd: process 1 of a container of its own (namespaces,
# a cgroup2 hierarchy, a Debian that debootstrap makes), with the unit that
# "upkeep init" writes. It needs root, Linux with cgroup2, debootstrap, unshare
# and nsenter, and takes a few minutes. What it prints is in docs/systemd.md.
#
#	supervisor/systemd-test.sh [SUITE]     # trixie (systemd 257) or bookworm (252)
#
# ROOT=FOLDER names a folder for the Debian, to use it again; otherwise a
# temporary one is made and removed.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-trixie}
work=$(mktemp -d)
chmod 711 "$work" # builds run as users of their own
root=${ROOT:-$work/root}
init= demo=

cleanup() {
	trap - EXIT
	exec 9>&- || true
	[ -z "$demo" ] || kill "$demo" 2>/dev/null || true
	[ -z "$demo" ] || wait "$demo" 2>/dev/null || true
	[ -z "$init" ] || kill -9 "$init" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

failed=0
say() { printf '\n## %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; failed=1; }
# inside DOES something in the container, and shows it.
inside() { nsenter -t "$init" -m -p -n -i -u -C -- "$@"; }
show() { printf '$ %s\n' "$*"; inside "$@" || fail "$* ended with $?"; }
# until DESCRIPTION COMMAND... waits for a condition.
until_() {
	local what=$1 n; shift
	for n in $(seq 120); do "$@" >/dev/null 2>&1 && return 0; sleep 0.3; done
	fail "$what"
	inside journalctl -q --no-pager -n 40 -o cat || true
	return 1
}
property() { inside systemctl show -P "$2" "$1"; }
mainpid() { property "$1" MainPID; }
answers() { inside bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n1 <&3"; }
# serving PORT TEXT is true when the service answers with the text.
serving() { answers "$1" 2>/dev/null | grep -q "$2"; }
is() { [ "$(property "$1" "$2")" = "$3" ]; }

say "Preparing $suite"
if [ ! -x "$root/usr/lib/systemd/systemd" ]; then
	debootstrap --variant=minbase --include=systemd,dbus "$suite" "$root" >"$work/debootstrap.log" 2>&1 ||
		{ tail -n 20 "$work/debootstrap.log"; exit 1; }
fi
export CGO_ENABLED=0
go build -trimpath -ldflags=-s -o "$work/upkeep" ./cmd/upkeep
go build -trimpath -o "$work/speaker" ./supervisor/testdata/speaker
go build -o "$work/upkeep-demo" ./cmd/upkeep-demo

cat >"$work/boot" <<'BOOT'
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/srv"
mount -t tmpfs tmpfs "$root/var/log" # no journal of an earlier run
mount -t tmpfs tmpfs "$root/etc/systemd/system"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
ip link set lo up 2>/dev/null || true
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd --system --log-target=console systemd.unit=basic.target >/dev/null 2>&1 </dev/null
BOOT
# A cgroup of its own, below this shell's, becomes the root of the container's.
at=$(awk '$(NF-2) == "cgroup2" { print $5; exit }' /proc/self/mountinfo)
[ -n "$at" ] || { at=$work/cgroup; mkdir "$at"; mount -t cgroup2 none "$at"; trap 'cleanup; umount "$at"' EXIT; }
group=$at/upkeep-systemd-test-$$
mkdir "$group"
(
	echo "$BASHPID" >"$group/cgroup.procs"
	exec unshare --mount --pid --cgroup --ipc --uts --net --fork --kill-child bash "$work/boot" "$root" 2>/dev/null
) &
outer=$!
remove_groups() { for _ in $(seq 50); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done; }
trap 'cleanup; remove_groups' EXIT
for _ in $(seq 100); do init=$(pgrep -P "$outer" || true); [ -n "$init" ] && break; sleep 0.1; done
[ -n "$init" ] || { echo "the container does not start"; exit 1; }
until_ "systemd does not start" inside systemctl is-active basic.target || exit 1
show systemctl --version | head -n 2
inside sysctl -q -w net.ipv4.ip_unprivileged_port_start=1024 2>/dev/null || true

say 'The world outside: a name server, a builder and a sample service with versions'
mkfifo "$work/orders"
nsenter -t "$init" -n "$work/upkeep-demo" -dir "$work/demo" <"$work/orders" >"$work/demo.log" 2>&1 &
demo=$!
exec 9>"$work/orders"
for _ in $(seq 3000); do grep -q 'Ctrl-C ends everything' "$work/demo.log" && break; sleep 0.1; done
grep -q 'Ctrl-C ends everything' "$work/demo.log" || { cat "$work/demo.log"; exit 1; }

say 'Setting a service up'
inside mkdir -p /opt/upkeep /srv/speaker
put() { inside sh -c "cat >'$2' && chmod $3 '$2'" <"$1"; }
put "$work/upkeep" /opt/upkeep/upkeep 755
put "$work/speaker" /srv/speaker/speaker 755
put "$work/demo/upkeep-base.toml" /tmp/base.toml 644
put "$work/demo/dns/anchor.keys" /tmp/anchor.keys 644
inside sed -i 's,^anchor = .*,anchor = "/tmp/anchor.keys",' /tmp/base.toml
inside useradd --system --no-create-home hello 2>/dev/null || true
show /opt/upkeep/upkeep init -config /tmp/base.toml -dir /srv/hello -user hello -listen 127.0.0.1:8300 -go "$(go env GOVERSION)" \
	-health http://127.0.0.1:8080/health example.org/hello@v1.0.0
inside chown -R hello: /srv/hello
inside sh -c 'cp -r /srv/hello/upkeep@.service /srv/hello/upkeep@hello.service.d /etc/systemd/system/ && systemctl daemon-reload'
show systemd-analyze verify --man=no upkeep@hello.service
show systemd-analyze security --no-pager upkeep@hello.service | tail -n 1

say 'Start: systemd waits until the service runs'
show systemctl start upkeep@hello
until_ 'the service does not answer' serving 8080 v1.0.0
until_ 'no status' is upkeep@hello StatusText 'hello v1.0.0 ok'
show systemctl show -p Type -p NotifyAccess -p ActiveState -p StatusText upkeep@hello
show sh -c 'cd /sys/fs/cgroup/system.slice/system-upkeep.slice/upkeep@hello.service && for d in . */; do echo "$d $(cat "$d/cgroup.procs" | while read -r p; do tr "\0" " " <"/proc/$p/cmdline" | cut -d" " -f1; done | tr "\n" " ")"; done'

say 'Reload: RELOADING and READY'
before=$(mainpid upkeep@hello)
show systemctl reload upkeep@hello
[ "$(mainpid upkeep@hello)" = "$before" ] || fail 'the main process changed'

say 'A new version of the service: the main process stays'
echo p >&9
until_ 'the new version is not known' inside sh -c '/opt/upkeep/upkeep plan -config /srv/hello/upkeep.toml | grep -q v1.0.1'
inside sh -c 'while :; do
	if bash -c "exec 3<>/dev/tcp/127.0.0.1/8080 && printf \"GET / HTTP/1.0\r\n\r\n\" >&3 && grep -q hello <&3" 2>/dev/null; then echo ok; else echo lost; fi; done' >"$work/loop" &
loop=$!
show /opt/upkeep/upkeep update -config /srv/hello/upkeep.toml -wait
kill "$loop" 2>/dev/null; wait "$loop" 2>/dev/null || true
printf 'requests during the update: %s answered, %s lost\n' "$(grep -c ok "$work/loop")" "$(grep -c lost "$work/loop" || true)"
until_ 'the new version does not answer' serving 8080 v1.0.1
until_ 'no status' is upkeep@hello StatusText 'hello v1.0.1 ok'
[ "$(mainpid upkeep@hello)" = "$before" ] && echo "main process unchanged, status: $(property upkeep@hello StatusText)" || fail 'the main process changed'

say 'SIGKILL of upkeep: the listening socket is kept by systemd, the service starts again'
printf 'descriptors kept: %s\n' "$(property upkeep@hello NFileDescriptorStore)"
inside sh -c "kill -9 $before"
until_ 'upkeep is not started again' sh -c "[ \"\$(nsenter -t $init -m -p -n -i -u -C systemctl show -P MainPID upkeep@hello)\" != $before ] && [ \"\$(nsenter -t $init -m -p -n -i -u -C systemctl show -P MainPID upkeep@hello)\" != 0 ]"
until_ 'the service does not answer' serving 8080 v1.0.1
until_ 'not active' is upkeep@hello ActiveState active
show systemctl show -p NRestarts -p ActiveState -p StatusText upkeep@hello

say "upkeep hangs: systemd's watchdog ends it"
inside sh -c 'printf "[Service]\nWatchdogSec=3\n" >/etc/systemd/system/upkeep@hello.service.d/watchdog.conf && systemctl daemon-reload && systemctl restart upkeep@hello'
until_ 'the service does not answer' serving 8080 v1.0.1
before=$(mainpid upkeep@hello)
inside sh -c "kill -STOP $before"
until_ 'the watchdog does not bite' sh -c "p=\$(nsenter -t $init -m -p -n -i -u -C systemctl show -P MainPID upkeep@hello); [ \"\$p\" != $before ] && [ \"\$p\" != 0 ]"
until_ 'the service does not answer' serving 8080 v1.0.1
show systemctl show -p NRestarts -p ActiveState upkeep@hello

say 'A service that speaks sd_notify, with a credential and an environment file'
inside sh -c 'cat >/srv/speaker/upkeep.toml' <<'TOML'
state = "upkeep-state"
[service]
path = "speaker"
[process]
notify = "ready"
watchdog = "2s"
restart = "always"
env = ["ADDR=127.0.0.1:8081"]
TOML
inside sh -c 'mkdir -p /etc/systemd/system/upkeep@speaker.service.d && echo FROM_FILE=passed >/srv/speaker/env && chown -R hello: /srv/speaker &&
	printf "[Service]\nUser=hello\nSetCredential=word:secret\nEnvironmentFile=/srv/speaker/env\n" >/etc/systemd/system/upkeep@speaker.service.d/service.conf && systemctl daemon-reload'
show systemctl start upkeep@speaker
before=$(mainpid upkeep@speaker)
until_ 'the service does not answer' serving 8081 speaker
show sh -c 'journalctl -q --no-pager -o cat -u upkeep@speaker | grep -E "^(found|credential|environment|control)"'

say 'It falls silent: its own watchdog, the main process stays'
service=$(answers 8081)
inside sh -c "kill -USR1 ${service#speaker }"
until_ 'the service is not started again' sh -c "s=\$(nsenter -t $init -m -p -n -i -u -C bash -c 'exec 3<>/dev/tcp/127.0.0.1/8081 && tail -n1 <&3') && [ -n \"\$s\" ] && [ \"\$s\" != '$service' ]"
[ "$(mainpid upkeep@speaker)" = "$before" ] && echo 'main process unchanged' || fail 'the main process changed'
inside journalctl -q --no-pager -o cat -u upkeep@speaker | grep -E 'falls silent|WATCHDOG|^found' | sed 's/^time=[^ ]* //' | tail -n 3 || fail 'the journal does not tell'

say 'SIGKILL of upkeep: what the service had kept is there again'
inside sh -c "kill -9 $before"
until_ 'not started again' sh -c "p=\$(nsenter -t $init -m -p -n -i -u -C systemctl show -P MainPID upkeep@speaker); [ \"\$p\" != $before ] && [ \"\$p\" != 0 ]"
until_ 'not active' is upkeep@speaker ActiveState active
until_ 'the service does not answer' serving 8081 speaker
inside journalctl -q --no-pager -o cat -u upkeep@speaker | grep -E '^found' | tail -n 1 | tee "$work/found" || true
grep -q 'kept by process' "$work/found" || fail 'the note is lost'

say 'Stop: nothing is left'
show systemctl stop upkeep@hello upkeep@speaker
left=$(inside sh -c 'for p in /proc/[0-9]*; do tr "\0" " " <"$p/cmdline" 2>/dev/null && echo; done | grep -E "^(speaker|/srv|/opt/upkeep|/bin/sleep)"' || true)
[ -z "$left" ] && echo 'no process is left' || fail "left are: $left"
inside sh -c '[ ! -e /sys/fs/cgroup/system.slice/system-upkeep.slice/upkeep@hello.service ]' && echo 'no control group is left' || fail 'a control group is left'
show systemctl show -p Result -p ExecMainStatus upkeep@hello upkeep@speaker

[ "$failed" = 0 ] && printf '\nAll of it held.\n' || { printf '\nSomething failed.\n'; exit 1; }
