#!/bin/sh
# Makes this machine ready and runs the lab:
#   ./setup.sh test [PYTEST ARGUMENT]...   the tests that each change runs; --all: all
#   ./setup.sh --with=cargo test ...       the same with Rust's cargo, without which some tests are skipped
#   ./setup.sh --with=arm64 ARGUMENT...    with what guests of arm64 need on another host; or --with=amd64. It comes by
#                                          itself with arguments that name such a guest, or a set that has one
#   ./setup.sh ARGUMENT...                 lab ARGUMENT...
#   ./setup.sh host                        lab doctor, with all that a host of a run over several needs
#   ./setup.sh --dry-run ...               say what either would do here, and change nothing
#   ./setup.sh --dry-run=OS_RELEASE ...    the same for a bare host that has this file as its /etc/os-release
#   ./setup.sh --allow=RULE doctor         add a rule of SELinux that `lab doctor` asks for
#   ./setup.sh --forbid=RULE doctor        remove it
# Installs only what is missing, with sudo only where it is needed; a second run does nothing slow.
set -euf

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

# Every command that changes this machine goes through `run`.
run() {
    if [ -n "$dry" ]; then
        printf 'would run: %s\n' "$*"
    else
        "$@" </dev/null >&2
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        run "$@"
    elif [ -n "$dry" ] || command -v sudo >/dev/null; then
        run sudo "$@"
    else
        die "this needs root and there is no sudo; run as root: $*"
    fi
}

# `bare`: an os-release file was given, and nothing is known to be installed there.
dry='' bare='' os_release=/etc/os-release
case ${1-} in
    --dry-run) dry=1 && shift ;;
    --dry-run=*) dry=1 bare=1 os_release=$(realpath "${1#*=}") && shift ;;
esac
change='' rule=''
case ${1-} in
    --allow=*) change=add rule=${1#*=} && shift ;;
    --forbid=*) change=remove rule=${1#*=} && shift ;;
esac
with=''
case ${1-} in --with=*) with=${1#*=} && shift ;; esac
cd "$(dirname "$0")"
# Whoever reads results needs neither libvirt nor QEMU.
reads=''
case "${1-} $* " in
    "report "* | "compare "* | "gate "* | "baseline "* | "expect "* | "merge "* | "publish "* | "check "*) reads=1 ;;
    "probe "* | "runs "* | "list "* | "remedies "* | "completion "* | "repro "*" --text-only "*) reads=1 ;;
esac
# libvirt's daemons are there, and an ordinary user's PATH may lack it.
PATH=$PATH:/usr/sbin:/sbin

# --- the host: a column of the table ----------------------------------------------------------------

table=lab/base/hosts.table

# Print the number of a host's column, or of the newest host of a distribution, and the host's name.
find_column() {
    awk -F ' *[|] *' -v wanted="$1" '
        $1 == "host" { for (i = 2; i <= NF; i++) if ($i == wanted || index($i, wanted "-") == 1) column = i }
        $1 == "name" && column { print column, $column }' "$table"
}

# Print each property of the table with its value for the host of this column.
read_column() {
    awk -F ' *[|] *' -v column="$1" '
        /^#/ || NF < column { next }
        { for (i = column; $i == "="; i--); if ($i != "-") print $1, $i }' "$table"
}

# Set `found` to the values of all properties that match a pattern, in one line.
look_up() {
    found=
    while read -r property value; do
        # shellcheck disable=SC2254 # a pattern
        case $property in $1) found="$found${found:+ }$value" ;; esac
    done <<END
$values
END
}

of_release() { sed -n "s/^$1=//p" "$os_release" | tr -d "\"'" | head -n 1; }

