#!/bin/sh
# Runs a command as nobody, without /dev/kvm, without the system's libvirt, and without any network but a loopback
# of its own. Its parent is
#     unshare --mount --net --pid --fork --kill-child --mount-proc
# so that nothing that the command starts outlives it.
set -eu
ip link set lo up
dev=$(mktemp -d)
mount -t tmpfs -o mode=755 dev "$dev"
for name in full null random tty urandom zero; do
    : >"$dev/$name"
    mount --bind "/dev/$name" "$dev/$name"
done
mkdir "$dev/pts" "$dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$dev/pts"
mount -t tmpfs -o mode=1777 shm "$dev/shm"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
mount --move "$dev" /dev
rmdir "$dev"
mount -t tmpfs -o mode=755 run /run/libvirt
# The user's libvirt of root is the system's.
setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
