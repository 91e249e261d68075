"""What the benchmarks remember: each result with facts of its machine, and how it compares with the one before.

Results are JSON files in a folder (`--history`; by default `benchmarks` in the lab's state). A result is
compared with the last one of the same program, with the same setting, on the same kind of machine: as ratios,
figure by figure.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table

from lab import __version__
from lab.base.errors import LabError
from lab.base.files import write_atomically
from lab.base.paths import PACKAGE, Paths
from lab.machine.acceleration import AccelerationVerdict
from lab.machine.connection import format_version, get_default_uri, hold_connection

NOT_KNOWN = "not known"


class Machine(BaseModel):
    """What a benchmark ran on. Two machines with the same `kind` can be compared."""

    processor: str
    processors: int
    memory_gib: int
    kernel: str
    libvirt: str
    qemu: str
    acceleration: str
    lab: str
    commit: str

    @property
    def kind(self) -> tuple[object, ...]:
        return self.processor, self.processors, self.memory_gib, self.acceleration


class Figure(BaseModel):
    """One measured figure: the median of `times` measurements, if it was measured more than once."""

    name: str
    value: float
    unit: str
    times: int = 1

    @classmethod
    def median(cls, name: str, seconds: Sequence[float]) -> "Figure":
        """The median of several measurements, in seconds."""
        return cls(name=name, value=statistics.median(seconds), unit="s", times=len(seconds))


class Result(BaseModel):
    """What one run of a benchmark found. Results with another `setting` measured something else.

    `details` is what the program itself has to say, in its own form.
    """

    program: str
    setting: str
    made: datetime
    machine: Machine
    figures: list[Figure]
    details: Any = None


class Ratio(BaseModel):
    """A figure beside the one of an earlier result; `ratio` is now / before."""

    name: str
    unit: str
    before: float
    now: float

    @property
    def ratio(self) -> float | None:
        return self.now / self.before if self.before else None


def this_machine(paths: Paths) -> Machine:
    """Describe this machine; what cannot be found out is `not known`."""
    libvirt = qemu = NOT_KNOWN
    try:
        with hold_connection(get_default_uri()) as opened:
            libvirt, qemu = format_version(opened.getLibVersion()), format_version(opened.getVersion())
    except LabError:  # Not every benchmark needs it.
        pass
    return Machine(
        processor=_processor(),
        processors=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        kernel=platform.release(),
        libvirt=libvirt,
        qemu=qemu,
        acceleration=_acceleration(paths),
        lab=__version__,
        commit=_commit(),
    )


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _acceleration(paths: Paths) -> str:
    """What the lab found out about this host, if it ever looked."""
    try:
        return AccelerationVerdict.model_validate_json(paths.acceleration.read_text()).acceleration.name
    except (OSError, ValidationError):
        return NOT_KNOWN


def _commit() -> str:
    """The commit of the lab that is measured, with a plus sign if its files differ from it."""
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "lab"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return NOT_KNOWN
    return head.stdout.strip() + ("+" if changed else "")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all programs share."""
    parser.add_argument("--history", type=Path, metavar="DIR", help="keep results here, not in the lab's state")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result into this file, too")


def keep(
    console: Console,
    options: argparse.Namespace,
    program: str,
    *,
    setting: str,
    figures: list[Figure],
    details: object = None,
) -> Result:
    """Write a result down, and print how it compares with the last one on the same kind of machine."""
    paths = Paths.default()
    result = Result(
        program=program,
        setting=setting,
        made=datetime.now(UTC),
        machine=this_machine(paths),
        figures=figures,
        details=details,
    )
    folder: Path = options.history or paths.state / "benchmarks"
    before = last(folder, result)
    folder.mkdir(parents=True, exist_ok=True)
    text = result.model_dump_json(indent=2) + "\n"
    file = folder / f"{program}-{result.made:%Y%m%d-%H%M%S-%f}.json"
    write_atomically(file, text)
    if options.json:
        write_atomically(options.json, text)
    console.print(f"kept: {file}")
    if before is None:
        console.print("no earlier result of this kind of machine with this setting")
        return result
    show(console, before, compare(before, result))
    return result


def last(folder: Path, result: Result) -> Result | None:
    """The newest result in a folder that this one can be compared with. Skips files that are no results."""
    found = []
    for file in folder.glob(f"{result.program}-*.json"):
        try:
            each = Result.model_validate_json(file.read_bytes())
        except ValidationError:
            continue
        same = (each.program, each.setting, each.machine.kind)
        if same == (result.program, result.setting, result.machine.kind) and each.made < result.made:
            found.append(each)
    return max(found, key=lambda each: each.made, default=None)


def compare(before: Result, now: Result) -> list[Ratio]:
    """The figures that both results have, side by side."""
    known = {(figure.name, figure.unit): figure.value for figure in before.figures}
    return [
        Ratio(name=each.name, unit=each.unit, before=known[each.name, each.unit], now=each.value)
        for each in now.figures
        if (each.name, each.unit) in known
    ]


def show(console: Console, before: Result, ratios: list[Ratio]) -> None:
    """Print the figures beside those of before."""
    machine = before.machine
    console.print(
        f"against {before.made:%Y-%m-%d %H:%M} UTC, lab {machine.lab} {machine.commit}:", soft_wrap=True
    )
    table = Table("", "unit", "before", "now", "now / before", box=None)
    for each in ratios:
        ratio = "-" if each.ratio is None else f"{each.ratio:.2f}"
        table.add_row(each.name, each.unit, f"{each.before:.2f}", f"{each.now:.2f}", ratio)
    console.print(table)