find_host() {
    help="add a column to $table, or install the programs of docs/dependencies.md by hand and run the steps of setup.sh"
    [ -r "$os_release" ] || die "$os_release cannot be read, so this distribution is not known; $help"
    id=$(of_release ID) like=$(of_release ID_LIKE) version=$(of_release VERSION_ID) name=$(of_release PRETTY_NAME)
    for word in "$id-$version" $id $like; do
        column=$(find_column "$word")
        [ -n "$column" ] || continue
        host=${column#* } values=$(read_column "${column%% *}")
        [ "$word" = "$id-$version" ] ||
            say "${name:-$id $version} is not in $table; it is treated as $host, which was not tried"
        return 0
    done
    die "${name:-this distribution} is not in $table (ID=$id, ID_LIKE=$like); known are" \
        "$(sed -n 's/^name *| *//p' "$table" | sed 's/ *| */, /g') and distributions like them; $help"
}

find_host
[ -z "$dry" ] || printf 'dry run for %s%s: nothing is changed\n' "$host" "${bare:+, a bare one}"

# --- packages of the host ---------------------------------------------------------------------------

is_installed_apt() {
    case $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null || true) in *" installed") ;; *) return 1 ;; esac
}
install_apt() {
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@"
}
is_installed_dnf() { rpm -q --quiet "$1"; }
install_dnf() { as_root dnf install -y --setopt=install_weak_deps=False "$@"; }

case $(uname -m) in
    aarch64) own=arm64 other=amd64 emulator=qemu-x86_64 foreign=-L ;;
    *) own=amd64 other=arm64 emulator=qemu-aarch64 foreign=-l ;;
esac
# Whether the plan of the arguments has guests of the other architecture: they name one, or a set that has one, or they
# are those of a run of all guests.
has_foreign() {
    names=$(find images -maxdepth 1 -name '*.toml' -exec grep $foreign '^arch = "aarch64"' {} + |
        sed 's,.*/,,; s,[.]toml$,,')
    case " $* " in *" -g"* | *" --set"* | *" --resume"* | *" -h "* | *" --help "*) ;; " matrix "*) [ -z "$names" ] || return 0 ;; esac
    for word in "$@"; do
        word=${word#-g} word=${word#--set=}
        for name in $names; do
            case $word in "$name" | "$name"[@/]*) return 0 ;; esac
            for set in "images/sets/$word.toml" "$word"; do
                if [ -f "$set" ] && grep -q "\"${name}[@\"]" "$set"; then return 0; fi
            done
        done
    done
    return 1
}
case $with in
    amd64 | arm64) [ "$with" != "$own" ] || other='' ; with='' ;;
    *) has_foreign "$@" || other='' ;;
esac

if [ -n "$reads" ]; then
    other=''
    look_up package.venv && packages=$found
    look_up package.trust && packages="$packages $found"
else
    look_up 'package.*' && packages=$found
    look_up "$own.*" && packages="$packages $found"
fi
if [ -n "$other" ]; then
    look_up "$other.*" && packages="$packages $found"
    look_up "programs.$other" && packages="$packages $found"
fi
[ -n "$reads" ] || [ "$(id -u)" = 0 ] || { look_up 'user.*' && packages="$packages $found"; }
# The tests sign checksums of their own, and look at the site in a browser and with a checker of HTML in Java.
if [ "${1-}" = test ]; then
    look_up 'test.*' && packages="$packages $found"
    look_up test.browser
    [ -n "$found" ] || command -v google-chrome >/dev/null ||
        say "the tests in a browser are skipped: $host has Chromium as a snap only; install google-chrome"
fi
if [ -n "$with" ]; then
    look_up "with.$with"
    [ -n "$found" ] || { say "--with=$with: expected --with=cargo, --with=amd64 or --with=arm64" && exit 2; }
    if [ -n "$bare" ] || ! PATH=$PATH:${HOME-}/.cargo/bin command -v "$with" >/dev/null; then
        packages="$packages $found"
    fi
fi
look_up manager && manager=$found
missing=
for package in $packages; do
    if [ -n "$bare" ] || ! "is_installed_$manager" "$package"; then missing="$missing $package"; fi
done
if [ -n "$missing" ]; then
    [ -n "$dry" ] || say "installing:$missing"
    # shellcheck disable=SC2086 # a list of words
    "install_$manager" $missing
