#!/bin/sh
# {{ remedy.title }}
#
# Made by: lab remedies show {{ remedy.name }} --script
#
#   sh FILE           explain what it does and what that costs, ask, and apply it
#   sh FILE --yes     apply it without asking
#   sh FILE --check   check whether it is in place; change nothing
#   sh FILE --undo    undo what it changed on this host (--undo --yes: without asking)
{% if host.about_user %}
#   --user NAME       with any of these: the account to change (default: the user who called sudo)
{% endif %}
#
# Exit status: 0 done, or in place; 1 failed, or --check found it not in place; 2 wrong usage; 3 not possible on
# this host.
set -eu
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

name={{ remedy.name }}
# Holds what --undo needs; the folder exists as long as there is something to undo.
state=/var/lib/boxlite-remedies/$name

explain() {
    cat <<'END'
{{ remedy.title }}

{{ remedy.does | wordwrap(94) | indent(2, first=true) }}

What this costs:
{{ remedy.price | wordwrap(94) | indent(2, first=true) }}

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
# Prints the reason if it cannot work on this host.
possible() {
{{ host.possible | trim | indent(4, first=true) }}
}

in_place() {
{{ host.check | trim | indent(4, first=true) }}
}

apply() {
{{ host.apply | trim | indent(4, first=true) }}
}

undo() {
{{ host.undo | trim | indent(4, first=true) }}
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
            [ $# -gt 1 ] || die 2 "--user needs a name"
            shift
            user=$1
            ;;
{% endif %}
        *) die 2 "$1: not one of --yes, --check, --undo{{ ", --user" if host.about_user }}" ;;
    esac
    shift
done
{% if host.about_user %}
# --undo undoes the changes for all accounts.
[ "$todo" = undo ] || case $user in
    # An option of the programs below, or two words in a file.
    -* | *[[:space:]]*) false ;;
    *) id -u "$user" >/dev/null 2>&1 ;;
esac || die 2 "no such account: ${user:-none given}; give --user NAME"
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
