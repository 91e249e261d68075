#!/bin/sh
# Customize hook of mmdebstrap for a disk as distributions publish them for clouds. Run as
#   cloud_disk.sh ROOT
# with ROOT the unpacked guest. Leaves disk.qcow2 beside ROOT, and repository/ with what ROOT lacks.
#
# GPT, and a loader for both firmwares. In sectors of 512 bytes:
#   2048  GRUB for BIOS, in a partition of its own   4096  the ESP, with GRUB for UEFI   69632  the root, last
set -eu
root=$1
out=$(dirname "$root")
label=root

# --- the guest ------------------------------------------------------------------------------------

chroot "$root" systemctl --quiet enable systemd-networkd.service
printf 'LABEL=%s / ext4 defaults 0 1\n' "$label" >"$root/etc/fstab"
# cloud-init would write the sources that its own defaults name.
printf 'apt: {preserve_sources_list: true}\n' >"$root/etc/cloud/cloud.cfg.d/90-sources.cfg"
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"

# --- what preparing has to install -----------------------------------------------------------------

mkdir -p "$out/repository/pool"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
(cd "$out/repository/pool" && apt-get -qq download -o APT::Sandbox::User=root bubblewrap)
apt-cache show --no-all-versions bubblewrap |
    sed "s|^Filename: .*|Filename: pool/$(ls "$out/repository/pool")|" >"$out/repository/Packages"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/apt/sources.list*

# --- its loaders -----------------------------------------------------------------------------------

mkdir "$root/loader" "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<CFG
linux /vmlinuz root=LABEL=$label ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
CFG
cat >"$root/loader/find-root.cfg" <<CFG
search --set=root --label $label
set prefix=(\$root)/boot/grub
CFG
modules="part_gpt ext2 search search_label linux boot normal configfile"
# shellcheck disable=SC2086 # a list of words
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /loader/find-root.cfg -o /loader/core.img \
    biosdisk $modules
# shellcheck disable=SC2086
chroot "$root" grub-mkimage -O x86_64-efi -p /boot/grub -c /loader/find-root.cfg -o /loader/bootx64.efi \
    fat $modules
truncate -s 32M "$root/loader/esp"
chroot "$root" sh -ec 'mformat -i /loader/esp ::; mmd -i /loader/esp ::/EFI ::/EFI/BOOT
    mcopy -i /loader/esp /loader/bootx64.efi ::/EFI/BOOT/BOOTX64.EFI'
truncate -s 3G "$root/loader/disk"
chroot "$root" sfdisk --quiet /loader/disk <<TABLE
label: gpt
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
start=4096, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=69632, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
TABLE
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/loader/boot.img"
mv "$root/loader" "$out/loader"

# --- the disk --------------------------------------------------------------------------------------

put() { dd if="$1" of="$2" bs="$3" seek="$4" conv=notrunc status=none; }
disk=$out/loader/disk
# Where the next part starts, as GRUB's own installer writes it: boot.img (offset 0x5c) to find core.img,
# and core.img's first sector (offset 0x1f4) to find the rest.
printf '\000\010\000\000\000\000\000\000' | put /dev/stdin "$out/loader/boot.img" 1 92
printf '\001\010\000\000\000\000\000\000' | put /dev/stdin "$out/loader/core.img" 1 500
truncate -s 440 "$out/loader/boot.img"
put "$out/loader/boot.img" "$disk" 440 0
put "$out/loader/core.img" "$disk" 512 2048
put "$out/loader/esp" "$disk" 512 4096
# See images/recipes/debian.sh for the bind mount. The backup of the table needs the disk's last sectors.
mkdir "$out/view"
mount --bind "$root" "$out/view"
mke2fs -q -t ext4 -L "$label" -E "lazy_itable_init=1,offset=$((69632 * 512))" -d "$out/view" "$disk" 3037M
umount "$out/view"
rmdir "$out/view"
qemu-img convert -O qcow2 "$disk" "$out/disk.qcow2"
rm -r "$out/loader"
chmod -R a+rX "$out/repository" "$out/disk.qcow2"
