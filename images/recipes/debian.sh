#!/bin/sh
# Customize hook of mmdebstrap for guests built from Debian packages. Run as
#   debian.sh ROOT
# where ROOT is the unpacked guest. Writes disk.qcow2, vmlinuz, initrd and packages.tsv beside ROOT.
set -eu
root=$1
out=$(dirname "$root")

# Each guest has the same static address (lab/machine/seed.py), so it is in the image: cloud-init and netplan would
# write the same file at each boot and have systemd read all of its units again. ifupdown's DHCP was slower and
# unreliable.
cat >"$root/etc/systemd/network/10-lab.network" <<'NETWORK'
[Match]
MACAddress=52:54:00:1a:b0:01

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
IPv6AcceptRA=no
NETWORK
chroot "$root" systemctl --quiet enable systemd-networkd.service

# Disable services that a guest with a life of minutes does not need and that do not affect a cell's result.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer man-db.timer systemd-networkd-wait-online.service \
    systemd-timesyncd.service systemd-binfmt.service getty@tty1.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# The seed is the only data source, and the file system already fills the disk.
cat >"$root/etc/cloud/cloud.cfg.d/90-lab.cfg" <<'CFG'
datasource_list: [NoCloud]
growpart: {mode: off}
resize_rootfs: false
network: {config: disabled}
# Only the modules that the seed uses; each additional one costs seconds under emulation.
cloud_init_modules: [set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: []
cloud_final_modules: []
CFG

# Generators run at boot and each time systemd reads its units again. cloud-init's looks for a data source and enables
# a target; so enable that target. That of OpenSSH only loads the modules of AF_VSOCK.
ln -s /usr/lib/systemd/system/cloud-init.target "$root/etc/systemd/system/multi-user.target.wants/"
mkdir -p "$root/etc/systemd/system-generators"
for generator in cloud-init-generator systemd-ssh-generator; do
    ln -s /dev/null "$root/etc/systemd/system-generators/$generator"
done

# Debian's SELinux policy does not let cloud-init mount the seed in /run. So let systemd mount it before cloud-init
# starts: cloud-init reads a seed that is already mounted.
if [ -n "${LAB_SELINUX-}" ]; then
    echo "LABEL=cidata /mnt iso9660 ro,x-systemd.before=cloud-init-local.service 0 0" >>"$root/etc/fstab"
fi

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
