#!/bin/sh
# Customize hook of mmdebstrap for guests built from Debian packages. Run as
#   debian.sh ROOT
# with ROOT the unpacked guest. Leaves disk.qcow2, vmlinuz, initrd and packages.tsv beside ROOT.
set -eu
root=$1
out=$(dirname "$root")

# One static address per guest, matched by MAC in the seed's network-config; ifupdown's DHCP was
# both slower and not dependable.
chroot "$root" systemctl --quiet enable systemd-networkd.service

# Work that a guest living for minutes never needs; none of it touches what a cell measures.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer man-db.timer systemd-networkd-wait-online.service \
    systemd-timesyncd.service systemd-binfmt.service getty@tty1.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# The seed is the only data source there is, and the disk is one file system that fills it.
cat >"$root/etc/cloud/cloud.cfg.d/90-lab.cfg" <<'CFG'
datasource_list: [NoCloud]
growpart: {mode: off}
resize_rootfs: false
# For systemd-networkd; Debian 11's cloud-init would write for ifupdown, which it brings along.
system_info: {network: {renderers: [netplan]}}
# Of cloud-init's modules those that the seed uses; each other one costs seconds under emulation.
cloud_init_modules: [set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: []
cloud_final_modules: []
CFG

# Debian's policy lets neither cloud-init's generator write to /run nor cloud-init mount the seed in its own
# folder there. So systemd is told in advance what the generator would tell it, and mounts the seed first:
# cloud-init reads a seed where it finds it mounted.
if [ -n "${LAB_SELINUX-}" ]; then
    ln -s /usr/lib/systemd/system/cloud-init.target "$root/etc/systemd/system/multi-user.target.wants/"
    echo "LABEL=cidata /mnt iso9660 ro,x-systemd.before=cloud-init-local.service 0 0" >>"$root/etc/fstab"
fi

# AppArmor's allow-list for bubblewrap, where this AppArmor has one, out of a package whose other profiles would be
# loaded at every boot.
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

# Each lane brings its own host key; a key in the image would be shared by all.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
# systemd redoes what packages did at their installation (ldconfig, catalogs, users) unless these are new.
touch "$root/etc/.updated" "$root/var/.updated"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

chroot "$root" dpkg-query -W >"$out/packages.tsv"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"

# mmdebstrap keeps /proc, /sys and /dev mounted inside ROOT while hooks run; a plain bind mount, which
# does not take the mounts below with it, shows the tree without them.
mkdir "$out/view"
mount --bind "$root" "$out/view"
# Labels of a SELinux guest; without them it would label itself at its first boot and restart.
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
