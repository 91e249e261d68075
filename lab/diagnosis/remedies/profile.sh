# bwrap_profile NAME PATH: a profile for the bubblewrap at PATH. It may make user namespaces, and have
# capabilities in them; what it starts may do all the same but has no capability, so that bubblewrap does not
# serve others as a way around a restriction of user namespaces.
bwrap_profile() {
    allowed="
  file rwlkm /{**,},
  network,
  unix,
  dbus,
  signal,
  ptrace,
  mqueue,
  io_uring,
  userns,
  mount,
  umount,
  pivot_root,"
    cat <<END
# Made by the remedy $name.
abi <abi/4.0>,

include <tunables/global>

profile $1 $2 flags=(attach_disconnected, mediate_deleted) {$allowed
  capability,

  # bubblewrap sets no_new_privs, after which a profile can only be put on top of others.
  pix /** -> &$1//&$1-payload,
}

profile $1-payload flags=(attach_disconnected, mediate_deleted) {$allowed
  audit deny capability,

  pix /** -> &$1-payload,
}
END
}

# profiles_for PATH: the loaded profiles that are attached to exactly this path.
profiles_for() {
    for attach in "$policy"/policy/profiles/*/attach; do
        [ "$(cat "$attach" 2>/dev/null)" != "$1" ] || cat "${attach%attach}name"
    done
}

# set_aside PATH FILE: of two profiles that are attached to one path neither holds, so all that are not in
# /etc/apparmor.d/FILE are unloaded, and not loaded at the next boot either.
set_aside() {
    profiles_for "$1" | while read -r other; do
        file=$(grep -lsE "^[[:space:]]*(profile[[:space:]]+)?\"?$other\"?[[:space:]{]" /etc/apparmor.d/* | head -n 1)
        [ -n "$file" ] || die 1 "the profile $other is attached to $1 too, and no file in /etc/apparmor.d has it"
        [ "$file" != "/etc/apparmor.d/$2" ] || continue
        mkdir -p /etc/apparmor.d/disable
        ln -sf "$file" /etc/apparmor.d/disable/
        printf '%s\n' "$file" >>"$state/set-aside"
        apparmor_parser --remove "$file"
    done
}

# put_profile FILE: load the profile on standard input from now on, from /etc/apparmor.d/FILE.
put_profile() {
    cat >"/etc/apparmor.d/$1"
    apparmor_parser --replace "/etc/apparmor.d/$1"
}

# take_profile FILE: unload it, and bring back what was set aside for it.
take_profile() {
    if [ -e "/etc/apparmor.d/$1" ]; then
        apparmor_parser --remove "/etc/apparmor.d/$1" || true
        rm "/etc/apparmor.d/$1"
    fi
    [ -e "$state/set-aside" ] || return 0
    while read -r file; do
        rm -f "/etc/apparmor.d/disable/${file##*/}"
        apparmor_parser --replace "$file"
    done <"$state/set-aside"
}
