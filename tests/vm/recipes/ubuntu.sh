#!/bin/sh
# A disk with the traits of Ubuntu's cloud images, of Debian's packages: see common.sh.
#
# TWIN_RELEASE    whose traits it has: 24.04, or 26.04 with those that came later
# TWIN_SEEDED     seconds for which snapd seems to be seeded while the guest boots
# TWIN_LOCKED     seconds for which another program holds apt's locks after cloud-init's last stage, at first boot
# TWIN_OS_RELEASE its /etc/os-release; not set, Debian's stays
# TWIN_ARGUMENTS  more arguments of its kernel; not set, it has none
#
# The partitions are those that livecd-rootfs makes: 14 for GRUB, 15 the ESP, 16 /boot, and the root with number 1
# is the last on the disk.
# shellcheck source=tests/vm/recipes/common.sh
. "$(dirname "$0")/common.sh"
units=$root/etc/systemd/system
packaged=$root/usr/lib/systemd/system

# --- what Ubuntu's guest does when it boots -----------------------------------------------------------

chroot "$root" systemctl --quiet enable systemd-networkd.service ssh.socket
chroot "$root" systemctl --quiet disable ssh.service
cat >"$root/etc/fstab" <<'FSTAB'
LABEL=cloudimg-rootfs / ext4 discard,commit=30,errors=remount-ro 0 1
LABEL=BOOT /boot ext4 defaults 0 2
LABEL=UEFI /boot/efi vfat umask=0077 0 1
FSTAB
# This is not Ubuntu's: a busy host without KVM may take longer than systemd's 90 s to show /boot's partition.
mkdir -p "$root/etc/systemd/system.conf.d"
printf '[Manager]\nDefaultDeviceTimeoutSec=15min\n' >"$root/etc/systemd/system.conf.d/slow.conf"
printf 'apt: {preserve_sources_list: true}\n' >"$root/etc/cloud/cloud.cfg.d/90-sources.cfg"
# cloud-init ends after everything else, and everything else waits for snapd.
for stage in cloud-config cloud-final; do
    mkdir -p "$units/$stage.service.d"
done
printf '[Unit]\nAfter=snapd.seeded.service\n' >"$units/cloud-config.service.d/twin.conf"
printf '[Unit]\nAfter=multi-user.target\n' >"$units/cloud-final.service.d/twin.conf"
cat >"$units/snapd.seeded.service" <<UNIT
[Unit]
Description=Wait until snapd is fully seeded (in the twin: for some seconds)

[Service]
Type=oneshot
ExecStart=/usr/bin/sleep $TWIN_SEEDED
RemainAfterExit=true

[Install]
WantedBy=multi-user.target cloud-final.service
UNIT
cat >"$root/usr/local/sbin/twin-holds-apt" <<PROGRAM
#!/usr/bin/python3
"""Hold apt's and dpkg's locks, as unattended-upgrades may, for some time after cloud-init's last stage."""
import fcntl, pathlib, time
held = [open(path, "w") for path in ("/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend")]
for file in held:
    fcntl.lockf(file, fcntl.LOCK_EX)
while not pathlib.Path("/run/cloud-init/result.json").exists():
    time.sleep(0.2)
time.sleep($TWIN_LOCKED)
pathlib.Path("/var/lib/twin-held-apt").touch()
PROGRAM
chmod 0755 "$root/usr/local/sbin/twin-holds-apt"
cat >"$units/twin-holds-apt.service" <<'UNIT'
[Unit]
Description=Something of the distribution's own that installs packages after the first boot
ConditionPathExists=!/var/lib/twin-held-apt

[Service]
ExecStart=/usr/local/sbin/twin-holds-apt

[Install]
WantedBy=multi-user.target
UNIT
# Of packages that Ubuntu has and Debian has not, or that only bring them. Where packages put them: a unit in /etc
# cannot be masked.
for name in fwupd-refresh man-db motd-news; do
    printf '[Timer]\nOnBootSec=1\n[Install]\nWantedBy=timers.target\n' >"$packaged/$name.timer"
    printf '[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/%s-ran\n' "$name" >"$packaged/$name.service"
done
chroot "$root" systemctl --quiet enable snapd.seeded.service twin-holds-apt.service \
    fwupd-refresh.timer man-db.timer motd-news.timer
