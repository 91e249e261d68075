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

# set_aside FILE: of two profiles that are attached to one path neither holds, so the files with others for
# bubblewrap are unloaded, and not loaded at the next boot either. FILE is the one that is to hold. The files
# are searched, because the kernel does not tell to what a profile is attached; one within another is indented.
set_aside() {
    header='^(profile[[:space:]]+)?([^[:space:]#]+[[:space:]]+)?"?[^[:space:]#"]*/bwrap"?([[:space:]][^{]*)?[{]'
    grep -lsE "$header" /etc/apparmor.d/* | while read -r file; do
        [ "$file" != "/etc/apparmor.d/$1" ] && [ ! -e "/etc/apparmor.d/disable/${file##*/}" ] || continue
        # Copies that AppArmor loads as little as it loads what is switched off.
        case $file in *~ | *.dpkg-* | *.rpm* | *.orig | *.rej | *.bak | *.swp) continue ;; esac
        mkdir -p /etc/apparmor.d/disable
        printf '%s\n' "$file" >>"$state/set-aside"
        # It may not be loaded yet.
        apparmor_parser --remove "$file" || true
        ln -s "$file" /etc/apparmor.d/disable/
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
    rm -f "/etc/apparmor.d/disable/$1"
    [ -e "$state/set-aside" ] || return 0
    while read -r file; do
        rm -f "/etc/apparmor.d/disable/${file##*/}"
        # Its package, or the remedy that made it, may have taken it away since.
        [ ! -e "$file" ] || apparmor_parser --replace "$file"
    done <"$state/set-aside"
}
