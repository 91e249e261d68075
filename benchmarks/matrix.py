"""Measures what checkpoints save: runs the same plan alternately with forked and with cold cells.

    python -m benchmarks.matrix [--rounds N] [--jobs N] [-g GUEST]... [-v VARIANT]... [--json FILE]
    python -m benchmarks.matrix --grow [--jobs N] [--json FILE]

Processor time and memory are those of the QEMU processes of the lab's lanes. No other lab should run on the
host.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import history, usage
from lab.record import RunResult

LANES = (1, 2, 4)
STEPS = ("boot", "fetch", "deploy", "checkpoint", "fork", "apply", "suite", "evidence")


# What is compared with earlier results.
FIGURES = (
    ("wall", "wall time", "s"),
    ("cpu", "QEMU", "processor s"),
    ("peak_mib", "most memory of QEMU", "MiB"),
    ("suite_per_cell", "suite, per cell", "s"),
    ("not_suite_per_cell", "not suite, per cell", "s"),
)

Measure = Callable[[list[str]], dict[str, Any]]


def run(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one `lab matrix` and return its time, memory and seconds by step."""
    command = [sys.executable, "-m", "lab", "matrix", "--quiet", "--no-remedies", "-o", str(folder), *arguments]
    start = time.monotonic()
    with usage.sampled() as used:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.monotonic() - start
    if not (folder / "results.json").exists():
        raise SystemExit(done.stdout + done.stderr)
    result = RunResult.read(folder)
    cells = [cell for cell in result.cells if cell.tests]
    lanes = [lane.seconds for lane in result.run.lanes]
    # A cold cell's seconds are already those of its lane.
    own = [] if result.run.options.cold else [cell.seconds for cell in cells]
    suite = sum(cell.seconds.get("suite", 0.0) for cell in cells)
    everything = sum(sum(seconds.values()) for seconds in [*lanes, *own])
    return {
        "arguments": arguments,
        "statuses": [str(cell.status) for cell in result.cells],
        "cells": len(cells),
        "lanes": len(lanes),
        "restored": sum(lane.restored for lane in result.run.lanes),
        "stored_build": sum(lane.stored_build for lane in result.run.lanes),
        "wall": round(wall, 1),
        "cpu": round(used.seconds, 1),
        "peak_mib": round(used.peak_mib),
        "suite_per_cell": round(suite / len(cells), 2),
        "not_suite_per_cell": round((everything - suite) / len(cells), 2),
        "steps": {
            step: round(statistics.median(found), 2)
            for step in STEPS
            if (found := [seconds[step] for seconds in [*lanes, *own] if step in seconds])
        },
    }


def show(console: Console, title: str, runs: list[dict[str, Any]], labels: list[str]) -> None:
    table = Table("", *labels, title=title, title_justify="left", box=None)
    for key, name in (
        ("cells", "cells that ran a suite"),
        ("lanes", "lanes"),
        ("restored", "  from a stored state"),
        ("stored_build", "  with the build"),
        ("wall", "wall time, s"),
        ("cpu", "processor time of QEMU, s"),
        ("peak_mib", "most memory of QEMU, MiB"),
        ("suite_per_cell", "suite, s per cell"),
        ("not_suite_per_cell", "not suite, s per cell"),
    ):
        table.add_row(name, *[str(each[key]) for each in runs])
    for step in STEPS:
        table.add_row(f"  {step}, median s", *[str(each["steps"].get(step, "")) for each in runs])
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-g", dest="guests", action="append", default=[], metavar="GUEST")
    parser.add_argument("-v", dest="variants", action="append", default=[], metavar="VARIANT")
    parser.add_argument("--build", default="0.10.8")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--grow", action="store_true", help="the quick set, forked only: by cells, by lanes")
    history.add_options(parser)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    chosen = [word for guest in options.guests for word in ("-g", guest)]
    chosen += [word for variant in options.variants for word in ("-v", variant)]
    plan = [*(chosen or ["--set", "quick"]), "--build", options.build]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name:
        folder = Path(name)

        def measure(arguments: list[str]) -> dict[str, Any]:
            found.append(run(arguments, folder / str(len(found))))
            if options.json:
                options.json.write_text(json.dumps(found, indent=2) + "\n")
            return found[-1]

        if options.grow:
            grow(console, measure, options.build, options.jobs)
            grown = [each for one in found for each in figures(" ".join(one["arguments"]), [one])]
            history.keep(console, options, "matrix", setting="--grow", figures=grown, details=found)
            return
        labels = [f"{way} {number + 1}" for number in range(options.rounds) for way in ("forked", "cold")]
        for label in labels:
            measure([*plan, "--jobs", str(options.jobs), *(["--cold"] if "cold" in label else [])])
        show(console, f"{' '.join(plan)}, {options.jobs} lanes", found, labels)
    forked, cold = found[::2], found[1::2]
    for key, name in (("wall", "wall time"), ("cpu", "processor time"), ("not_suite_per_cell", "not suite")):
        ratios = [b[key] / a[key] for a, b in zip(forked, cold, strict=True)]
        console.print(f"cold / forked, {name}: {', '.join(f'{ratio:.1f}' for ratio in ratios)}")
    for each in forked:
        share = each["not_suite_per_cell"] / each["suite_per_cell"]
        console.print(f"forked: not suite / suite: {share:.0%}")
    setting = f"{' '.join(plan)}, {options.jobs} lanes"
    both = figures("forked", forked) + figures("cold", cold)
    history.keep(console, options, "matrix", setting=setting, figures=both, details=found)


def figures(name: str, runs: list[dict[str, Any]]) -> list[history.Figure]:
    """The medians over runs of the same kind."""
    return [
        history.Figure(
            name=f"{name}: {what}",
            value=statistics.median(each[key] for each in runs),
            unit=unit,
            times=len(runs),
        )
        for key, what, unit in FIGURES
    ]


def grow(console: Console, measure: Measure, build: str, jobs: int) -> None:
    """Measure by cells (one guest, three guests, all guests that are built locally), then by lanes."""
    more = ["--build", build, "--jobs"]
    by_cells = [["-g", "debian-13", "--set", "quick"], ["--set", "quick"], ["--set", "built"]]
    cells = [measure([*plan, *more, str(jobs)]) for plan in by_cells]
    show(console, f"by cells, {jobs} lanes", cells, [str(len(each["statuses"])) for each in cells])
    lanes = {jobs: cells[1]} | {n: measure(["--set", "quick", *more, str(n)]) for n in LANES if n != jobs}
    show(console, "the quick set, by lanes", [lanes[n] for n in LANES], [f"{n} lanes" for n in LANES])


if __name__ == "__main__":
    main()
