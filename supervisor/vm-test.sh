#!/usr/bin/env bash
# The tests that depend on the kernel and on systemd as process 1, in a virtual
# machine: Debian's kernel and a Debian that debootstrap makes, under qemu. It
# needs root, debootstrap, qemu-system-x86_64 and e2fsprogs. The machine is
# emulated, which takes some minutes; KVM=yes is faster where that works. It is
# not part of CI. What it printed is in docs/systemd.md.
#
#	supervisor/vm-test.sh [SUITE [FLAVOUR]]   # bookworm or trixie, …; cloud-amd64 or amd64
#
# ROOT=FOLDER names a folder for the Debian, to use it again. TESTS=FILE names
# another list of tests than supervisor/vm-tests.txt; UNIT=no leaves the unit
# (vm-unit.sh) out.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-bookworm}
flavour=${2:-cloud-amd64}
tests=${TESTS:-supervisor/vm-tests.txt}
work=$(mktemp -d)
root=${ROOT:-$work/root}
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

say() { printf '\n## %s\n' "$*"; }

say "A Debian $suite"
if [ ! -x "$root/usr/lib/systemd/systemd" ] || [ ! -x "$root/usr/bin/busybox" ]; then
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,busybox-static,kmod,iproute2,bubblewrap,procps "$suite" "$root" >"$work/debootstrap.log" 2>&1 ||
		{ tail -n 20 "$work/debootstrap.log"; exit 1; }
fi
# The kernel's package is only unpacked: it needs no boot loader here.
kernel=$root/var/cache/upkeep-kernel-$flavour
if [ ! -d "$kernel" ]; then
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	package=$(chroot "$root" apt-cache depends "linux-image-$flavour" | awk '/Depends: linux-image/ { print $2; exit }')
	chroot "$root" sh -c "cd /tmp && apt-get download -qq $package"
	dpkg-deb -x "$root"/tmp/linux-image-*.deb "$kernel.new"
	rm "$root"/tmp/linux-image-*.deb
	mv "$kernel.new" "$kernel"
fi
lib=$kernel
[ -d "$kernel/usr/lib/modules" ] && lib=$kernel/usr
version=$(ls "$lib/lib/modules")
[ -e "$lib/lib/modules/$version/modules.dep" ] || chroot "$root" depmod -b "${lib#"$root"}" "$version"
echo "Linux $version"

say 'What starts it: a busybox, and the modules of the disk'
initrd=$work/initrd
mkdir -p "$initrd"/{bin,proc,sys,dev,root,modules}
cp "$root/usr/bin/busybox" "$initrd/bin/"
n=0
for module in virtio_pci virtio_blk ext4 crc32c_generic; do
	while read -r verb file _; do
		[ "$verb" = insmod ] || continue
		n=$((n + 1))
		name=$(printf '%02d-%s' "$n" "$(basename "$file")")
		cp "$root$file" "$initrd/modules/$name"
		case $name in *.xz) xz -d "$initrd/modules/$name" ;; esac
	done < <(chroot "$root" modprobe -d "${lib#"$root"}" -S "$version" --show-depends "$module" 2>/dev/null || true)
done
cat >"$initrd/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for m in /modules/*; do insmod "$m" 2>/dev/null; done
n=0
until [ -b /dev/vdb ] || [ $n = 100 ]; do n=$((n + 1)); sleep 0.1; done
mount -t ext4 /dev/vda /root || exec sh
mkdir -p /root/vm /root/lib/modules
mount -t ext4 /dev/vdb /root/vm
mount --bind /root/vm/modules /root/lib/modules
cp -r /root/vm/etc/. /root/etc/
exec switch_root /root /lib/systemd/systemd --log-target=null
INIT
chmod 755 "$initrd/init"
(cd "$initrd" && find . | "$root/usr/bin/busybox" cpio -o -H newc) >"$work/initrd.cpio"

say 'The tests'
export CGO_ENABLED=0
disk=$work/disk
mkdir -p "$disk/etc/systemd/system/multi-user.target.wants" "$disk/tests"
cp -r "$lib/lib/modules" "$disk/modules"
n=0
while read -r package pattern settings; do
	case $package in '' | '#'*) continue ;; esac
	n=$((n + 1))
	dir=$disk/tests/$(printf '%02d' "$n")
	mkdir "$dir"
	go test -c -trimpath -ldflags=-s -o "$dir/test" "$package"
	src=$(go list -f '{{.Dir}}' "$package")
	[ ! -d "$src/testdata" ] || cp -r "$src/testdata" "$dir/"
	printf '%s\n' "$package" >"$dir/package"
	printf '%s\n' "$pattern" >"$dir/pattern"
	printf '%s\n' "$settings" >"$dir/settings"
	echo "$package $pattern $settings"
