#!/bin/sh
# A small disk as distributions publish them for clouds: see common.sh.
#
# GPT, and a loader for both firmwares, or for UEFI alone on arm64. In sectors of 512 bytes:
#   2048  GRUB for BIOS, in a partition of its own   4096  the ESP, with GRUB for UEFI   69632  the root, last
# shellcheck source=tests/vm/recipes/common.sh
. "$(dirname "$0")/common.sh"
label=root

# --- the guest ------------------------------------------------------------------------------------

chroot "$root" systemctl --quiet enable systemd-networkd.service
printf 'LABEL=%s / ext4 defaults 0 1\n' "$label" >"$root/etc/fstab"
# cloud-init would write the sources that its own defaults name.
printf 'apt: {preserve_sources_list: true}\n' >"$root/etc/cloud/cloud.cfg.d/90-sources.cfg"
forget_identity
serve_packages bubblewrap apparmor-profiles
forget_packages

# --- its loaders -----------------------------------------------------------------------------------

# arm64 disks say the same: there the firmware's tables name the console (SPCR), and the kernel takes that, too.
mkdir "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<CFG
linux /vmlinuz root=LABEL=$label ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CFG
make_loaders "search --set=root --label $label
set prefix=(\$root)/boot/grub" 32M ESP ext2
bios="start=$core_start, size=2048, type=21686148-6449-6E6F-744E-656564454649"
[ "$arch" = amd64 ] || bios='# no partition for it'
truncate -s 3G "$root/loader/disk"
chroot "$root" sfdisk --quiet /loader/disk <<TABLE
label: gpt
$bios
start=4096, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=69632, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
TABLE
mv "$root/loader" "$out/loader"

# --- the disk --------------------------------------------------------------------------------------

disk=$out/loader/disk
install_loader "$out/loader" "$disk"
put "$out/loader/esp" "$disk" 512 4096
# See images/recipes/debian.sh for the bind mount. The backup of the table needs the disk's last sectors.
mkdir "$out/view"
mount --bind "$root" "$out/view"
mke2fs -q -t ext4 -L "$label" -E "lazy_itable_init=1,offset=$((69632 * 512))" -d "$out/view" "$disk" 3037M
umount "$out/view"
rmdir "$out/view"
finish "$disk"
