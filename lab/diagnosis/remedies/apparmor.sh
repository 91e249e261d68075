policy=/sys/kernel/security/apparmor

apparmor_mediates_userns() {
    grep -qs userns_create "$policy/features/namespaces/mask" || {
        echo "AppArmor is off here, or does not mediate user namespaces"
        return 1
    }
    command -v apparmor_parser >/dev/null || {
        echo "apparmor_parser is not installed"
        return 1
    }
}

# profile_is NAME MODE
profile_is() {
    [ -e "$policy/profiles" ] || return 1
    loaded=$(cat "$policy/profiles") || die 2 "only root can read which profiles are loaded"
    printf '%s\n' "$loaded" | grep -qxF "$1 ($2)"
}
