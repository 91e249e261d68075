#!/bin/sh
# A disk with the traits of Fedora's or AlmaLinux's cloud image, of Debian's packages: see common.sh. For root only:
# nobody else may set SELinux's labels.
#
# TWIN_SYSTEM     whose traits it has, as cloud-init calls it: fedora or almalinux
# TWIN_RELEASE    the release of that
# TWIN_LOCKED     seconds for which another program holds dnf's lock after cloud-init's last stage, at first boot
#
# The partitions begin with 1 for GRUB and 2 the ESP. Fedora's image has 3 btrfs with the subvolumes boot, home, root and
# var, as kiwi makes it; AlmaLinux's has 3 XFS for /boot and 4 XFS for the root, as its kickstart file does.
# shellcheck source=tests/vm/recipes/common.sh
. "$(dirname "$0")/common.sh"
units=$root/etc/systemd/system
packaged=$root/usr/lib/systemd/system
files=$(dirname "$0")/fedora

# --- what Fedora's guest does when it boots -----------------------------------------------------------

{
    if [ "$TWIN_SYSTEM" = fedora ]; then
        echo "LABEL=fedora / btrfs subvol=root,compress=zstd:1 0 0"
        for volume in boot home var; do
            echo "LABEL=fedora /$volume btrfs subvol=$volume,compress=zstd:1 0 0"
        done
    else
        printf '%s\n' "LABEL=root / xfs defaults 0 0" "LABEL=boot /boot xfs defaults 0 0"
    fi
    echo "LABEL=EFI /boot/efi vfat umask=0077,shortname=winnt 0 2"
} >"$root/etc/fstab"
mkdir "$root/boot/efi"
# cloud-init is for that system: dnf, hostnamectl, and a network that NetworkManager sets up before its second stage.
cat >"$root/etc/cloud/cloud.cfg.d/90-twin.cfg" <<CFG
system_info:
  distro: $TWIN_SYSTEM
  network: {renderers: [network-manager]}
CFG
sed -e '/^Before=sysinit.target/d' -e 's/^After=networking.service/After=NetworkManager-wait-online.service/' \
    "$packaged/cloud-init-network.service" >"$units/cloud-init-network.service"
chroot "$root" systemctl --quiet enable NetworkManager.service NetworkManager-wait-online.service auditd.service
ln -s /dev/null "$units/systemd-networkd.service"
sed -i '/^KERNEL=="kvm"/s/MODE="0660"/MODE="0666"/' "$root/usr/lib/udev/rules.d/50-udev-default.rules"
rm -rf "$root/etc/update-motd.d"
printf '[zram0]\nzram-size = min(ram, 8192)\n' >"$root/usr/lib/systemd/zram-generator.conf"
chroot "$root" systemctl --quiet enable fstrim.timer
# Where packages put them: a unit in /etc cannot be masked.
printf '[Timer]\nOnBootSec=1\n[Install]\nWantedBy=timers.target\n' >"$packaged/dnf-makecache.timer"
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/dnf-makecache-ran\n' >"$packaged/dnf-makecache.service"
chroot "$root" systemctl --quiet enable dnf-makecache.timer

# --- dnf -------------------------------------------------------------------------------------------

for program in dnf rpm; do
    install -m 0755 "$files/$program" "$root/usr/bin/$program"
done
sed "s/TWIN_LOCKED/$TWIN_LOCKED/" "$files/twin-holds-dnf" >"$root/usr/local/sbin/twin-holds-dnf"
chmod 0755 "$root/usr/local/sbin/twin-holds-dnf"
cat >"$units/twin-holds-dnf.service" <<'UNIT'
[Unit]
Description=Something of the distribution's own that installs packages after the first boot
ConditionPathExists=!/var/lib/twin-held-dnf

[Service]
ExecStart=/usr/local/sbin/twin-holds-dnf