done <"$tests"
if [ "${UNIT:-yes}" = yes ]; then
	cp supervisor/vm-unit.sh "$disk/unit"
	awk '/^```ini$/ { on = 1; next } /^```$/ { on = 0 } on' docs/systemd.md >"$disk/user.conf"
	go build -trimpath -ldflags=-s -o "$disk/upkeep" ./cmd/upkeep
	go build -trimpath -ldflags=-s -o "$disk/speaker" ./supervisor/testdata/speaker
	go test -c -trimpath -ldflags=-s -o "$disk/unit-writer" ./cmd/upkeep
	# Programs that take the place of one another there; the versions are given them there.
	world=$disk/world
	release() { go build -trimpath -buildvcs=false -overlay "$work/overlay" -ldflags="-s -X main.behaviour=$3" -o "$world/$1@$2" "./$1"; }
	printf '{"Replace": {"%s": "%s"}}' "$PWD/cmd/upkeep/bad.go" "$PWD/supervisor/testdata/badupkeep/bad.go" >"$work/overlay"
	release cmd/upkeep v0.1.10 ''
	release cmd/upkeep v0.1.11 exits
	release cmd/upkeep v0.1.12 hangs
	cp "$world/cmd/upkeep@v0.1.10" "$world/cmd/upkeep@v0.1.13"
	release supervisor/testdata/speaker v0.1.10 ''
	cp "$world/supervisor/testdata/speaker@v0.1.10" "$world/supervisor/testdata/speaker@v0.1.11"
fi
cat >"$disk/run" <<'RUN'
#!/bin/bash
# One line for each test of a list, what failed or was left out, and the end.
cat /proc/cpuinfo | grep -m1 'model name' | sed 's/.*: /processor: /'
uname -srm
systemctl --version | head -n 1
cd /
failed=0
for dir in /vm/tests/*; do
	[ -d "$dir" ] || continue # the list is empty
	settings=$(cat "$dir/settings") pattern=$(cat "$dir/pattern") user=root delegate=no env=()
	args=(-test.v "-test.run=$pattern" -test.timeout=20m)
	for s in $settings; do
		case $s in
		USER=*) user=${s#*=} ;;
		DELEGATE=*) delegate=${s#*=} ;;
		SKIP=*) args+=("-test.skip=${s#*=}") ;;
		*) env+=("--setenv=$s") ;;
		esac
	done
	cp -r "$dir" /tmp/test # what is tested may want to write beside itself
	chmod -R a+rwX /tmp/test
	printf '\n# %s, tests %s%s\n' "$(cat "$dir/package")" "$pattern" "${settings:+, $settings}"
	systemd-run -q --wait --pipe --collect --uid="$user" -p Delegate="$delegate" -p WorkingDirectory=/tmp/test \
		--setenv=HOME=/tmp --setenv=PATH=/usr/sbin:/usr/bin:/sbin:/bin "${env[@]}" /tmp/test/test "${args[@]}" >/tmp/out 2>&1 </dev/null
	status=$?
	grep -E '^--- (FAIL|SKIP)' -A 3 /tmp/out | grep -vE '^(--- PASS|=== )' | head -n 60
	printf '%s passed, %s skipped, %s failed; status %s\n' "$(grep -c '^--- PASS' /tmp/out)" "$(grep -c '^--- SKIP' /tmp/out)" "$(grep -c '^--- FAIL' /tmp/out)" "$status"
	[ "$status" = 0 ] || { failed=1; tail -n 40 /tmp/out; }
	rm -rf /tmp/test
done
[ ! -e /vm/unit ] || . /vm/unit
echo
[ "$failed" = 0 ] && echo 'All of it held.' || echo 'Something failed.'
systemctl --force --force poweroff
RUN
chmod 755 "$disk/run"
cat >"$disk/etc/systemd/system/vm-test.service" <<'UNIT'
[Unit]
After=basic.target systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/vm/run
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
UNIT
ln -s ../vm-test.service "$disk/etc/systemd/system/multi-user.target.wants/"
image() { truncate -s "$3" "$1" && mkfs.ext4 -q -F -d "$2" "$1"; }
image "$work/disk.img" "$disk" "$(($(du -sm "$disk" | cut -f1) * 5 / 4 + 64))M"
image "$work/root.img" "$root" "$(($(du -sm "$root" | cut -f1) * 5 / 4 + 512))M"

accel=tcg
[ "${KVM:-no}" = no ] || accel=kvm
say "The machine ($accel)"
# qemu 7.2 gets cmpxchg16b wrong when it emulates: newer kernels panic.
qemu-system-x86_64 -accel "$accel" -cpu max,-cx16 -smp 2 -m 2048 -nographic -no-reboot -nic none -monitor none -serial stdio \
	-kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initrd.cpio" \
	-append 'console=ttyS0 no_timer_check quiet loglevel=3 panic=-1 systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service' \
	-drive "file=$work/root.img,if=virtio,format=raw" -drive "file=$work/disk.img,if=virtio,format=raw" </dev/null |
	sed -u -e 's/\r//g' -e 's/\x1b[^a-zA-Z]*[a-zA-Z]//g' -e '/SeaBIOS/d' -e 's/^.*Booting from ROM[.c]*//' | tee "$work/console"
grep -q 'All of it held' "$work/console"
