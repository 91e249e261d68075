#!/bin/sh
# boxlite-probe {{ version }}: prints what decides whether boxlite works on this host, for a bug report.
#
# Run it as the user who runs boxlite: sh probe.sh. It needs no root and nothing that must be installed, and it
# changes nothing: it writes one small file into the home, to see whether programs may run there, and deletes
# it. It prints no name of a user or host, no address and no serial number; the home is written as ~.
# Every line has a number, so that a reader notices a missing line.

number=0
home=${HOME:-}
file=

# A line of the output. A long one goes on in lines whose name is +.
put() {
    number=$((number + 1))
    line="$number $1: $2"
    while [ ${#line} -gt {{ width }} ]; do
        start=$(printf %.{{ width }}s "$line")
        rest=${line#"$start"}
        # No line begins or ends with a space, which mail programs remove.
        case $start in
            *" ") start=${start% } rest=%20$rest ;;
        esac
        case $rest in
            " "*) rest=%20${rest# } ;;
        esac
        printf "%s\n" "$start"
        number=$((number + 1))
        line="$number + $rest"
    done
    printf "%s\n" "$line"
}

# A line whose value is any text: all but plain characters become %XX.
say() {
    text=$(printf %.{{ longest }}s "$2")
    if [ -z "$text" ]; then
        put "$1" "(empty)"
        return
    fi
    if [ ${#home} -gt 1 ]; then
        before=
        while :; do
            case $text in
                *"$home"*) ;;
                *) break ;;
            esac
            before=$before${text%%"$home"*}~
            text=${text#*"$home"}
        done
        text=$before$text
    fi
    case $text in
        *[!A-Za-z0-9./:_,=+~\ \(\)-]* | *"  "* | *==* | *" " | " "* | "("*) escape ;;
    esac
    put "$1" "$text"
}

escape() {
    before="" last=" "
    while [ -n "$text" ]; do
        rest=${text#?}
        character=${text%"$rest"}
        case $character in
            [A-Za-z0-9./:_,+~\)-]) ;;
            =) [ "$last" != = ] || character=%3D ;;
            " ") [ "$last" != " " ] && [ -n "$rest" ] || character=%20 ;;
            "(") [ -n "$before" ] || character=%28 ;;
            *) character=%$(printf %02X $(($(printf %d "\"$character") & 255))) ;;
        esac
        before=$before$character
        last=$character
        text=$rest
    done
    text=$before
}

# A line with the content of a file: absent, not readable, or what it holds.
content() {
    if ! [ -f "$2" ]; then
        put "$1" "$absent"
    elif text=$(cat "$2"); then
        say "$1" "$text"
    else
        put "$1" "$hidden"
    fi
}

# Whether a program is in one of the folders of PATH, executable or not.
have() {
    for folder in{{ folders }}; do
        [ -e "$folder/$1" ] && return 0
    done
    return 1
}

limited() {
    if [ -n "$limit" ]; then
        timeout -s KILL {{ seconds }} "$@"
    else
        "$@"
    fi
}

# Try a command: its exit status, and what it writes to standard error.
attempt() {
    probe=probes.$1
    shift
    if ! have "$1"; then
        put "$probe" "none errno {{ errno.ENOENT }}"
        return
    fi
    text=$(limited "$@" 2>&1 >/dev/null </dev/null)
    status=$?
    case $status,$text in
        124,* | 137,*) say "$probe" "none did not end within {{ seconds }} s" ;;
        126,"$1: "*) say "$probe" "$status $text" ;;
        126,*"ermission denied"*) put "$probe" "none errno {{ errno.EACCES }}" ;;
        *) say "$probe" "$status${text:+ $text}" ;;
    esac
}

# The outcome of a system call: 0, or the number of the error that a message tells.
called() {
    case $2,$3 in
        0,*) put "probes.$1" 0 ;;
{% for number, words in errors.items() %}
        *"{{ words }}"*) put "probes.$1" {{ number }} ;;
{% endfor %}
        *) say "probes.$1" "none${3:+ $3}" ;;
    esac
}

