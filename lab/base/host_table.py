"""In what the hosts of the lab differ: `hosts.table`, which setup.sh reads too."""

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("hosts.table")
# One host of the table, a distribution's release: what each row says of it.
Column = Mapping[str, str]


@cache
def columns() -> list[Column]:
    """All hosts, in the order of the table."""
    rows: dict[str, list[str]] = {}
    for line in TABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            row, *cells = (cell.strip() for cell in line.split("|"))
            values: list[str] = []
            for cell in cells:
                values.append(values[-1] if cell == "=" else "" if cell == "-" else cell)
            rows[row] = values
    return [dict(zip(rows, column, strict=True)) for column in zip(*rows.values(), strict=True)]


def newest() -> dict[str, Column]:
    """The newest host of each distribution, by the ID of its /etc/os-release."""
    return {column["host"].partition("-")[0]: column for column in columns()}


def choose(os_release: Mapping[str, str]) -> Column | None:
    """The column for a host: its own, else the newest of its distribution or of one that it is like.

    None if the table has none. setup.sh chooses in the same way, and says if the column is not the host's own.
    """
    host = f"{os_release.get('ID', '')}-{os_release.get('VERSION_ID', '')}"
    names = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    like = (newest()[name] for name in names if name in newest())
    return next((column for column in columns() if column["host"] == host), None) or next(like, None)


def find_host_column() -> Column | None:
    """The column for this host, if the table has one."""
    try:
        return choose(platform.freedesktop_os_release())
    except OSError:
        return None


def suggest_packages(need: str) -> str:
    """Say which packages to install for a need: on this host, or on each distribution of the table.

    The need `clock` is the row `package.clock` or `user.clock`; a need with a dot is a row.
    """

    def packages(column: Column) -> str:
        return next(text for row, text in column.items() if need in (row, row.partition(".")[2]))

    if host_column := find_host_column():
        return f"install {packages(host_column)}"
    return f"install {', '.join(f'{packages(host)} ({host["name"]})' for host in newest().values())}"
