"""Counts how often an emulated machine ends while boxes run in it, and times a box, for one kind of processor.

A box without the jailer starts, runs a command and ends, again and again in one guest. If the machine ends, the
reason is noted and a fresh one runs the rest.
"""

import argparse
import json
import statistics
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks import history
from lab import builds, catalog
from lab.base.errors import LabError
from lab.base.notices import quiet_libraries
from lab.base.paths import Paths
from lab.lane import shell
from lab.machine import domain
from lab.machine.connection import default_uri
from lab.plan import Cell

# Runs in the guest, in the folder of the suite: a line for each box, with its seconds.
LOOP = """
import asyncio, os, sys, tempfile, time
from pathlib import Path
from boxes import Boxes
from boxlite import Boxlite, Options, SecurityOptions

async def main():
    for _ in range(int(sys.argv[1])):
        with tempfile.TemporaryDirectory() as home:
            start = time.monotonic()
            runtime = Boxlite(Options(home_dir=home))
            boxes = Boxes(runtime, Path(home), os.environ["LAB_ROOTFS"], lambda *_: None)
            await boxes.assert_echoes(SecurityOptions.development())
            print("%.1f" % (time.monotonic() - start), flush=True)

asyncio.run(main())
"""
# More machines than this end without a box in between if something else is wrong.
MOST_IN_VAIN = 3


@dataclass(frozen=True)
class Processor:
    """A machine's processors: the model (empty: as the lab has it), the features left out, how many."""

    model: str
    without: tuple[str, ...]
    count: int

    @property
    def said(self) -> str:
        """All of it in one phrase."""
        without = f" without {', '.join(self.without)}" if self.without else ""
        return f"{self.count} processors, model {self.model or 'of the lab'}{without}"

    def applied(self, xml: str) -> str:
        """Return a domain's XML with this processor."""
        root = ET.fromstring(xml)
        cpu, count = root.find("cpu"), root.find("vcpu")
        assert cpu is not None
        assert count is not None
        count.text = str(self.count)
        if self.model:
            cpu.attrib = {"mode": "custom", "match": "exact", "check": "none"}
            ET.SubElement(cpu, "model", fallback="forbid").text = self.model
            ET.SubElement(cpu, "feature", policy="require", name="svm")
        for name in self.without:
            ET.SubElement(cpu, "feature", policy="disable", name=name)
        return ET.tostring(root, encoding="unicode")


@dataclass
class Measured:
    """Seconds of each box, and of each machine until a box could run; how machines ended before their time."""

    processor: Processor
    boxes: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    ends: list[dict[str, object]] = field(default_factory=list)

    def said(self) -> str:
        """One line about it."""
        middle = statistics.median(self.boxes) if self.boxes else 0
        return f"{len(self.boxes)} boxes, median {middle:.1f} s; {len(self.ends)} machines ended"


def run_boxes(cell: Cell, paths: Paths, wanted: int) -> Iterator[float]:
    """Run boxes in one guest and yield the seconds of each, after the seconds until the guest was ready.

    Raises LabError if the machine ends.
    """
    start = time.monotonic()
    with shell.ready(cell, paths, default_uri(), lambda text: None) as opened:
        yield time.monotonic() - start
        command = opened.entrance.command(["python3", "-u", "-c", LOOP, str(wanted)])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    yield float(line)
                status = process.wait()
            finally:
                process.kill()
        opened.check_alive()
        if status != 0:
            raise LabError(f"the loop of boxes ended with exit status {status}")


def measure(processor: Processor, guest: str, build: str, wanted: int, file: Path | None) -> Measured:
    """Run boxes until `wanted` of them have ended, on as many machines as that takes."""
    paths = Paths.default()
    known = catalog.load()
    cell = Cell(known.guest(guest), known.variant("stock"), builds.resolve(build))
    found = Measured(processor)
    in_vain = 0
    while len(found.boxes) < wanted and in_vain < MOST_IN_VAIN:
        before = len(found.boxes)
        try:
            seconds = run_boxes(cell, paths, wanted - before)
            found.ready.append(next(seconds))
            keep(found, file)
            for each in seconds:
                found.boxes.append(each)
                keep(found, file)
        except LabError as error:
            found.ends.append({"after": len(found.boxes) - before, "why": str(error).partition("\n")[0]})
            print(f"after {len(found.boxes) - before} boxes: {error}")
            in_vain = in_vain + 1 if len(found.boxes) == before else 0
        keep(found, file)
    return found


def keep(found: Measured, file: Path | None) -> None:
    """Write what was measured so far: the program may be ended before the last box."""
    if file:
        file.write_text(json.dumps(asdict(found), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guest", default="debian-13")
    parser.add_argument("--build", default="0.10.8")
    parser.add_argument("--boxes", type=int, default=100)
    parser.add_argument("--model", default="", help="a model that QEMU knows, for example EPYC-Rome")
    parser.add_argument("--without", action="append", default=[], help="a feature, for example la57 or npt")
    parser.add_argument("--cpus", type=int, default=2)
    history.add_options(parser)
    arguments = parser.parse_args()
    quiet_libraries()
    processor = Processor(arguments.model, tuple(arguments.without), arguments.cpus)
    own = domain.to_xml
    domain.to_xml = lambda spec: processor.applied(own(spec))
    found = measure(processor, arguments.guest, arguments.build, arguments.boxes, arguments.json)
    print(found.said())
    seconds = {"box": found.boxes, "machine until a box can run": found.ready}
    ends = history.Figure(name="machines that ended", value=len(found.ends), unit="machines")
    history.keep(
        Console(highlight=False),
        arguments,
        "boxes",
        setting=f"{arguments.guest}, {arguments.build}, {processor.said}",
        figures=[*(history.Figure.median(name, each) for name, each in seconds.items() if each), ends],
        details=asdict(found),
    )


if __name__ == "__main__":
    main()
