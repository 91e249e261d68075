#!/bin/sh
# Allow ordinary users to make user namespaces: kernel.unprivileged_userns_clone = 1
#
# Made by: lab remedies show userns-clone-on --script
#
#   sh FILE           explain what it does and what that costs, ask, and apply it
#   sh FILE --yes     apply it without asking
#   sh FILE --check   check whether it is in place; change nothing
#   sh FILE --undo    undo what it changed on this host (--undo --yes: without asking)
#
# Exit status: 0 done, or in place; 1 failed, or --check found it not in place; 2 wrong usage; 3 not possible on
# this host.
set -eu
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

name=userns-clone-on
# Holds what --undo needs; the folder exists as long as there is something to undo.
state=/var/lib/boxlite-remedies/$name

explain() {
    cat <<'END'
Allow ordinary users to make user namespaces: kernel.unprivileged_userns_clone = 1

  Sets this sysctl of Debian's and Ubuntu's kernels to 1, now and at every boot.

What this costs:
  Every program of every user may make user namespaces, as on kernels without this sysctl.
  Inside one it can reach kernel code that otherwise only root can reach and that had many
  vulnerabilities in recent years.

END
}

say() {
    printf '%s: %s\n' "$name" "$1"
}

# die STATUS TEXT
die() {
    trap - EXIT
    printf '%s: %s\n' "$name" "$2" >&2
    exit "$1"
}

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

# Prints the reason if it cannot work on this host.
possible() {
    sysctl_exists kernel.unprivileged_userns_clone
}

in_place() {
    sysctl_is kernel.unprivileged_userns_clone 1
}

apply() {
    sysctl_set kernel.unprivileged_userns_clone 1
}

undo() {
    sysctl_reset kernel.unprivileged_userns_clone
}

# If a command fails with any status, exit with 1 and say what to do next.
on_exit() {
    [ "$?" = 0 ] || die 1 "failed; run it with --undo to undo what was done"
}

need_root() {
    [ "$(id -u)" = 0 ] || die 2 "run this as root: it changes this host"
}

# ask QUESTION
ask() {
    [ "$sure" = no ] || return 0
    [ -t 0 ] || die 2 "cannot ask without a terminal: give --yes to proceed without asking"
    printf '%s [y/N] ' "$1"
    read -r answer || answer=
    case $answer in
        [yY] | [yY]es) ;;
        *) die 1 "not done" ;;
    esac
}

todo=apply sure=no
while [ $# -gt 0 ]; do
    case $1 in
        --yes) sure=yes ;;
        --check) todo=check ;;
        --undo) todo=undo ;;
        *) die 2 "$1: not one of --yes, --check, --undo" ;;
    esac
    shift
done

case $todo in
    check)
        if in_place; then
            say "in place"
        else
            say "not in place"
            exit 1
        fi
        ;;
    undo)
        if [ ! -d "$state" ]; then
            say "nothing to undo: it has changed nothing on this host"
            exit 0
        fi
        need_root
        ask "Undo it?"
        trap on_exit EXIT
        undo
        rm -r "$state"
        say "undone"
        ;;
    apply)
        if in_place; then
            say "already in place: nothing was changed"
            exit 0
        fi
        why=$(possible) || die 3 "nothing can be done on this host: $why"
        need_root
        explain
        ask "Apply it?"
        mkdir -p "$state"
        trap on_exit EXIT
        apply
        in_place || die 1 "applied, but still not in place; run it with --undo to undo it"
        say "done; run it with --undo to undo it"
        ;;
esac
