"""Measures the lab itself on runs of many cells, which are simulated: no guest is booted.

    python -m benchmarks.scale LIKE [--shape GUESTSxVARIANTS]... [--seconds S] [--folder DIR] [--json FILE]

LIKE is the folder of a real run, whose cells are copied (`benchmarks/simulated.py`). For each shape it makes
two runs with the lab's own scheduler, and then reports, publishes, compares, gates and resumes them. It prints
the processor time and the peak memory of each of these processes, and by how much each grows faster than the
number of cells.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import history
from benchmarks.simulated import Shape
from lab.lane.upkeep import size

SHAPES = ("3x10", "12x25", "12x250")
START = "start of Python"
# What a figure differs by from one time to the next.
LEAST_SECONDS, LEAST_MIB = 0.3, 5.0
# What is measured before the runs that everything else reads.
MAKE, LATER = "make the run", "make a later run"


@dataclass(frozen=True)
class Used:
    """What a process used: seconds, seconds of processor time, and MiB of memory at its peak."""

    wall: float
    cpu: float
    peak_mib: float


def measure(command: list[str], environment: Mapping[str, str], log: Path) -> Used:
    """Run a command to its end, its output in a file. Raises SystemExit if it failed as a bug does."""
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment))
        # Not `wait`: this tells what that one process used.
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # 1 and 3 say something about the cells.
    if process.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}: {log.read_text()[-2000:]}")
    return Used(time.monotonic() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def commands(run: str, later: str, site: Path) -> Iterator[tuple[str, list[str]]]:
    """What is measured on two runs, in this order: its name, and the arguments of `lab`."""
    yield START, ["--version"]
    for kind in ("table", "markdown", "html", "junit", "json", "github"):
        yield f"report --format {kind}", ["report", run, "--format", kind]
    yield "report --upstream", ["report", run, "--upstream"]
    yield "report --claims docs", ["report", run, "--claims", "docs"]
    yield "publish", ["publish", run, "-o", str(site)]
    yield "publish a second run too", ["publish", run, later, "-o", str(site)]
    yield "compare", ["compare", run, later]
    yield "baseline", ["baseline", run, "-o", str(site.with_name("baseline.toml"))]
    yield "gate", ["gate", later, "--against", run]
    yield "matrix --resume --list", ["matrix", "--resume", run, "--list"]
    yield "runs", ["runs"]


def measure_shape(like: Path, shape: Shape, seconds: float, folder: Path, console: Console) -> dict[str, Used]:
    """Make two runs of a shape below a folder and measure everything on them."""
    home = folder / str(shape)
    environment = {**os.environ, "LAB_HOME": str(home)}
    runs = home / "state" / "runs"
    runs.mkdir(parents=True)
    found: dict[str, Used] = {}

    def note(name: str, command: list[str]) -> None:
        found[name] = measure([sys.executable, "-m", *command], environment, home / "output")
        console.print(f"{shape.cells} cells: {name}: {found[name].wall:.1f} s, {found[name].peak_mib:.0f} MiB")

    make = ["benchmarks.simulated", str(like)]
    options = ["--shape", str(shape), "--seconds", str(seconds)]
    note(MAKE, [*make, str(runs / "first"), *options])
    note(LATER, [*make, str(runs / "later"), "--later", *options])
    for name, arguments in commands("first", "later", home / "site"):
        note(name, ["lab", *arguments])
    return found


def sizes(folder: Path, shape: Shape) -> dict[str, float]:
    """The sizes of the run's folder, its record and the site of two runs, in MiB."""
    home = folder / str(shape)
    first = home / "state" / "runs" / "first"
    in_bytes = {
        "the run's folder": size(first),
        "results.json": (first / "results.json").stat().st_size,
        "the site": size(home / "site"),
    }
    return {name: value / 2**20 for name, value in in_bytes.items()}


def growth(
    small: float, large: float, cells: tuple[int, int], start: float = 0.0, least: float = 0.0
) -> float | None:
    """How much more one cell costs in the larger run than in the smaller: 1.0 is linear.

    `start` is what is spent without any cell. None: the smaller run took at most `least` more than that, which
    could be chance.
    """
    if small - start <= least:
        return None
    below, above = (small - start) / cells[0], (large - start) / cells[1]
    return above / below


def show(
    console: Console, shapes: list[Shape], found: list[dict[str, Used]], sized: list[dict[str, float]]
) -> None:
    """Print the tables: one of processor time, one of memory, one of sizes."""
    cells = [shape.cells for shape in shapes]
    cpu = {name: [each[name].cpu for each in found] for name in found[0]}
    peak = {name: [each[name].peak_mib for each in found] for name in found[0]}
    folders = {name: [each[name] for each in sized] for name in sized[0]}
    show_one(console, "processor time, s", cells, cpu, cpu[START], LEAST_SECONDS)
    show_one(console, "peak memory, MiB", cells, peak, peak[START], LEAST_MIB)
    show_one(console, "size, MiB", cells, folders, [0.0] * len(cells), 0.0)


def show_one(
    console: Console,
    title: str,
    cells: list[int],
    rows: Mapping[str, list[float]],
    start: list[float],
    least: float,
) -> None:
    """Print one table, with the growth from each number of cells to the next."""
    steps = list(pairwise(cells))
    heads = [*(f"{count} cells" for count in cells), *(f"growth to {after}" for _, after in steps)]
    table = Table("", *heads, title=f"{title} (simulated cells)", title_justify="left", box=None)
    for name, values in rows.items():
        grown = [growth(values[n], values[n + 1], step, start[n], least) for n, step in enumerate(steps)]
        table.add_row(
            name,
            *[f"{value:.1f}" for value in values],
            *["" if each is None or name == START else f"{each:.2f}" for each in grown],
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("like", type=Path, metavar="LIKE", help="the folder of a real run")
    parser.add_argument("--shape", type=Shape.parse, action="append", metavar="GUESTSxVARIANTS")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long a simulated suite takes")
    parser.add_argument("--folder", type=Path, help="keep the runs below this folder")
    history.add_options(parser)
    options = parser.parse_args()
    shapes = options.shape or [Shape.parse(text) for text in SHAPES]
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name:
        folder = (options.folder or Path(name)).resolve()
        found = [measure_shape(options.like, shape, options.seconds, folder, console) for shape in shapes]
        sized = [sizes(folder, shape) for shape in shapes]
    show(console, shapes, found, sized)
    history.keep(
        console,
        options,
        "scale",
        setting=", ".join(map(str, shapes)),
        note="The cells are simulated.",
        figures=[
            history.Figure(name=f"{name}, {shape.cells} cells", value=getattr(used, field), unit=unit)
            for shape, each in zip(shapes, found, strict=True)
            for name, used in each.items()
            for field, unit in (("cpu", "processor s"), ("wall", "s"), ("peak_mib", "MiB"))
        ]
        + [
            history.Figure(name=f"{name}, {shape.cells} cells", value=value, unit="MiB")
            for shape, each in zip(shapes, sized, strict=True)
            for name, value in each.items()
        ],
    )


if __name__ == "__main__":
    main()