fi
# Without systemd nothing tells the kernel what runs the programs of the other architecture.
conf=/usr/lib/binfmt.d/$emulator.conf misc=/proc/sys/fs/binfmt_misc
if [ -n "$other" ] && [ -z "$bare" ] && [ -e "$conf" ] && [ ! -e "$misc/$emulator" ]; then
    [ -e "$misc/register" ] || as_root mount -t binfmt_misc binfmt_misc "$misc"
    as_root sh -c "cat $conf >$misc/register"
fi

# mmdebstrap builds guests as an ordinary user by means of subordinate ids. Print the first that no line of these files
# has: who shares a range may change the other's files. usermod takes any, and only useradd chooses by itself.
free_range() {
    cat "$@" 2>/dev/null | sort -t : -k 2n | awk -F : -v first=100000 '
        $2 < first + 65536 && $2 + $3 > first { first = $2 + $3 }
        END { printf "%.0f-%.0f\n", first, first + 65535 }'
}
if [ -z "$reads" ] && [ "$(id -u)" != 0 ]; then
    range=100000-165535
    [ -n "$bare" ] || range=$(free_range /etc/subuid /etc/subgid)
    for kind in uid gid; do
        if [ -n "$bare" ] || ! grep -qE "^($(id -un)|$(id -u)):" "/etc/sub$kind" 2>/dev/null; then
            as_root usermod "--add-sub${kind}s" "$range" "$(id -un)"
        fi
    done
fi

# --- libvirt ----------------------------------------------------------------------------------------

