# shellcheck shell=sh
# What the recipes of test disks share. A recipe is a customize hook of mmdebstrap that sources this file; it is
# run as
#   RECIPE ROOT
# with ROOT the unpacked guest, and leaves disk.qcow2 beside ROOT, and repository/ with packages that ROOT lacks.
set -eu
root=$1
out=$(dirname "$root")
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"

# GRUB for BIOS starts here, in sectors of 512 bytes; its partition is the first on every disk of amd64. A disk of arm64
# has GRUB for UEFI alone.
core_start=2048
arch=$(chroot "$root" dpkg --print-architecture)

# Every lane and every lab brings keys and an identity of its own.
forget_identity() {
    rm -f "$root"/etc/ssh/ssh_host_*
    : >"$root/etc/machine-id"
}

# Put packages into the repository that preparing installs from: serve_packages NAME...
serve_packages() {
    mkdir -p "$out/repository/pool"
    : >"$out/repository/Packages"
    for name in "$@"; do
        (cd "$out/repository/pool" && apt-get -qq download -o APT::Sandbox::User=root "$name")
        apt-cache show --no-all-versions "$name" |
            sed "s|^Filename: .*|Filename: pool/$(cd "$out/repository/pool" && ls "${name}"_*)|" \
                >>"$out/repository/Packages"
        echo >>"$out/repository/Packages"
    done
}

forget_packages() {
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/apt/sources.list*
}

# Make GRUB for BIOS and UEFI in $root/loader, and an ESP of a size with the second:
#   make_loaders FIND SIZE LABEL MODULE...
# with FIND the commands that find grub.cfg.
make_loaders() {
    find=$1 size=$2 name=$3
    shift 3
    mkdir -p "$root/loader"
    printf '%s\n' "$find" >"$root/loader/find.cfg"
    modules="part_gpt search search_label linux boot normal configfile $*"
    format=x86_64-efi efi=BOOTX64.EFI
    [ "$arch" = amd64 ] || format=arm64-efi efi=BOOTAA64.EFI
    # shellcheck disable=SC2086 # a list of words
    chroot "$root" grub-mkimage -O $format -p /boot/grub -c /loader/find.cfg -o /loader/boot.efi fat $modules
    truncate -s "$size" "$root/loader/esp"
    chroot "$root" sh -ec "mformat -v $name -i /loader/esp ::; mmd -i /loader/esp ::/EFI ::/EFI/BOOT
        mcopy -i /loader/esp /loader/boot.efi ::/EFI/BOOT/$efi"
    [ "$arch" = amd64 ] || return 0
    # shellcheck disable=SC2086
    chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /loader/find.cfg -o /loader/core.img biosdisk $modules
    cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/loader/boot.img"
}

# put FILE DISK BLOCK-SIZE BLOCK: copy a file into a disk.
put() { dd if="$1" of="$2" bs="$3" seek="$4" conv=notrunc status=none; }

# install_loader LOADER DISK: write GRUB for BIOS, if there is one.
# Where the next part starts, as GRUB's own installer writes it: boot.img (offset 0x5c) to find core.img, and
# core.img's first sector (offset 0x1f4) to find the rest.
install_loader() {
    [ "$arch" = amd64 ] || return 0
    printf '\000\010\000\000\000\000\000\000' | put /dev/stdin "$1/boot.img" 1 92
    printf '\001\010\000\000\000\000\000\000' | put /dev/stdin "$1/core.img" 1 500
    truncate -s 440 "$1/boot.img"
    put "$1/boot.img" "$2" 440 0
    put "$1/core.img" "$2" 512 "$core_start"
}

# finish DISK: leave the disk for whoever started the recipe.
finish() {
    qemu-img convert -O qcow2 "$1" "$out/disk.qcow2"
    rm -r "$out/loader"
    chmod -R a+rX "$out/repository" "$out/disk.qcow2"
}
