policy=/sys/kernel/security/apparmor

apparmor_mediates_userns() {
    grep -qs userns_create "$policy/features/namespaces/mask" || {
        echo "AppArmor is off, or does not mediate user namespaces"
        return 1
    }
    # The first ABI with a rule for user namespaces. The kernel may be newer than AppArmor's programs.
    [ -e /etc/apparmor.d/abi/4.0 ] || {
        echo "AppArmor's programs are too old: there is no /etc/apparmor.d/abi/4.0"
        return 1
    }
    command -v apparmor_parser >/dev/null || {
        echo "apparmor_parser is not installed"
        return 1
    }
}

# The two profiles of bwrap-userns-restrict. Another profile may be called bwrap too.
bwrap_is_restricted() {
    profile_is bwrap enforce && profile_is unpriv_bwrap enforce
}

# profile_is NAME MODE
profile_is() {
    [ -e "$policy/profiles" ] || return 1
    loaded=$(cat "$policy/profiles") || die 2 "only root can read which profiles are loaded"
    printf '%s\n' "$loaded" | grep -qxF "$1 ($2)"
}