# The mount that a path is on. The longest mount point wins, and the last one of several on one point.
find_mount() {
    point="" kind="" options=""
    while read -r _ where type words _; do
        # In a variable of its own: bash does not match the empty text "${where%/}".
        above=${where%/}
        case $1/ in
            "$above"/*)
                if [ ${#where} -ge ${#point} ]; then
                    point=$where kind=$type options=$words
                fi
                ;;
        esac
    done <{{ proc_mounts }}
}

# Some mount options tell an address or a folder; those have a =.
without_private_options() {
    kept=
    set -f
    IFS=,
    for word in $options; do
        case $word in
            *=*) ;;
            *) kept=$kept,$word ;;
        esac
    done
    unset IFS
    set +f
    options=${kept#,}
}

# Names of the system only: a name of number 1000 or more may be that of a person.
owner() {
    if [ "$2" -ge 1000 ]; then
        put "$1" "$private"
    elif [ "$3" = UNKNOWN ]; then
        put "$1" "$absent"
    else
        say "$1" "$3"
    fi
}

os_release() {
{% for key in os_release + ["ID_LIKE"] %}
    {{ key | lower }}=
{% endfor %}
    while IFS= read -r line || [ -n "$line" ]; do
        value=${line#*=}
        value=${value#\"}
        value=${value%\"}
        case $line in
{% for key in os_release + ["ID_LIKE"] %}
            {{ key }}=*) {{ key | lower }}=$value ;;
{% endfor %}
        esac
    done </etc/os-release
{% for key in os_release + ["ID_LIKE"] %}
    say_or_absent os.{{ key | lower }} "${{ key | lower }}"
{% endfor %}
}

say_or_absent() {
    if [ -n "$2" ]; then
        say "$1" "$2"
    else
        put "$1" "$absent"
    fi
}

system() {
    os_release
    say kernel "$(uname -r)"
    # All else of it may be private.
    words=
    set -f
    line=$(cat /proc/cmdline)
    for word in $line; do
        case ${word%%=*} in
            {{ command_line | join(" | ") }}) words="$words $word" ;;
        esac
    done
    set +f
    say_or_absent command_line "${words# }"
    text=$(limited python3 --version 2>&1 </dev/null) || text=
    text=${text#Python }
    patch=${text#*.*.}
    say_or_absent python "${text%."$patch"}"
    text=$(limited getconf GNU_LIBC_VERSION </dev/null) || text=
    say_or_absent glibc "${text##* }"
    if [ -e {{ podman }} ]; then put podman yes; else put podman no; fi
    found=no
    for text in {{ pam_systemd | join(" ") }}; do
        [ -e "$text" ] && found=yes
    done
    put login_sessions "$found"
    found=$absent
    while read -r name text; do
        [ "$name" = flags ] || continue
        case " $text " in
{% for flag in virtualization %}
            *" {{ flag }} "*) found={{ flag }} ;;
{% endfor %}
        esac
        break
    done </proc/cpuinfo
    put virtualization "$found"
    content cgroup.controllers {{ cgroup }}/cgroup.controllers
{% for path in mounts %}
    find_mount {{ path }}
    if [ -n "$point" ]; then
        without_private_options
        say mounts.{{ path }} "$point $kind $options"
    else
        put mounts.{{ path }} "$hidden"
    fi
{% endfor %}
}

sysctls() {
    for name in{{ sysctls }}; do
        # As in sysctl(8), a slash in a name stands for a dot in the name of a file.
        path=/proc/sys/$(printf %s "$name" | tr ./ /.)
        if [ -d /proc/sys/kernel ]; then
            content "sysctls.$name" "$path"
        else
            put "sysctls.$name" "$hidden"
        fi
    done
}

security_modules() {
    lsm=
    read -r lsm <{{ lsm }}
    if [ -n "$lsm" ]; then say lsm "$lsm"; else put lsm "$hidden"; fi
    apparmor
    selinux
}

apparmor() {
    enabled=
    read -r enabled <{{ apparmor_enabled }}
    if ! [ -d {{ apparmor }} ]; then
        if [ "$enabled" != Y ] && [ -d /sys/module ]; then
            put apparmor "$absent"
            return
        fi
        # In use, or not known: its features are in a file system that is not mounted here.
        put apparmor "$hidden"
        return
    fi
    put apparmor "in use"
    text=$(limited apparmor_parser --version 2>&1 </dev/null) || text=
    case $text in
        *"version "*)
            text=${text#*version }
            text=${text%%[!0-9A-Za-z.~-]*}
            ;;
        *) text= ;;
    esac
    say_or_absent apparmor.version "$text"
    content apparmor.features.namespaces_mask {{ apparmor }}/features/namespaces/mask
    content apparmor.features.unconfined_userns {{ apparmor }}/features/policy/unconfined_restrictions/userns
    found=
    for path in {{ apparmor }}/features/policy/versions/*; do
        [ -e "$path" ] && found="$found ${path##*/}"
    done
    say_or_absent apparmor.features.policy_versions "${found# }"
    profiles
}

