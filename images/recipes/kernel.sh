#!/bin/sh
# Customize hook of mmdebstrap for a guest with another kernel than its own. Run before debian.sh, as
#   kernel.sh ROOT
# where ROOT is the unpacked guest. It has the package of the kernel; or else the folder `kernel` beside ROOT has files
# to put into it. Fails if the guest could not boot with that kernel.
set -eu
root=$1
given=$(dirname "$root")/kernel
if [ -d "$given" ]; then
    cp -r "$given/." "$root"
fi
set -- "$root"/boot/vmlinuz-*
if [ ! -e "$1" ] || [ $# -gt 1 ]; then
    echo "E: the kernel has to be one file vmlinuz-RELEASE in /boot of its package, and there are: $*" >&2
    exit 1
fi
release=${1#"$root/boot/vmlinuz-"}
chroot "$root" depmod "$release"

# The lab's disks, network and agent are virtio devices; the root is ext4, and what a lane's guest has to know comes on
# an ISO image. Each of these may be a module or built in, which modules.builtin says.
lacks=
for module in virtio_pci virtio_blk virtio_net virtio_console ext4 isofs; do
    chroot "$root" modprobe --show-depends --set-version "$release" "$module" >/dev/null 2>&1 || lacks="$lacks $module"
done
if [ -n "$lacks" ]; then
    echo "E: the kernel $release has neither built in nor as modules:$lacks" >&2
    exit 1
fi
