"""Measures what each fault of a run on several hosts costs: three real workers, with stand-ins for their lanes.

    python -m benchmarks.faults [--only WORD]... [--repeat N]

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
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import history
from benchmarks.striking import Scene, Seen
from tests.fleet import small_disk
from tests.fleet.cable import NoNamespaces, laid
from tests.fleet.small_disk import NoMounts

LOST = "one was lost with part"


def _told(scene: Scene, pattern: str) -> Seen:
    """What is seen of a fault of which the coordinator tells by such a line."""
    noticed, line = scene.wait(pattern)
    again = scene.runs_again()
    return Seen(noticed, again, scene.all_decided(), line.partition("note: ")[2])


def kill_worker(scene: Scene) -> Seen:
    scene.strike()
    scene.worker.kill()
    return _told(scene, LOST)


def kill_child(scene: Scene) -> Seen:
    scene.strike()
    scene.children[0].kill()
    return _told(scene, "the lab on one ended with exit status -9")


def stop_worker(scene: Scene) -> Seen:
    scene.strike()
    scene.worker.suspend()
    return _told(scene, LOST)


def cut_link(scene: Scene) -> Seen:
    assert scene.cable is not None
    scene.strike()
    scene.cable.cut()
    noticed, line = scene.wait(LOST)
    scene.cable.mend()
    return Seen(noticed, scene.runs_again(), scene.all_decided(), line.partition("note: ")[2])


def go_on(scene: Scene, pattern: str) -> Seen:
    """What is wrong with the host strikes when its child goes on."""
    scene.strike()
    scene.gate.touch()
    return _told(scene, pattern)


def _interrupted(*signals: int) -> Callable[[Scene], Seen]:
    def strike(scene: Scene) -> Seen:
        scene.strike()
        for number in signals:
            scene.command.process.send_signal(number)
            time.sleep(0.2 if len(signals) > 1 else 0)  # Two at once may be delivered as one.
        noticed = scene.children_ended()
        scene.command.ends()
        words = f"its process ended after {scene.since():.1f} s; --resume began after that"
        scene.resume()
        return Seen(noticed, scene.runs_again(), scene.all_decided(), words)

    return strike


def with_cable(folder: Path, stack: ExitStack) -> Scene:
    return Scene(folder, stack, cable=stack.enter_context(laid()))


def with_small_disk(folder: Path, stack: ExitStack) -> Scene:
    disk = stack.enter_context(small_disk.mounted(folder / "small", "size=100k,nr_inodes=200"))
    return Scene(folder, stack, environment=f"export TMPDIR={disk}", control={"bulk": 500_000})


def with_other_definitions(folder: Path, stack: ExitStack) -> Scene:
    return Scene(folder, stack, control={"refuse": "other definitions: seed"})


# The name of each fault, how it strikes, and what makes its scene.
FAULTS: dict[str, tuple[Callable[[Scene], Seen], Callable[[Path, ExitStack], Scene]]] = {
    "kill -9 of a worker": (kill_worker, Scene),
    "kill -9 of its child": (kill_child, Scene),
    "kill -9 of the coordinator": (_interrupted(signal.SIGKILL), Scene),
    "Ctrl-C": (_interrupted(signal.SIGINT), Scene),
    "Ctrl-C twice": (_interrupted(signal.SIGINT, signal.SIGINT), Scene),
    "a host's disk is full": (partial(go_on, pattern="No space left on device"), with_small_disk),
    "a host has other definitions": (partial(go_on, pattern="one gets no more parts"), with_other_definitions),
    "SIGSTOP of a worker": (stop_worker, Scene),
    "a link is cut, and back": (cut_link, with_cable),
}


def measure(name: str) -> Seen:
    """Make a fault once. Raises NoNamespaces, NoMounts."""
    strike, make = FAULTS[name]
    with tempfile.TemporaryDirectory(prefix="lab-benchmark-") as folder, ExitStack() as stack:
        scene = make(Path(folder), stack)
        seen = strike(scene)
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
        counted = [str(sum(getattr(seen, key) for seen in all_seen)) for key in ("lost", "twice")]
        left = ", ".join(sorted({each for seen in all_seen for each in seen.left})) or "nothing"
        table.add_row(name, str(len(all_seen)), *seconds, *counted, left, all_seen[-1].words)
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
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="how often each is made")
    history.add_options(parser)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 300, highlight=False)
    found: dict[str, list[Seen]] = {}
    for name in [each for each in FAULTS if any(word in each for word in options.only or [""])]:
        try:
            for _ in range(options.repeat):
                found.setdefault(name, []).append(measure(name))
                console.print(f"{name}: {found[name][-1]}", soft_wrap=True)
        except (NoNamespaces, NoMounts) as error:
            console.print(f"{name}: not made: {error}")
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
    setting = f"three workers, stand-ins for lanes, {', '.join(found)}"
    history.keep(console, options, "faults", setting=setting, figures=figures)


if __name__ == "__main__":
    main()