look_up daemons && daemons=$found
# Whether libvirt's daemon answers. One that stands still is not waited for.
answers() { timeout 10 virsh -q -c qemu:///system version >/dev/null 2>&1; }
start_daemons() {
    if [ -n "$bare" ] || [ -d /run/systemd/system ]; then
        look_up units
        # shellcheck disable=SC2086 # a list of words
        run systemctl start $found
    else
        # A daemon that runs holds the lock of its pidfile: a second one says so and ends.
        for daemon in $daemons; do run "$daemon" -d || true; done
    fi
}
# Print what is known about a daemon that does not answer. `reply` is the end of what its last start printed.
describe_failure() {
    log=/var/log/libvirt/${daemons##* }.log
    [ -z "$reply" ] || printf '; its start printed: %s' "$reply"
    if [ -d /run/systemd/system ]; then
        look_up units
        printf '; its log, journalctl -u %s, ends with:\n%s' "${found##* }" "$(journalctl -q -n 10 -u "${found##* }" 2>&1)"
    elif [ -s "$log" ]; then
        printf '; its log, %s, ends with:\n%s' "$log" "$(tail -n 10 "$log")"
    else
        printf '; it never started, and %s does not exist or is empty' "$log"
    fi
}
# A user's own daemon is started by the first connection; root's has to run.
start_libvirt() {
    [ -n "$bare" ] || ! answers || return 0
    if [ -n "$dry" ]; then start_daemons && return; fi
    tries=0
    until answers; do
        [ $tries -lt 60 ] || die "${daemons##* } does not answer on qemu:///system$(describe_failure)"
        # A start that failed is tried again after 5 s; so is one of a daemon that has ended since.
        if [ $((tries % 10)) = 0 ]; then reply=$(start_daemons 2>&1 | tail -n 1); else sleep 0.5; fi
        tries=$((tries + 1))
    done
}
# libvirt's first look at QEMU takes four seconds. It has them while the libraries are installed.
looking=
if [ -n "$reads" ]; then
    :
elif [ "$(id -u)" = 0 ] && [ -z "${LAB_CONNECT-}" ]; then
    if [ -n "$dry" ]; then start_libvirt; else start_libvirt & looking=$!; fi
elif [ -z "$dry" ]; then
    virsh -q -c qemu:///session version >/dev/null 2>&1 &
fi

# --- the lab and the libraries it uses, from lock files with hashes ---------------------------------

# The distribution's own Python: libvirt's binding is compiled against its headers.
PYTHON=/usr/bin/python3
# A dry run may come before it is installed.
[ -n "$bare" ] || { [ -n "$dry" ] && [ ! -e $PYTHON ]; } || $PYTHON -c 'import sys; sys.exit(sys.version_info < (3, 12))' ||
    die "$PYTHON is $($PYTHON -V 2>&1); the lab needs Python 3.12 or newer (Debian 13, Ubuntu 24.04, Fedora 43)"

lock=requirements/lab.txt
# Several hosts need dask.distributed, and nothing else does.
case " $* " in *" --hosts "* | *" --hosts="*) lock=requirements/hosts.txt ;; esac
[ "${1-}" != host ] || { shift && set -- doctor "$@" && lock=requirements/hosts.txt; }
[ "${1-}" != test ] || lock=requirements/test.txt
[ -z "$reads" ] || lock=requirements/read.txt
stamp=.venv/installed-$(basename "$lock")
if [ -z "$bare" ]; then
    want=$($PYTHON -V 2>&1 || true; "${daemons##* }" --version 2>/dev/null || true; cat requirements/build.txt "$lock" requirements/deno.lock pyproject.toml)
fi
if [ -n "$bare" ] || [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
    [ -n "$dry" ] || say "installing the lab's libraries ($lock)"
    if [ -n "$bare" ] || ! .venv/bin/python -c '' 2>/dev/null; then run $PYTHON -m venv --clear .venv; fi
    pip() { run .venv/bin/python -m pip --disable-pip-version-check install --quiet "$@"; }
    pip --require-hashes -r requirements/build.txt
    # Without isolation, so that what builds libvirt's binding is what the lock file names; little optimized, which
    # takes half the time, because it only passes calls on. Nothing is compiled to bytecode here: that takes two
    # seconds, and Python does it with what is imported.
    CFLAGS="${CFLAGS-} -O1 -g0" pip --require-hashes --no-compile --no-build-isolation -r "$lock"
    pip --no-deps --no-build-isolation --editable .
    if [ "$lock" = requirements/test.txt ]; then
        # The checker of HTML, a package of npm.
        run cp requirements/deno.json requirements/deno.lock .venv
        run env DENO_TLS_CA_STORE=system .venv/bin/deno install --quiet --frozen --config .venv/deno.json
    fi
    [ -n "$dry" ] || printf '%s\n' "$want" >"$stamp"
fi
[ -z "$looking" ] || wait "$looking" || exit

# --- what SELinux has to allow: only when asked for -------------------------------------------------

confined_by_selinux() {
    if [ -n "$bare" ]; then look_up qemu.confined-by && [ "$found" = selinux ]; else [ -e /sys/fs/selinux/enforce ]; fi
}
change_rule() {
    folder=${LAB_HOME:+$(realpath -m "$LAB_HOME")/state}
    folder=${folder:-/var/lib/boxlite-lab}
    sh lab/machine/rules.sh show "$2" "$folder" >&2 || die "this is no rule: $2"
    confined_by_selinux || die "$host is not confined by SELinux"
    look_up rule.labels
    if [ -n "$bare" ] || ! command -v semanage >/dev/null; then "install_$manager" "$found"; fi
    as_root sh lab/machine/rules.sh "$1" "$2" "$folder"
}
[ -z "$rule" ] || change_rule "$change" "$rule"

if [ -n "$dry" ]; then
    look_up 'qemu.*' && qemu=$found
    look_up "firmware.$own"
    # shellcheck disable=SC2086 # two words
    printf 'QEMU of the system daemon: account %s, confined by %s; UEFI firmware %s\n' $qemu "$found"
fi
if [ "${1-}" = test ]; then
    shift
    set -- .venv/bin/python -m pytest "$@"
else
    set -- .venv/bin/lab "$@"
fi
[ -z "$dry" ] || { run "$@" && exit; }
exec "$@"