# Runs at each login.
mkdir -p "$root/etc/update-motd.d"
cat >"$root/etc/update-motd.d/50-landscape-sysinfo" <<'PROGRAM'
#!/usr/bin/python3
import json, pathlib, subprocess
pathlib.Path("/run/update-motd-ran").touch()
subprocess.run(["sleep", "2"], check=True)
PROGRAM
chmod 0755 "$root/etc/update-motd.d/50-landscape-sysinfo"
[ -z "${TWIN_OS_RELEASE-}" ] || {
    rm -f "$root/etc/os-release"
    printf '%s\n' "$TWIN_OS_RELEASE" >"$root/etc/os-release"
}
# Debian ships it in complain mode.
sed -i 's/^\(profile unprivileged_userns\) flags=(complain) /\1 /' "$root/etc/apparmor.d/unprivileged_userns"
grep -q '^profile unprivileged_userns {' "$root/etc/apparmor.d/unprivileged_userns"

# --- what came later than 24.04 -----------------------------------------------------------------------

# The profile for bubblewrap is loaded. Debian has it in a package whose other profiles would be loaded, too.
load_profile() {
    dpkg-deb --fsys-tarfile "$out"/repository/pool/apparmor-profiles_*.deb |
        tar -xO ./usr/share/apparmor/extra-profiles/bwrap-userns-restrict >"$root/etc/apparmor.d/bwrap-userns-restrict"
}

# The kernel stacks the profile that an unconfined program asks for.
restrict_unconfined() {
    echo 'kernel.apparmor_restrict_unprivileged_unconfined = 1' >"$root/usr/lib/sysctl.d/10-apparmor.conf"
}

# sudo is sudo-rs by Debian's alternatives, and the older one has another name.
use_sudo_rs() {
    chroot "$root" dpkg-divert --quiet --local --rename --divert /usr/bin/sudo.ws --add /usr/bin/sudo
    chroot "$root" update-alternatives --quiet --install /usr/bin/sudo sudo /usr/lib/cargo/bin/sudo 50
}

# The programs of coreutils are links to those in Rust, except cp, mv and rm; GNU's have names that begin with gnu.
use_rust_coreutils() {
    chroot "$root" dpkg -L coreutils | sed -n 's|^/usr/bin/||p; s|^/bin/||p' | while read -r name; do
        rust=/usr/lib/cargo/bin/coreutils/$name
        case $name in cp | mv | rm) continue ;; esac
        [ -L "$root$rust" ] || continue
        mv "$root/usr/bin/$name" "$root/usr/bin/gnu$name"
        ln -s "$rust" "$root/usr/bin/$name"
    done
}

forget_identity
serve_packages bubblewrap apparmor-profiles
if [ "$TWIN_RELEASE" = 26.04 ]; then
    load_profile
    restrict_unconfined
    use_sudo_rs
    use_rust_coreutils
fi
forget_packages
# Where the repository is, a test writes into the ESP: the one place that every twin has uncompressed.
ln -s /boot/efi/sources.list "$root/etc/apt/sources.list"

# --- its loaders -----------------------------------------------------------------------------------

kernel=$(basename "$root"/boot/vmlinuz-*)
mkdir "$root/boot/grub" "$root/boot/efi"
cat >"$root/boot/grub/grub.cfg" <<CFG
set timeout=0
menuentry "Twin of Ubuntu $TWIN_RELEASE" {
    linux /$kernel root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0 ${TWIN_ARGUMENTS-}
    initrd /initrd.img-${kernel#vmlinuz-}
}
CFG
make_loaders "search --set=root --label BOOT
set prefix=(\$root)/grub" 106M UEFI ext2
{ echo "# repository"; head -c 499 /dev/zero | tr '\0' '#'; } >"$root/loader/sources.list"
chroot "$root" mcopy -i /loader/esp /loader/sources.list ::/sources.list
truncate -s 3584M "$root/loader/disk"
chroot "$root" sgdisk --new=14::+4M --new=15::+106M --new=16::+913M --new=1: \
    --typecode=14:ef02 --typecode=15:ef00 --typecode=16:ea00 /loader/disk >/dev/null
mv "$root/loader" "$out/loader"
mv "$root/boot" "$out/loader/boot"
mkdir "$root/boot"

# --- the disk --------------------------------------------------------------------------------------

disk=$out/loader/disk
install_loader "$out/loader" "$disk"
put "$out/loader/esp" "$disk" 512 10240
mke2fs -q -t ext4 -L BOOT -d "$out/loader/boot" "$out/loader/boot.ext4" 913M
put "$out/loader/boot.ext4" "$disk" 1M 111
mkdir "$out/view"
mount --bind "$root" "$out/view"
mke2fs -q -t ext4 -L cloudimg-rootfs -E "lazy_itable_init=1,offset=$((1024 << 20))" -d "$out/view" "$disk" 2559M
umount "$out/view"
rmdir "$out/view"
finish "$disk"