# Only what may have to do with boxlite: other profiles tell what is installed here.
profiles() {
    if [ -r {{ apparmor }}/policy/profiles ] && [ -x {{ apparmor }}/policy/profiles ]; then
        put apparmor.profiles listed
        for path in {{ apparmor }}/policy/profiles/*; do
            concerns "$path" && [ -r "$path/name" ] &&
                say apparmor.profiles "$(cat "$path/name") ($(cat "$path/mode"))"
        done
    else
        put apparmor.profiles "$hidden"
    fi
    for folder in {{ profile_folders | join(" ") }}; do
        for path in "$folder"/*; do
            concerns "$path" && [ -f "$path" ] && say apparmor.profile_files "$path"
        done
    done
}

concerns() {
    case ${1##*/} in
        {{ profiles | join(" | ") }}) return 0 ;;
        *) return 1 ;;
    esac
}

selinux() {
    mode=
    read -r mode <{{ selinux }}/enforce
    if [ -z "$mode" ]; then
        # The kernel knows this file system if SELinux is in use.
        if grep -q selinuxfs /proc/filesystems; then
            put selinux "$hidden"
        else
            put selinux "$absent"
        fi
        return
    fi
    if [ "$mode" = 1 ]; then put selinux enforcing; else put selinux permissive; fi
    policy=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            SELINUXTYPE=*)
                policy=${line#*=}
                policy=${policy#\"}
                policy=${policy%\"}
                ;;
        esac
    done </etc/selinux/config
    say_or_absent selinux.policy "$policy"
    version=
    for path in /etc/selinux/"$policy"/policy/policy.*; do
        found=${path##*.}
        case $found in
            "" | *[!0-9]*) ;;
            *) if [ "$found" -gt "${version:-0}" ]; then version=$found; fi ;;
        esac
    done
    say_or_absent selinux.policy_version "$version"
    if [ -d {{ selinux }}/class/user_namespace ]; then found=yes; else found=no; fi
    put selinux.user_namespace_class "$found"
    content selinux.deny_unknown {{ selinux }}/deny_unknown
    path=/var/lib/selinux/$policy/active
    if [ -x "${path%/active}" ] && [ -x "$path" ] && ! [ -e "$path/modules/{{ priority }}" ]; then
        put selinux.modules "$absent"
    elif found=$(ls "$path/modules/{{ priority }}"); then
        say_or_absent selinux.modules "$(printf %s "$found" | tr "\n" " ")"
    else
        put selinux.modules "$hidden"
    fi
}

programs() {
    path=
    for folder in {{ search_path | join(" ") }}; do
        if [ -e "$folder/bwrap" ]; then
            path=$folder/bwrap
            break
        fi
    done
    if [ -z "$path" ]; then
        put bubblewrap "$absent"
    else
        say bubblewrap "$path"
        text=$(limited "$path" --version 2>/dev/null </dev/null) || text=
        case $text in
            "bubblewrap "*) say bubblewrap.version "${text#bubblewrap }" ;;
            *) put bubblewrap.version "$absent" ;;
        esac
        if text=$(stat -L -c %a "$path"); then say bubblewrap.mode "$text"; else put bubblewrap.mode "$hidden"; fi
        if ! text=$(limited getcap "$path" </dev/null); then
            put bubblewrap.capabilities "$hidden"
        else
            say_or_absent bubblewrap.capabilities "${text#"$path" }"
        fi
    fi
    if ! [ -e {{ kvm }} ]; then
        put kvm "$absent"
        return
    fi
    if ! found=$(stat -L -c "%a %u %g %U %G" {{ kvm }}); then
        put kvm "$hidden"
        return
    fi
    put kvm there
    say kvm.mode "${found%% *}"
    found=${found#* }
    uid=${found%% *}
    say kvm.uid "$uid"
    found=${found#* }
    gid=${found%% *}
    say kvm.gid "$gid"
    found=${found#* }
    owner kvm.owner "$uid" "${found%% *}"
    owner kvm.group "$gid" "${found#* }"
}

who() {
    uid=$(id -u)
    say who.uid "$uid"
    text=
    read -r text </proc/self/attr/apparmor/current
    say_or_absent who.context.apparmor "$text"
    text=
    if [ -e {{ selinux }}/enforce ]; then
        read -r text </proc/self/attr/current
    fi
    say_or_absent who.context.selinux "$text"
    path={{ user_manager }}
    text=
    if [ -w "$path" ]; then
        text=$(cat "$path/cgroup.controllers")
    fi
    say_or_absent who.context.delegated "$text"
    found="" groups=""
    while read -r name text; do
        case $name in
            Groups:) groups=$text ;;
            Seccomp:) found=$text ;;
        esac
    done </proc/self/status
    say_or_absent who.groups "$groups"
    say who.seccomp "${found:-0}"
    if [ -e {{ container }} ]; then put who.container yes; else put who.container no; fi
}

