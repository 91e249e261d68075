#!/bin/sh
# Makes this machine ready and runs the lab:
#   ./setup.sh test [PYTEST ARGUMENT]...   the whole test suite
#   ./setup.sh ARGUMENT...                 lab ARGUMENT...
# Installs only what is missing, with sudo only where it is needed; a second run does nothing slow.
set -eu
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root and there is no sudo; run as root: $*"
    fi
}

# --- packages of the host -------------------------------------------------------------------------

DEB="qemu-system-x86 qemu-utils ovmf libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
    libvirt-dev passt mmdebstrap debian-archive-keyring e2fsprogs busybox-static util-linux gpgv
    openssh-client pkg-config gcc libc6-dev python3-dev python3-venv"
RPM="qemu-system-x86-core qemu-img edk2-ovmf libvirt-daemon libvirt-daemon-driver-qemu libvirt-client
    libvirt-devel passt mmdebstrap debian-keyring e2fsprogs busybox util-linux gnupg2-verify openssh-clients
    pkgconf-pkg-config gcc python3-devel shadow-utils"
# The tests sign checksums of their own, and look at the site in a browser and with a checker of HTML in Java.
if [ "${1-}" = test ]; then
    DEB="$DEB gpg gpg-agent default-jre-headless"
    RPM="$RPM gnupg2 java-25-openjdk-headless chromium"
    # On Ubuntu that package only calls snap, and a snap reads no file of the tests.
    if grep -q '^ID=ubuntu' /etc/os-release; then
        command -v google-chrome >/dev/null ||
            say "the tests in a browser are skipped: Ubuntu has Chromium as a snap only; install google-chrome"
    else
        DEB="$DEB chromium"
    fi
fi

install_deb() {
    [ "$(id -u)" = 0 ] || DEB="$DEB uidmap"
    missing=
    for package in $DEB; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true) in
            *" installed") ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    say "installing:$missing"
    as_root apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing \
        </dev/null >&2
}

install_rpm() {
    # shellcheck disable=SC2086
    missing=$(rpm -q $RPM 2>/dev/null | sed -n 's/^package \(.*\) is not installed$/\1/p')
    [ -n "$missing" ] || return 0
    say "installing:" $missing
    # shellcheck disable=SC2086
    as_root dnf install -y --setopt=install_weak_deps=False $missing >&2
}

if command -v apt-get >/dev/null; then
    install_deb
elif command -v dnf >/dev/null; then
    install_rpm
else
    die "only apt-get and dnf are supported; elsewhere install the programs of docs/dependencies.md and the headers of" \
        "libvirt and Python by hand, then run the rest of this script"
fi

# mmdebstrap builds guests as an ordinary user by means of subordinate ids.
if [ "$(id -u)" != 0 ]; then
    for kind in uid gid; do
        grep -qE "^($(id -un)|$(id -u)):" "/etc/sub$kind" 2>/dev/null ||
            as_root usermod "--add-sub${kind}s" 100000-165535 "$(id -un)"
    done
fi

# --- the lab and the libraries it uses, from lock files with hashes ---------------------------------

# The distribution's own Python: libvirt's binding is compiled against its headers.
PYTHON=/usr/bin/python3
$PYTHON -c 'import sys; sys.exit(sys.version_info < (3, 12))' ||
    die "$PYTHON is $($PYTHON -V 2>&1); the lab needs Python 3.12 or newer (Debian 13, Ubuntu 24.04, Fedora 43)"

lock=requirements/lab.txt
[ "${1-}" != test ] || lock=requirements/test.txt
want=$($PYTHON -V 2>&1; libvirtd --version 2>/dev/null || true; cat requirements/build.txt "$lock" pyproject.toml)
stamp=.venv/installed-$(basename "$lock")
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
    say "installing the lab's libraries ($lock)"
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || $PYTHON -m venv --clear .venv
    pip() { .venv/bin/python -m pip --disable-pip-version-check install --quiet "$@"; }
    pip --require-hashes -r requirements/build.txt
    # Without isolation, so that what builds libvirt's binding is what the lock file names.
    pip --require-hashes --no-build-isolation -r "$lock"
    pip --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >"$stamp"
fi

# --- libvirt ----------------------------------------------------------------------------------------

# A user's own daemon is started by the first connection; root's has to run.
start_libvirt() {
    virsh -q -c qemu:///system version >/dev/null 2>&1 && return 0
    if [ -d /run/systemd/system ]; then
        say "starting libvirt (systemd)"
        systemctl start libvirtd.service
    else
        say "starting libvirt (no systemd here: directly)"
        pidof virtlogd >/dev/null || virtlogd -d
        pidof libvirtd >/dev/null || libvirtd -d
    fi
    tries=0
    until virsh -q -c qemu:///system version >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || die "libvirtd does not answer on qemu:///system; see its log"
        sleep 0.5
    done
}
if [ "$(id -u)" = 0 ] && [ -z "${LAB_CONNECT-}" ]; then
    start_libvirt
fi

if [ "${1-}" = test ]; then
    shift
    exec .venv/bin/python -m pytest "$@"
fi
exec .venv/bin/lab "$@"
