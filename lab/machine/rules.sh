#!/bin/sh
# Shows, adds or removes the rule that lets libvirt run the lab's machines where SELinux denies it.
# setup.sh calls this as root; doing one thing twice does no more than doing it once.
#   rules.sh show|add|remove consoles FOLDER
set -eu

die() { printf 'rules.sh: %s\n' "$*" >&2; exit 3; }

# The label of libvirt's own logs: the policy lets virtlogd write there and nowhere below /var/lib otherwise. semanage
# takes a regular expression.
pattern() { printf '%s(/.*)?' "$(printf '%s' "$folder" | sed 's/[][\\.*^$+?(){}|]/\\&/g')"; }
consoles_show() { printf 'the SELinux label virt_log_t on %s and all below it\n' "$folder"; }
consoles_add() {
    case $(matchpathcon -n "$folder") in
        *:virt_log_t:*) ;;
        *) semanage fcontext --add --type virt_log_t "$(pattern)" ;;
    esac
    mkdir -p "$folder" && restorecon -R -F "$folder"
}
consoles_remove() {
    case $(matchpathcon -n "$folder") in
        *:virt_log_t:*) semanage fcontext --delete "$(pattern)" ;;
    esac
    [ ! -d "$folder" ] || restorecon -R -F "$folder"
}

folder=${3-}
case ${1-},${2-} in
    show,consoles | add,consoles | remove,consoles) [ -n "$folder" ] || die "which folder?" ;;
    *) die "show, add or remove the one rule that there is: consoles" ;;
esac
"$2_$1"
