#!/bin/sh
# Shows, adds or removes a rule that lets libvirt run the lab's machines where AppArmor or SELinux denies it.
# setup.sh calls this as root; doing one thing twice does no more than doing it once.
#   rules.sh show|add|remove passt
#   rules.sh show|add|remove consoles FOLDER
set -eu

die() { printf 'rules.sh: %s\n' "$*" >&2; exit 3; }

# Passt's own profile and the one inside of libvirt's profile of each machine include this file.
abstraction=/etc/apparmor.d/abstractions/passt profile=/etc/apparmor.d/usr.bin.passt
begin='# boxlite-lab: begin' end='# boxlite-lab: end'

passt_rule() {
    cat <<END
  $begin
  /usr/bin/passt{,.avx2} mr,
  owner @{run}/user/[0-9]*/libvirt/qemu/run/passt/* rw,
  owner @{run}/libvirt/qemu/passt/* rw,
  $end
END
}

reload_passt() { [ ! -f "$profile" ] || apparmor_parser --replace "$profile"; }

passt_show() { printf 'at the end of %s:\n' "$abstraction" && passt_rule; }
passt_add() {
    [ -f "$abstraction" ] || die "$abstraction is missing, so passt has no profile of AppArmor that this rule is for"
    grep -qF "$begin" "$abstraction" || passt_rule >>"$abstraction"
    reload_passt
}
passt_remove() {
    [ ! -f "$abstraction" ] || sed -i "/^ *$begin\$/,/^ *$end\$/d" "$abstraction"
    reload_passt
}

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
    show,passt | add,passt | remove,passt) ;;
    show,consoles | add,consoles | remove,consoles) [ -n "$folder" ] || die "which folder?" ;;
    *) die "show, add or remove one of: passt, consoles" ;;
esac
"$2_$1"
