#!/bin/sh
# Customize hook of mmdebstrap for guests built from Debian packages. Run as
#   debian.sh ROOT
# where ROOT is the unpacked guest. Writes disk.qcow2, vmlinuz, initrd and packages.tsv beside ROOT.
set -eu
root=$1
out=$(dirname "$root")

# Each guest has the same static address (lab/machine/seed.py), so it is in the image. ifupdown's DHCP was slower and
# unreliable.
cat >"$root/etc/systemd/network/10-lab.network" <<'NETWORK'
[Match]
MACAddress=52:54:00:1a:b0:01

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
NETWORK
chroot "$root" systemctl --quiet enable systemd-networkd.service

# Units that never run: debian-packages.toml has the reasons.
for unit in ${LAB_MASKED-}; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# The administrator, and the ordinary user who runs the suite and may use /dev/kvm, as boxlite's documentation asks.
chroot "$root" useradd --create-home --shell /bin/bash lab
chroot "$root" useradd --create-home --shell /bin/bash --groups kvm tester
echo 'lab ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/90-lab"
chmod 0440 "$root/etc/sudoers.d/90-lab"
cat >"$root/etc/ssh/sshd_config.d/90-lab.conf" <<'CONF'
PasswordAuthentication no
CONF

# What is a lane's own comes with its seed: its keys and its name. SSH waits for that, for the network, without which a
# first connection would be lost, and for the end of the boot, before which PAM lets no ordinary user in.
cat >"$root/etc/systemd/system/lab-seed.service" <<'UNIT'
[Unit]
Description=The lane's own keys and name

[Service]
Type=oneshot
ExecStart=/bin/sh -ec 'mount -t iso9660 -o ro LABEL=cidata /mnt; sh /mnt/seed.sh; umount /mnt'
StandardOutput=journal+console
UNIT
mkdir "$root/etc/systemd/system/ssh.service.d"
cat >"$root/etc/systemd/system/ssh.service.d/lab.conf" <<'UNIT'
[Unit]
Requires=lab-seed.service
Wants=systemd-networkd-wait-online.service
After=lab-seed.service systemd-user-sessions.service systemd-networkd-wait-online.service
UNIT

# A generator runs at boot and each time systemd reads its units again. That of OpenSSH only loads the modules of AF_VSOCK.
mkdir -p "$root/etc/systemd/system-generators"
ln -s /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"

# Install AppArmor's allow-list for bubblewrap if this release has it, but not its package, whose other profiles
# would be loaded at every boot.
allow_list=usr/share/apparmor/extra-profiles/bwrap-userns-restrict
mkdir "$out/profiles"
(
    cd "$out/profiles"
    APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --quiet=2 download apparmor-profiles
    dpkg-deb --extract apparmor-profiles_*.deb .
)
if [ -e "$out/profiles/$allow_list" ]; then
    install -D --mode=0644 "$out/profiles/$allow_list" "$root/$allow_list"
fi
rm -r "$out/profiles"

# Compile AppArmor's profiles, which an emulated guest would do for 3 to 7 s at each boot. What a kernel mediates is in
# the directory .features of its guest's cache; a kernel that mediates something else compiles them again.
version=$(basename "$root"/boot/vmlinuz-* | sed 's/^vmlinuz-\([0-9]*\.[0-9]*\).*/\1/')
if [ -e "$(dirname "$0")/apparmor/$version" ] && [ -z "${LAB_SELINUX-}" ]; then
    cp "$(dirname "$0")/apparmor/$version" "$root/tmp/features"
    chroot "$root" apparmor_parser --quiet --write-cache --skip-kernel-load --kernel-features /tmp/features /etc/apparmor.d
    rm "$root/tmp/features"
fi

# Each lane has its own host key; all guests would share a key in the image.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
# If these files are old, systemd repeats at boot what the packages did at installation (ldconfig, catalogs, users).
touch "$root/etc/.updated" "$root/var/.updated"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

# The initial RAM disk, of initramfs-tools in every release, finds one disk by its label. It is a quarter as large
# without udev, whose hardware database alone has 13 MB, and without modules for other disks.
find "$root/usr/share/initramfs-tools" \( -name udev -o -name resume \) -delete
cat >"$root/etc/initramfs-tools/conf.d/lab" <<'CONF'
MODULES=list
COMPRESS=gzip
CONF
printf '%s\n' virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
cat >"$root/etc/initramfs-tools/hooks/lab" <<'HOOK'
#!/bin/sh
test "$1" != prereqs || exit 0
. /usr/share/initramfs-tools/hook-functions
copy_exec /sbin/blkid /sbin
HOOK
# What is left of udev's part: the guest's first process finds the devices in its /dev.
cat >"$root/etc/initramfs-tools/scripts/init-bottom/lab" <<'SCRIPT'
#!/bin/sh
test "$1" != prereqs || exit 0
mount -n -o move /dev "${rootmnt:?}/dev"
SCRIPT
chmod +x "$root/etc/initramfs-tools/hooks/lab" "$root/etc/initramfs-tools/scripts/init-bottom/lab"
chroot "$root" update-initramfs -c -k all

chroot "$root" dpkg-query -W >"$out/packages.tsv"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"

# mmdebstrap keeps /proc, /sys and /dev mounted inside ROOT while hooks run. A plain bind mount does not include
# these mounts.
mkdir "$out/view"
mount --bind "$root" "$out/view"
# Label the files of an SELinux guest; otherwise it would label them at its first boot and restart.
if [ -n "${LAB_SELINUX-}" ]; then
    chroot "$out/view" setfiles "/etc/selinux/$LAB_SELINUX/contexts/files/file_contexts" /
fi
truncate -s "${LAB_DISK_SIZE:-6G}" "$out/disk.raw"
mke2fs -q -t ext4 -L root -E lazy_itable_init=1 -d "$out/view" "$out/disk.raw"
umount "$out/view"
rmdir "$out/view"
qemu-img convert -O qcow2 -c -o compression_type=zstd "$out/disk.raw" "$out/disk.qcow2"
rm -f "$out/disk.raw"
chmod 0644 "$out/disk.qcow2" "$out/vmlinuz" "$out/initrd" "$out/packages.tsv"
