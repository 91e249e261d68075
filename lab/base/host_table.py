"""In what the hosts of the lab differ: `hosts.table`, which setup.sh reads too."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("hosts.table")
SAME, NOTHING = "=", "-"


@dataclass(frozen=True)
class HostKind:
    """One column of the table: a distribution's release, and what the lab needs to know of it."""

    host: str
    values: Mapping[str, str]

    @property
    def distribution(self) -> str:
        """The ID of /etc/os-release."""
        return self.host.partition("-")[0]

    @property
    def name(self) -> str:
        return self.values["name"]

    @property
    def units(self) -> list[str]:
        """What systemd starts for the system's daemon of libvirt."""
        return self.values["units"].split()

    @property
    def daemons(self) -> list[str]:
        """The programs of libvirt that are started where there is no systemd."""
        return self.values["daemons"].split()

    def packages(self, need: str) -> str:
        """The packages for a need, as text for users: `uefi` is the row `package.uefi` or `user.uefi`."""
        return next(text for what, text in self.values.items() if what.partition(".")[2] == need)


@cache
def columns() -> list[HostKind]:
    """All columns, in the order of the table."""
    rows: dict[str, list[str]] = {}
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            what, *cells = (cell.strip() for cell in line.split("|"))
            values: list[str] = []
            for cell in cells:
                values.append(values[-1] if cell == SAME else "" if cell == NOTHING else cell)
            rows[what] = values
    return [
        HostKind(host, {what: values[number] for what, values in rows.items()})
        for number, host in enumerate(rows["host"])
    ]


def choose(os_release: Mapping[str, str]) -> HostKind | None:
    """The column for a host: its own, else the newest of its distribution or of one that it is like.

    None if the table has none. setup.sh chooses in the same way, and says if the column is not the host's own.
    """
    by_host = {column.host: column for column in columns()}
    own = by_host.get(f"{os_release.get('ID', '')}-{os_release.get('VERSION_ID', '')}")
    if own:
        return own
    newest = {column.distribution: column for column in columns()}
    names = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    return next((newest[name] for name in names if name in newest), None)


def this_host() -> HostKind | None:
    """The column for this host, if the table has one."""
    try:
        return choose(platform.freedesktop_os_release())
    except OSError:
        return None


def install(need: str) -> str:
    """Say which packages to install for a need: on this host, or on each distribution of the table."""
    here = this_host()
    if here:
        return f"install {here.packages(need)}"
    newest = {column.distribution: column for column in columns()}
    return f"install {', '.join(f'{host.packages(need)} ({host.name})' for host in newest.values())}"
