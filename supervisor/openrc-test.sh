#!/usr/bin/env bash
# The OpenRC script of docs/systemd.md, run by Debian's OpenRC in a container of
# its own (namespaces; OpenRC is not process 1 there). The scripts for FreeBSD and
# OpenBSD are only parsed. It needs root, debootstrap and unshare, and is not part
# of CI. What it printed is in docs/systemd.md.
#
#	supervisor/openrc-test.sh
#
# ROOT=FOLDER names a folder for the Debian, to use it again.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
root=${ROOT:-$work/root}
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# script NAME is the shell script in that part of the docs.
script() { awk -v name="## $1" '$0 == name { on = 1 } on && /^```$/ { exit } on && text { print } on && /^```sh$/ { text = 1 }' docs/systemd.md; }
for system in FreeBSD OpenBSD; do
	script "$system" >"$work/$system"
	[ -s "$work/$system" ] && sh -n "$work/$system" && echo "$system: the shell can read it"
done
[ -x "$root/sbin/openrc-run" ] || debootstrap --variant=minbase --include=openrc,procps bookworm "$root" >"$work/debootstrap.log" 2>&1 ||
	{ tail -n 20 "$work/debootstrap.log"; exit 1; }
mkdir "$work/files"
export CGO_ENABLED=0
go build -trimpath -ldflags=-s -o "$work/files/upkeep" ./cmd/upkeep
go build -trimpath -o "$work/files/speaker" ./supervisor/testdata/speaker
script OpenRC >"$work/files/upkeep.hello"
cat >"$work/files/run" <<'RUN'
set -u
failed=0
fail() { printf 'FAILED: %s\n' "$*"; failed=1; }
show() { printf '$ %s\n' "$*"; "$@" || fail "$* ended with $?"; }
until_() {
	local what=$1 n; shift
	for n in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
	fail "$what"
}
answer() { bash -c "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && tail -n1 <&3" 2>/dev/null; }
answers() { answer | grep '^speaker [0-9]' >/tmp/answer; }
other() { answers && [ "$(cat /tmp/answer)" != "$1" ]; }
upkeep() { pgrep -o -f '^/opt/upkeep/upkeep run'; }
changed() { [ -n "$(upkeep)" ] && [ "$(upkeep)" != "$1" ]; }

useradd --system hello 2>/dev/null
mkdir -p /opt/upkeep /srv/hello /run/openrc/{daemons,exclusive,failed,hotplugged,inactive,options,scheduled,started,starting,stopping,tmp,wasinactive}
touch /run/openrc/softlevel
cp /files/upkeep /opt/upkeep/upkeep
cp /files/speaker /srv/hello/hello
printf 'state = "upkeep-state"\n[service]\npath = "hello"\n[process]\nrestart = "always"\nenv = ["ADDR=127.0.0.1:8081"]\n' >/srv/hello/upkeep.toml
chown -R hello: /srv/hello
install -m 755 /files/upkeep.hello /etc/init.d/upkeep.hello
# Somebody has to be the network here.
printf '#!/sbin/openrc-run\ndepend() {\n\tprovide net\n}\nstart() {\n\t:\n}\n' >/etc/init.d/net.container
chmod 755 /etc/init.d/net.container

openrc --version
show rc-service upkeep.hello start
until_ 'the service does not answer' answers
show rc-service upkeep.hello status
printf 'user and umask: %s %s\n' "$(ps -o user= -p "$(upkeep)")" "$(awk '/^Umask/ { print $2 }' "/proc/$(upkeep)/status")"
before=$(upkeep) service=$(cat /tmp/answer)
show rc-service upkeep.hello reload
until_ 'the configuration is not read again' grep -q 'configuration' /var/log/upkeep.hello.log
grep configuration /var/log/upkeep.hello.log | tail -n 1 | sed 's/^time=[^ ]* //'
answers
[ "$(upkeep)" = "$before" ] && [ "$(cat /tmp/answer)" = "$service" ] && echo 'process of upkeep and service unchanged' || fail 'a process changed'
echo '# SIGKILL of upkeep'
kill -9 "$before"
until_ 'upkeep is not started again' changed "$before"
until_ 'the service does not answer' other "$service"
show rc-service upkeep.hello status
[ "$(pgrep -c -x hello)" = 1 ] && echo 'one process of the service' || fail 'more than one'
show rc-service upkeep.hello stop
pgrep -a 'upkeep|hello' && fail 'processes are left' || echo 'no process is left'
[ $failed = 0 ] && echo 'All of it held.'
exit $failed
RUN
unshare --mount --pid --net --ipc --uts --fork --kill-child bash -c '
set -e
mount --make-rprivate /
mkdir -p "$1/files"
mount --bind "$2" "$1/files"
for d in run tmp srv opt var/log etc/init.d; do
	[ $d = etc/init.d ] && cp -a "$1/$d" "$2/init.d"
	mount -t tmpfs tmpfs "$1/$d"
done
cp -a "$2/init.d/." "$1/etc/init.d/"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
ip link set lo up
exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash /files/run' - "$root" "$work/files"
