"""What remedies and variants need of a published guest, besides packages: fetched while its image is prepared.

A lane has no network, so what is not there then cannot be tried. None of it changes how the guest behaves.
"""

import shlex
from collections.abc import Callable

from lab.base.files import plain
from lab.base.speed import Speed
from lab.catalog import PackageManager
from lab.guest.session import Session

# AppArmor's own profile for bubblewrap: on Debian and Ubuntu 24.04 only the package apparmor-profiles has it.
ALLOW_LIST = "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict"
# Limit under hardware acceleration, for each of them.
SECONDS = 120.0
# What is fetched, in this order, and how. The package lists and the package stay, because the remedy
# install-bubblewrap installs from them. Of apparmor-profiles one file is taken: its other profiles would be
# loaded at every boot.
WANTED = {
    PackageManager.APT: {
        "the package lists": "apt-get clean; apt-get -q update",
        "the package bubblewrap": "apt-get -q install --reinstall --download-only --yes bubblewrap",
        "the profile bwrap-userns-restrict": f"""
test ! -e {ALLOW_LIST} || exit 0
cd "$(mktemp -d)"
apt-get -q -o APT::Sandbox::User=root download apparmor-profiles
dpkg-deb --extract apparmor-profiles_*.deb .
if test -e .{ALLOW_LIST}; then install -D --mode=0644 .{ALLOW_LIST} {ALLOW_LIST}; fi
rm -r "$PWD"
""",
    },
    PackageManager.DNF: {},
}
RECIPE = tuple(script for wanted in WANTED.values() for script in wanted.values())


def fetch(session: Session, manager: PackageManager, speed: Speed, say: Callable[[str], None]) -> None:
    """Fetch what the guest's own package sources have of it; `say` is told what they do not.

    `speed` is the machine's. Raises RemoteFailed.
    """
    for what, script in WANTED[manager].items():
        # The limit is set inside the guest, so that its output is not lost with the connection.
        limited = f"timeout {speed.from_kvm(SECONDS):.0f} sh -ec {shlex.quote(script)} 2>&1"
        done = session.run(f"sudo -n {limited}", seconds=SECONDS + 30, check=False)
        if done.status != 0:
            lines = [line for line in plain(done.stdout).splitlines() if line.strip()] or ["nothing was said"]
            say(f"{what} could not be fetched, so what needs it cannot be tried: {lines[-1]}")
