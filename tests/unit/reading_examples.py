"""What tests ask of a report that was read."""

from collections.abc import Callable
from time import process_time

from lab.repro.reading import read
from lab.repro.report import Mood, Setting, Statement, System

CLONE = "kernel.unprivileged_userns_clone"
RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"


def of[S: Statement](kind: type[S], text: str) -> list[S]:
    return list(read(text.encode()).of(kind))


def systems(text: str) -> list[tuple[str, str | None]]:
    return [(each.id, each.version) for each in of(System, text) if not each.inferred]


def settings(text: str) -> list[tuple[str, str | None, Mood, bool | None]]:
    return [(each.name, each.value, each.mood, each.helped) for each in of(Setting, text)]


def holds(name: str, value: str) -> tuple[str, str | None, Mood, bool | None]:
    return name, value, Mood.HOLDS, None


def tried(name: str, value: str | None, helped: bool | None) -> tuple[str, str | None, Mood, bool | None]:
    return name, value, Mood.TRIED, helped


def slowdown(reader: Callable[[str], object], line: str) -> float:
    """How many times as long a reader takes for lines that are twice as long: 2 if it is linear."""

    def seconds(line: str) -> float:
        began = process_time()
        reader(f"{line}\n" * 5)
        return process_time() - began

    short, long = (min(seconds(each) for _ in range(3)) for each in (line, line * 2))
    return long / short
