"""Gives each reader of outside data thousands of hostile inputs: `python -m tests.fuzz [READER...]`.

Whatever a reader raises beside the lab's own errors is a traceback: it is printed with the smallest input.
"""

import argparse
import random
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from lab.base.errors import LabError, NotApplicable
from lab.base.files import bounded
from tests.fuzz.readers import READERS, Reader

INPUTS = 1_000
# Of the processor's time. A reader of 128 KiB that needs so long needs more per byte the more it gets.
SECONDS = 5.0
MOST_FOUND = 12
MOST_SHOWN = 2_000


class TooSlow(BaseException):
    """A reader did not come to its end in time. No `except Exception` of a reader catches it."""


@dataclass
class Tried:
    """What became of a reader: its inputs, how many it took, the slowest, and its tracebacks by place."""

    inputs: int = 0
    taken: int = 0
    slowest: float = 0.0
    tracebacks: dict[str, str] = field(default_factory=dict)


@contextmanager
def _in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TooSlow(f"it read for {SECONDS:.0f} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 1)  # Again: in a callback of the collector it is lost.
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _place(error: BaseException) -> str:
    """Where an error arose: the last line of the lab's own."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/lab/" in frame.filename]
    last = frames[-1] if frames else None
    return (
        f"{type(error).__name__} {last.filename.rpartition('/lab/')[2]}:{last.lineno}" if last else repr(error)
    )


def attempt(reader: Reader, inputs: int, number: int) -> Tried:
    """Give a reader so many inputs, which the seed `number` chooses; go on after each traceback that is new."""
    tried = Tried()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Of long inputs, and of names that an archive has twice: they are meant.
        while len(tried.tracebacks) < MOST_FOUND and (failure := _until_failure(reader, inputs, number, tried)):
            tried.tracebacks[_place(failure[0])] = _shown(*failure)
    return tried


def _attempt(name: str, inputs: int, number: int) -> Tried:
    """In a process of its own, which has the readers, and cannot be sent one."""
    return attempt(next(reader for reader in READERS if reader.name == name), inputs, number)


def _until_failure(reader: Reader, inputs: int, number: int, tried: Tried) -> tuple[Exception, Any] | None:
    last: list[Any] = [None]
    expected: tuple[type[Exception], ...] = (LabError, NotApplicable, *reader.expected)

    @seed(number)
    @settings(
        max_examples=max(3, inputs // reader.cost),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def read(content: Any) -> None:
        last[0] = content
        tried.inputs += 1
        began = time.process_time()
        try:
            with tempfile.TemporaryDirectory() as folder, _in_time():
                reader.read(content, Path(folder))
            tried.taken += 1
        except expected:
            pass
        except TooSlow as error:
            # Not raised: smaller ones would each take as long to find.
            tried.tracebacks.setdefault(_place(error), _shown(error, content))
        except Exception as error:
            if _place(error) not in tried.tracebacks:
                raise
        tried.slowest = max(tried.slowest, time.process_time() - began)

    try:
        read()
    except Exception as error:
        return error, last[0]
    return None


def _shown(error: BaseException, content: Any) -> str:
    text = re.sub(r"(.{1,8}?)\1{20,}", lambda run: f"<{run[1]} * {len(run[0]) // len(run[1])}>", repr(content))
    return f"{str(error)[:200]}\n    {bounded(text, MOST_SHOWN)}"


def main() -> int:
    """Try the readers, print a line for each and every traceback; 1 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="how many inputs the quickest readers get")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="as another run printed it")
    parser.add_argument("reader", nargs="*", help="a part of the names of readers; all without one")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chosen = [
        reader
        for reader in READERS
        if not options.reader or any(word in reader.name for word in options.reader)
    ]
    failures, tries = 0, {}
    with ProcessPoolExecutor() as pool:
        for reader in chosen:
            tries[reader.name] = pool.submit(_attempt, reader.name, options.inputs, options.seed)
        for reader in chosen:
            tried = tries[reader.name].result()
            failures += len(tried.tracebacks)
            print(
                f"{reader.source:6} {reader.name:30} {tried.inputs:6} inputs, {tried.taken:6} taken, "
                f"the slowest {tried.slowest:5.2f} s, {len(tried.tracebacks)} tracebacks",
                flush=True,
            )
            for place, text in tried.tracebacks.items():
                print(f"  {place}: {text}", flush=True)
    print(f"{len(chosen)} readers, {failures} tracebacks")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
