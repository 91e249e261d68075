"""Measures what each fault of a run on several hosts costs: three real workers, with stand-ins for their lanes.

    python -m benchmarks.faults [--only WORD]... [--repeat N] [--slow N]

Each fault strikes a host, or the coordinator, in the middle of a part. Seconds are from then on until the
coordinator tells of it (or, where that was struck, until the host's child has gone), until the part runs again,
and until the last cell is decided. Cells that were lost, or decided twice, are counted in the record and in
run.log; what is left is looked for after one more command on each host.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import history
from benchmarks.striking import Scene, Seen
from tests.fleet import clocks, small_disk
from tests.fleet.cable import NoNamespaces, laid
from tests.fleet.small_disk import NoMounts

Strike = Callable[[Scene], Seen]
STANDSTILL_SECONDS = 70.0
LOST = "one has gone, in the middle of a part"


class CannotBe(Exception):
    """No such fault can be made on this host, or by this user."""


@dataclass(frozen=True)
class Fault:
    """A fault. `makes` makes its scene; `is_slow`: a host that does not answer is waited for."""

    name: str
    strikes: Strike
    makes: Callable[[Path, ExitStack], Scene] = Scene
    is_slow: bool = False


def _told(scene: Scene, pattern: str) -> Seen:
    """What is seen of a fault of which the coordinator tells by such a line."""
    noticed, line = scene.wait(pattern)
    words = line.partition("note: ")[2]
    again = scene.runs_again()
    return Seen(noticed, again, scene.all_decided(), words)


def kill_worker(scene: Scene) -> Seen:
    scene.strike()
    scene.one.kill()
    return _told(scene, LOST)


def kill_child(scene: Scene) -> Seen:
    scene.strike()
    scene.children[0].kill()
    return _told(scene, "the lab on one ended with exit status -9")


def kill_coordinator(scene: Scene) -> Seen:
    return _interrupted(scene, signal.SIGKILL)


def interrupt(scene: Scene) -> Seen:
    return _interrupted(scene, signal.SIGINT)


def interrupt_twice(scene: Scene) -> Seen:
    return _interrupted(scene, signal.SIGINT, signal.SIGINT)


def _interrupted(scene: Scene, *signals: int) -> Seen:
    scene.strike()
    for number in signals:
        scene.command.process.send_signal(number)
        time.sleep(0.2 if len(signals) > 1 else 0)  # Two at once may be delivered as one.
    noticed = scene.children_ended()
    gone = scene.ends()
    scene.resume()
    words = f"its process ended after {gone:.1f} s; seconds from there on are those of --resume"
    return Seen(noticed, scene.runs_again(), scene.all_decided(), words)


def stop_worker(scene: Scene) -> Seen:
    scene.strike()
    scene.one.kill(signal.SIGSTOP)
    return _told(scene, LOST)


def stop_worker_for_a_while(scene: Scene) -> Seen:
    """Its child ends meanwhile; it wakes up when another host runs the part."""
    for other in scene.others:
        other.does(seconds=10)
    scene.strike()
    scene.one.kill(signal.SIGSTOP)
    scene.gate.touch()
    noticed, line = scene.wait(LOST)
    again = scene.runs_again()
    scene.one.kill(signal.SIGCONT)
    return Seen(noticed, again, scene.all_decided(), line.partition("note: ")[2])


def stop_coordinator_for_a_while(scene: Scene) -> Seen:
    """For longer than a host may be silent; seconds are from its waking up on."""
    scene.command.process.send_signal(signal.SIGSTOP)
    time.sleep(STANDSTILL_SECONDS)
    scene.command.process.send_signal(signal.SIGCONT)
    scene.strike()
    scene.gate.touch()
    ended = scene.all_decided()
    gone = [line for line in scene.command.said().splitlines() if " has gone" in line]
    return Seen(ended=ended, words="; ".join(gone) or "nothing")


def cut_link(scene: Scene) -> Seen:
    assert scene.cable is not None
    scene.strike()
    scene.cable.cut()
    noticed, line = scene.wait(LOST)
    scene.cable.mend()
    again = scene.runs_again()
    return Seen(noticed, again, scene.all_decided(), line.partition("note: ")[2])


def fill_disk(scene: Scene) -> Seen:
    return _open(scene, "No space left on device")


def refuse(scene: Scene) -> Seen:
    return _open(scene, "one gets no more parts")


def cut_off(scene: Scene) -> Seen:
    return _open(scene, "cut off")


def _open(scene: Scene, pattern: str) -> Seen:
    scene.strike()
    scene.gate.touch()
    return _told(scene, pattern)


def go_on(scene: Scene) -> Seen:
    """Nothing strikes; the part that waited comes to its end."""
    scene.strike()
    scene.gate.touch()
    return Seen(ended=scene.all_decided(), words="nothing")


# -- scenes


def with_cable(folder: Path, stack: ExitStack) -> Scene:
    try:
        return Scene(folder, stack, cable=stack.enter_context(laid()))
    except NoNamespaces as error:
        raise CannotBe(f"no network namespaces: {error}") from error


def with_small_disk(folder: Path, stack: ExitStack) -> Scene:
    try:
        disk = stack.enter_context(small_disk.mounted(folder / "small"))
    except NoMounts as error:
        raise CannotBe(str(error)) from error
    return Scene(folder, stack, temporary=disk, control={"bulk": 200_000})


def with_another_lab(folder: Path, stack: ExitStack) -> Scene:
    return Scene(folder, stack, control={"refuse": "other definitions: seed"})


def with_damage(folder: Path, stack: ExitStack) -> Scene:
    return Scene(folder, stack, control={"cut_off": True})


def with_a_fast_clock(folder: Path, stack: ExitStack) -> Scene:
    library = clocks.library()
    if library is None:
        raise CannotBe("no libfaketime")
    return Scene(folder, stack, environment=clocks.off_by(timedelta(hours=1), library))


FAULTS = [
    Fault("none", go_on),
    Fault("kill -9 of a worker", kill_worker),
    Fault("kill -9 of its child", kill_child),
    Fault("kill -9 of the coordinator", kill_coordinator),
    Fault("Ctrl-C", interrupt),
    Fault("Ctrl-C twice", interrupt_twice),
    Fault("a worker's disk is full", fill_disk, with_small_disk),
    Fault("a worker has other definitions", refuse, with_another_lab),
    Fault("a result is cut off", cut_off, with_damage),
    Fault("a worker's clock is an hour fast", go_on, with_a_fast_clock),
    Fault("SIGSTOP of a worker", stop_worker, is_slow=True),
    Fault("SIGSTOP, and SIGCONT once it is lost", stop_worker_for_a_while, is_slow=True),
    Fault("the coordinator stands still for 70 s", stop_coordinator_for_a_while, is_slow=True),
    Fault("a link is cut, and back", cut_link, with_cable, is_slow=True),
]


def measure(fault: Fault) -> Seen:
    """Make a fault once. Raises CannotBe."""
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as name, ExitStack() as stack:
        folder = Path(name) / "faults"
        folder.mkdir()
        scene = fault.makes(folder, stack)
        seen = fault.strikes(scene)
        scene.count(seen)
        return seen


def show(console: Console, found: dict[str, list[Seen]]) -> None:
    """Print the table."""
    heads = ("fault", "times", "noticed, s", "runs again, s", "all decided, s", "lost", "twice", "left", "told")
    table = Table(*heads, box=box.MARKDOWN)
    for name, all_seen in found.items():
        seconds = [
            _range([value for seen in all_seen if (value := getattr(seen, key)) is not None])
            for key in ("noticed", "again", "ended")
        ]
        counted = [str(sum(values)) for values in zip(*((s.lost, s.twice) for s in all_seen), strict=True)]
        left = sorted({each for seen in all_seen for each in seen.left})
        table.add_row(
            name, str(len(all_seen)), *seconds, *counted, ", ".join(left) or "nothing", all_seen[-1].words
        )
    console.print(table)


def _range(values: Sequence[float]) -> str:
    """The median, and the least and the most."""
    if not values:
        return "-"
    median, least, most = (f"{each:.3g}" for each in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", metavar="WORD", help="faults whose name has it")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="how often quick faults are made")
    parser.add_argument("--slow", type=int, default=2, metavar="N", help="and those that take minutes")
    history.add_options(parser)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 300, highlight=False)
    chosen = [each for each in FAULTS if any(word in each.name for word in options.only or [""])]
    found: dict[str, list[Seen]] = {}
    for fault in chosen:
        try:
            for _ in range(options.slow if fault.is_slow else options.repeat):
                seen = measure(fault)
                found.setdefault(fault.name, []).append(seen)
                console.print(f"{fault.name}: {seen}", soft_wrap=True)
        except CannotBe as error:
            console.print(f"{fault.name}: not made: {error}")
    show(console, found)
    figures = [
        history.Figure.median(f"{name}: {key}", values)
        for name, all_seen in found.items()
        for key in ("noticed", "again", "ended")
        if (values := [value for seen in all_seen if (value := getattr(seen, key)) is not None])
    ]
    for key in ("lost", "twice"):
        number = sum(getattr(seen, key) for all_seen in found.values() for seen in all_seen)
        figures.append(history.Figure(name=f"cells {key}", value=number, unit="cells"))
    history.keep(
        console,
        options,
        "faults",
        setting=f"three workers, {', '.join(found)}",
        figures=figures,
        note="The lanes are stand-ins.",
    )


if __name__ == "__main__":
    main()
