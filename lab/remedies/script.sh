#!/bin/sh
# {{ remedy.title }}
#
# Made by: lab remedies show {{ remedy.name }} --script
#
#   sh FILE           say what it does and what that costs, ask, and do it
#   sh FILE --yes     do it without asking
#   sh FILE --check   is it in place? changes nothing
#   sh FILE --undo    take back what it did on this host (--undo --yes: without asking)
{% if host.about_user %}
#   --user NAME       beside these: whose account it is about, where that is not who called sudo
{% endif %}
#
# Exit status: 0 done, or in place; 1 it failed, or --check found it not in place; 2 wrong usage; 3 it can do
# nothing on this host.
set -eu
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

name={{ remedy.name }}
# What must be known to take it back; it is there as long as there is something to take back.
state=/var/lib/boxlite-remedies/$name

explain() {
    cat <<'END'
{{ remedy.title }}

{{ remedy.does | wrapped("  ") }}

What that costs:
{{ remedy.price | wrapped("  ") }}

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

{% for each in host.functions %}
{% include each ~ ".sh" %}

{% endfor %}
# Prints why, where it can do nothing on this host.
possible() {
{{ host.possible | body }}
}

in_place() {
{{ host.check | body }}
}

apply() {
{{ host.apply | body }}
}

undo() {
{{ host.undo | body }}
}

# Whatever a program of the host's ends with, this ends with 1 and says what comes next.
broken() {
    [ "$?" = 0 ] || die 1 "it failed, and --undo takes back what was done"
}

need_root() {
    [ "$(id -u)" = 0 ] || die 2 "run it as root: it changes this host"
}

# ask QUESTION
ask() {
    [ "$sure" = no ] || return 0
    [ -t 0 ] || die 2 "there is no terminal to ask at: give --yes to do it without asking"
    printf '%s [y/N] ' "$1"
    read -r answer || answer=
    case $answer in
        [yY] | [yY]es) ;;
        *) die 1 "not done" ;;
    esac
}

todo=apply sure=no
{% if host.about_user %}
user=${SUDO_USER-}
{% endif %}
while [ $# -gt 0 ]; do
    case $1 in
        --yes) sure=yes ;;
        --check) todo=check ;;
        --undo) todo=undo ;;
{% if host.about_user %}
        --user)
            [ $# -gt 1 ] || die 2 "--user: whose?"
            shift
            user=$1
            ;;
{% endif %}
        *) die 2 "$1: not one of --yes, --check, --undo{{ ", --user" if host.about_user }}" ;;
    esac
    shift
done
{% if host.about_user %}
# What is taken back is all that was done, for whichever account.
[ "$todo" = undo ] || id -u "$user" >/dev/null 2>&1 || die 2 "whose account is it about? give --user NAME"
{% endif %}

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
            say "nothing to take back: it has changed nothing on this host"
            exit 0
        fi
        need_root
        ask "Take it back?"
        trap broken EXIT
        undo
        rm -r "$state"
        say "taken back"
        ;;
    apply)
        if in_place; then
            say "in place already: nothing was changed"
            exit 0
        fi
        why=$(possible) || die 3 "nothing can be done on this host: $why"
        need_root
        explain
        ask "Do it?"
        mkdir -p "$state"
        trap broken EXIT
        apply
        in_place || die 1 "it was done and is not in place all the same; --undo takes it back"
        say "done; --undo takes it back"
        ;;
esac
