# remount FLAG FOLDER: set or clear noexec on the mount of FOLDER, and keep its other flags. A user may mount another
# file system on a home directory: so the flags are not those of a line in /etc/fstab, and all is done to one mount.
remount() (
    cd -P "$2"
    flags=$(findmnt -n -o VFS-OPTIONS --target "$(realpath .)" | tr , '\n' |
        grep -xE 'r[ow]|nosuid|nodev|noatime|nodiratime|relatime|nosymfollow' | paste -s -d , -)
    mount --no-canonicalize -o "remount,bind,$flags,$1" none .
)