probes() {
{% for name, words in probes.items() %}
    attempt {{ name }} {{ words | join(" ") }}
{% endfor %}
    if [ -e {{ kvm }} ]; then
        text=$( (: <>{{ kvm }}) 2>&1)
        called open_kvm $? "$text"
    else
        put probes.open_kvm {{ errno.ENOENT }}
    fi
    if have unshare; then
        # Without an option this program calls unshare(0).
        text=$(limited unshare true 2>&1 </dev/null)
        called unshare_nothing $? "$text"
    else
        say probes.unshare_nothing "none no program unshare"
    fi
    masks=
    while read -r _ where _; do
        case $where in
            {{ mount_points | join(" | ") }}) ;;
            /proc/*) masks="$masks $where" ;;
        esac
    done <{{ proc_mounts }}
    if [ -n "$masks" ]; then say probes.proc_unmasked "1$masks"; else put probes.proc_unmasked 0; fi
    probe_home
}

# Nothing here touches a home that another host or a program serves: it might never answer.
probe_home() {
    find_mount "$home"
    case $kind in
        {{ remote | join(" | ") }}) ;;
        *)
            path=$(cd -P "$home" && pwd -P) && [ -n "$path" ] && find_mount "$path"
            ;;
    esac
    case ,$options, in
        *,noexec,*) noexec=1 ;;
        *) noexec=0 ;;
    esac
    case $kind in
        {{ remote | join(" | ") }}) say probes.exec_home "none the home is on $kind" ;;
        *) exec_home ;;
    esac
    put probes.home_allows_exec "$noexec"
}

exec_home() {
    file=$home/{{ program }}.$$
    if ! (set -C && umask 077 && printf "#!/bin/sh\nexit 0\n" >"$file"); then
        file=
        say probes.exec_home "none no file can be written into the home"
        return
    fi
    chmod 700 "$file"
    text=$("$file" 2>&1 </dev/null)
    status=$?
    remove
    case $status in
        126) called exec_home "$status" "$text" ;;
        *) put probes.exec_home "$status" ;;
    esac
}

remove() {
    if [ -n "$file" ]; then
        rm -f "$file"
    fi
    file=
}

main() {
    export LC_ALL=C PATH="{{ path }}"
    absent="(none)" hidden="(not readable)" private="(private)"
    trap remove EXIT
    trap "exit 130" HUP INT TERM
    cd /
    limit=
    if timeout -s KILL 1 true </dev/null; then limit=yes; fi
    printf "%s\n" "===== begin boxlite-probe {{ version }} ====="
    system
    sysctls
    security_modules
    programs
    who
    probes
    printf "%s\n" "===== end boxlite-probe {{ version }}: $number lines ====="
}

main 2>/dev/null
