# deny_rules RULE: list the profiles with an explicit deny rule that RULE, an extended regular expression, matches.
deny_rules() {
    grep -lsE "^[[:space:]]*(audit[[:space:]]+)?deny[[:space:]]+(file[[:space:]]+)?$1" /etc/apparmor.d/* |
        while read -r file; do
            # Copies, which AppArmor does not load.
            case $file in *~ | *.dpkg-* | *.rpm* | *.orig | *.rej | *.bak | *.swp) continue ;; esac
            [ -e "/etc/apparmor.d/disable/${file##*/}" ] || printf '%s\n' "$file"
        done
}

# deny_rules_exist RULE WHAT
deny_rules_exist() {
    command -v apparmor_parser >/dev/null || {
        echo "apparmor_parser is not installed"
        return 1
    }
    [ -n "$(deny_rules "$1")" ] || {
        echo "no profile in /etc/apparmor.d has a rule that denies $2"
        return 1
    }
}

# deny_rules_are_off RULE
deny_rules_are_off() {
    grep -qs "^# $name: " /etc/apparmor.d/* && [ -z "$(deny_rules "$1")" ]
}

# deny_rules_off RULE: make comments of these rules, and load their profiles again.
deny_rules_off() {
    deny_rules "$1" | while read -r file; do
        sed -i -E "s|^[[:space:]]*(audit[[:space:]]+)?deny[[:space:]]+(file[[:space:]]+)?$1|# $name: &|" "$file"
        apparmor_parser --replace "$file"
    done
}

# deny_rules_on: make rules of these comments again.
deny_rules_on() {
    grep -ls "^# $name: " /etc/apparmor.d/* | while read -r file; do
        sed -i "s|^# $name: ||" "$file"
        apparmor_parser --replace "$file"
    done
}