[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable twin-holds-dnf.service

forget_identity
# See images/recipes/debian.sh.
touch "$root/etc/.updated" "$root/var/.updated"
serve_packages bubblewrap
forget_packages
# Where the repository is, a test writes into the ESP: see ubuntu.sh.
ln -s /boot/efi/sources.list "$root/etc/apt/sources.list"

# --- SELinux ---------------------------------------------------------------------------------------

# Debian's policy under the name of Fedora's.
mv "$root/etc/selinux/default" "$root/etc/selinux/targeted"
mv "$root/var/lib/selinux/default" "$root/var/lib/selinux/targeted"
sed -i -e 's/^SELINUX=.*/SELINUX=enforcing/' -e 's/^SELINUXTYPE=.*/SELINUXTYPE=targeted/' "$root/etc/selinux/config"
cp "$files/twin.cil" "$root/twin.cil"
chroot "$root" semodule --noreload --priority=200 --install=twin.cil
rm "$root/twin.cil"

# --- its loaders -----------------------------------------------------------------------------------

# Where the kernel is for GRUB, how it finds the root, and the partitions after the ESP.
if [ "$TWIN_SYSTEM" = fedora ]; then
    filesystem=btrfs label=fedora folder=/boot arguments="root=LABEL=fedora rootflags=subvol=root" modules="btrfs zstd"
    table='start=208896, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=p.lxroot'
else
    filesystem=xfs label=boot folder="" arguments="root=LABEL=root net.ifnames=0" modules=xfs
    table='start=208896, size=1024M, name=boot
type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root'
fi
# Under emulation btrfs measures for half a minute which of its ways to compute checksums is the fastest, and udev
# waits meanwhile: hence the limit of time.
kernel=$(basename "$root"/boot/vmlinuz-*)
release=${kernel#vmlinuz-}
rm -f "$root"/boot/initrd.img-* "$root"/initrd.img* "$root"/vmlinuz*
chroot "$root" dracut --quiet --force --no-hostonly --zstd --add-drivers "$filesystem virtio_blk virtio_pci zram" \
    "/boot/initramfs-$release.img" "$release"
mkdir "$root/boot/grub2"
cat >"$root/boot/grub2/grub.cfg" <<CFG
set timeout=0
menuentry "Twin of $TWIN_SYSTEM $TWIN_RELEASE" {
    linux $folder/$kernel $arguments ro no_timer_check console=tty1 \
console=ttyS0,115200n8 security=selinux selinux=1 systemd.default_device_timeout_sec=600
    initrd $folder/initramfs-$release.img
}
CFG
# shellcheck disable=SC2086 # a list of words
make_loaders "search --set=root --label $label
set prefix=(\$root)$folder/grub2" 100M EFI $modules
{ echo "# repository"; head -c 499 /dev/zero | tr '\0' '#'; } >"$root/loader/sources.list"
chroot "$root" mcopy -i /loader/esp /loader/sources.list ::/sources.list
truncate -s 5G "$root/loader/disk"
chroot "$root" sfdisk --quiet /loader/disk <<TABLE
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=p.legacy
start=4096, size=204800, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=p.UEFI
$table
TABLE
mv "$root/loader" "$out/loader"

# --- the disk --------------------------------------------------------------------------------------

disk=$out/loader/disk
install_loader "$out/loader" "$disk"
put "$out/loader/esp" "$disk" 512 4096
tree=$out/tree
mkdir "$tree" "$tree/root"
# See images/recipes/debian.sh for the bind mount.
mount --bind "$root" "$tree/root"
chroot "$tree/root" setfiles /etc/selinux/targeted/contexts/files/file_contexts /
# The guest's own programs, with its own libraries: the host need not have them.
library=$root/usr/lib/x86_64-linux-gnu
own() {
    program=$root/usr/sbin/$1
    shift
    "$library/ld-linux-x86-64.so.2" --library-path "$library" "$program" "$@"
}

# with_labels FROM TO FILE...: copy files as they are. cp leaves out SELinux's labels.
with_labels() {
    from=$1 to=$2
    shift 2
    tar -C "$from" --xattrs --xattrs-include='*' -c "$@" |
        tar -C "$to" --numeric-owner --xattrs --xattrs-include='*' -x
}

# make_xfs LABEL FOLDER START SIZE: put a folder into the disk as a file system, in MiB. mkfs.xfs copies the labels of
# files only, not those of folders, so the host's kernel has to know XFS.
make_xfs() {
    truncate -s "$4M" "$out/loader/$1"
    own mkfs.xfs -q -L "$1" "$out/loader/$1"
    mount -o loop "$out/loader/$1" "$out/mounted"
    with_labels "$2" "$out/mounted" .
    umount "$out/mounted"
    dd if="$out/loader/$1" of="$disk" bs=1M seek="$3" conv=notrunc,sparse status=none
}

# Each file system has its own files, and an empty folder with the same label where another one is mounted.
mkdir "$out/covers" "$out/mounted"
with_labels "$root" "$out/covers" --no-recursion boot home var
mount --bind "$out/covers/boot" "$tree/root/boot"
if [ "$TWIN_SYSTEM" = fedora ]; then
    for volume in boot home var; do
        mkdir "$tree/$volume"
        mount --bind "$root/$volume" "$tree/$volume"
    done
    for volume in home var; do
        mount --bind "$out/covers/$volume" "$tree/root/$volume"
    done
    truncate -s "$((5 * 1024 - 102 - 1))M" "$out/loader/btrfs"
    own mkfs.btrfs --quiet --label fedora --compress zstd:1 --rootdir "$tree" \
        --subvol boot --subvol home --subvol root --subvol var "$out/loader/btrfs"
    for volume in home var; do
        umount "$tree/root/$volume"
    done
    for volume in boot home var; do
        umount "$tree/$volume"
    done
    dd if="$out/loader/btrfs" of="$disk" bs=1M seek=102 conv=notrunc,sparse status=none
else
    make_xfs boot "$root/boot" 102 1024
    make_xfs root "$tree/root" 1126 "$((5 * 1024 - 1126 - 1))"
fi
umount "$tree/root/boot" "$tree/root"
rm -r "$tree" "$out/covers" "$out/mounted"
finish "$disk"
