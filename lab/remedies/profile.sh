# bwrap_profile NAME PATH: print a profile for the bubblewrap at PATH. bubblewrap may make user namespaces and
# have capabilities in them. The programs that it starts may do the same but have no capabilities, so that
# bubblewrap cannot be used to bypass a restriction of user namespaces.
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

  # bubblewrap sets no_new_privs; after that a profile can only be stacked on others.
  pix /** -> &$1//&$1-payload,
}

profile $1-payload flags=(attach_disconnected, mediate_deleted) {$allowed
  audit deny capability,

  pix /** -> &$1-payload,
}
END
}

# disable_others FILE: disable all profiles for bubblewrap except those in FILE, now and at every boot, because
# AppArmor applies neither of two profiles for one path. The files are searched, because the kernel does not show
# the path of a profile. Profiles inside others are indented and not matched.
disable_others() {
    header='^(profile[[:space:]]+)?([^[:space:]#]+[[:space:]]+)?"?[^[:space:]#"]*/bwrap"?([[:space:]][^{]*)?[{]'
    grep -lsE "$header" /etc/apparmor.d/* | while read -r file; do
        [ "$file" != "/etc/apparmor.d/$1" ] && [ ! -e "/etc/apparmor.d/disable/${file##*/}" ] || continue
        # Copies, which AppArmor does not load either.
        case $file in *~ | *.dpkg-* | *.rpm* | *.orig | *.rej | *.bak | *.swp) continue ;; esac
        mkdir -p /etc/apparmor.d/disable
        printf '%s\n' "$file" >>"$state/disabled"
        # The profile may not be loaded.
        apparmor_parser --remove "$file" || true
        ln -s "$file" /etc/apparmor.d/disable/
    done
}

# install_profile FILE: write standard input to /etc/apparmor.d/FILE and load it, now and at every boot.
install_profile() {
    cat >"/etc/apparmor.d/$1"
    apparmor_parser --replace "/etc/apparmor.d/$1"
}

# remove_profile FILE: unload and delete it, and enable the profiles that were disabled for it.
remove_profile() {
    if [ -e "/etc/apparmor.d/$1" ]; then
        apparmor_parser --remove "/etc/apparmor.d/$1" || true
        rm "/etc/apparmor.d/$1"
    fi
    rm -f "/etc/apparmor.d/disable/$1"
    [ -e "$state/disabled" ] || return 0
    while read -r file; do
        rm -f "/etc/apparmor.d/disable/${file##*/}"
        # The file may have been deleted since.
        [ ! -e "$file" ] || apparmor_parser --replace "$file"
    done <"$state/disabled"
}
