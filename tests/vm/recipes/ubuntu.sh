#!/bin/sh
# A disk with the traits of Ubuntu's cloud images, of Debian's packages: see common.sh.
#
# TWIN_RELEASE    whose traits it has
# TWIN_SEEDED     seconds for which snapd seems to be seeded while the guest boots
# TWIN_LOCKED     seconds for which another program holds apt's locks after cloud-init's last stage, at first boot
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
# Debian ships it in complain mode.
sed -i 's/^\(profile unprivileged_userns\) flags=(complain) /\1 /' "$root/etc/apparmor.d/unprivileged_userns"
grep -q '^profile unprivileged_userns {' "$root/etc/apparmor.d/unprivileged_userns"

forget_identity
serve_packages bubblewrap apparmor-profiles
forget_packages
# Where the repository is, a test writes into the ESP: the one place that every twin has uncompressed.
ln -s /boot/efi/sources.list "$root/etc/apt/sources.list"

# --- its loaders -----------------------------------------------------------------------------------

kernel=$(basename "$root"/boot/vmlinuz-*)
mkdir "$root/boot/grub" "$root/boot/efi"
cat >"$root/boot/grub/grub.cfg" <<CFG
set timeout=0
menuentry "Twin of Ubuntu $TWIN_RELEASE" {
    linux /$kernel root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0
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
