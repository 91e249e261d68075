"""What tests ask of a report that was read."""

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
