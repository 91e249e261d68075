# sysctl_is NAME VALUE
sysctl_is() {
    value=$(sysctl -e -n "$1") || die 2 "only root can read $1"
    [ "$value" = "$2" ]
}

sysctl_exists() {
    [ -e "/proc/sys/$(printf '%s' "$1" | tr . /)" ] || {
        echo "the kernel has no $1"
        return 1
    }
}

# sysctl_set NAME VALUE: set it now and at every boot. The file sorts after all others in that folder, such as
# 99-sysctl.conf, because the last file wins.
sysctl_set() {
    [ -e "$state/$1" ] || sysctl -n "$1" >"$state/$1"
    file=/etc/sysctl.d/zz-boxlite-$name.conf
    [ ! -e "$file" ] || sed -i "/^$1 = /d" "$file"
    printf '%s = %s\n' "$1" "$2" >>"$file"
    sysctl -q -w "$1=$2"
}

# sysctl_reset NAME: restore the value that sysctl_set found.
sysctl_reset() {
    rm -f "/etc/sysctl.d/zz-boxlite-$name.conf"
    [ ! -e "$state/$1" ] || sysctl -q -w "$1=$(cat "$state/$1")"
}
