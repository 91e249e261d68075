"""Hostile inputs for each reader of outside data: a few, the same in every run, or $FUZZ_INPUTS at random.

Whatever a reader raises beside the lab's own errors is a traceback: hypothesis shows the smallest input.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from lab.base.errors import LabError, NotApplicable
from tests.fuzz.readers import READERS, Reader

# How many inputs the quickest readers get; 0: ten, which are the same in every run.
INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
# Of the processor's time. A reader of 128 KiB that needs so long needs more per byte the more it gets.
SECONDS = 5.0


class TooSlow(BaseException):
    """A reader did not come to its end in time. No `except Exception` of a reader catches it."""


@contextmanager
def in_time(content: Any) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TooSlow(f"it read for {SECONDS:.0f} s: {content!r:.2000}")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 1)  # Again: in a callback of the collector it is lost.
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# Of long inputs, and of names that an archive has twice: they are meant.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_of_outside_data_has_no_traceback(reader: Reader) -> None:
    taken = 0

    @settings(
        max_examples=max(3, (INPUTS or 10) // reader.cost),
        derandomize=not INPUTS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def read(content: Any) -> None:
        nonlocal taken
        expected = (LabError, NotApplicable, *reader.expected)
        with tempfile.TemporaryDirectory() as folder, in_time(content), suppress(*expected):
            reader.read(content, Path(folder))
            taken += 1

    read()
    # The valid sample comes first. No signature of a text that is made up is valid.
    assert taken or reader.name == "signed checksums"
