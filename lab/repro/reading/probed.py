"""The output of the probe script in a report: read exactly, and by no other rule."""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from lab.base.errors import UsageError
from lab.probes import report
from lab.probes.report import BEGIN, END, HostReport
from lab.repro.reading import distributions
from lab.repro.reading.rules import Found, quote
from lab.repro.reading.structure import Line
from lab.repro.report import Kernel, Mood, Place, Probed, Program, Quote, Setting, Statement, System

NUMBERED = re.compile(r"[\s>|]*\d{1,5} (?:[\w./-]+:|\+)")


def lines_of(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of the first output of the probe script; one that was cut off ends with its numbers."""
    begin = next((index for index, line in enumerate(lines) if BEGIN.search(line.raw)), None)
    if begin is None:
        return []
    rest = lines[begin + 1 :]
    end = next((index for index, line in enumerate(rest) if END.search(line.raw)), None)
    if end is not None:
        return [lines[begin], *rest[: end + 1]]
    return [lines[begin], *takewhile(lambda line: NUMBERED.match(line.raw), rest)]


def read(lines: Sequence[Line]) -> list[Found]:
    """Return what the lines of an output tell."""
    if not lines:
        return []
    last = lines[-1].number
    try:
        host = report.read("\n".join(line.raw for line in lines))
    except UsageError as error:
        return [Found(Probed(quote(lines[0]), None, str(error.args[0])), last)]
    if host is None:
        return []
    told = [Probed(quote(lines[0]), host), *_facts(host, lines)]
    return [Found(each, last) for each in told]


def _facts(host: HostReport, lines: Sequence[Line]) -> Iterator[Statement]:
    """Yield the facts that reports tell in words too."""

    def at(name: str) -> Quote:
        return quote(next((line for line in lines if f" {name}: " in line.raw), lines[0]))

    facts, place = host.facts, Place.CONTAINER if host.who.container else Place.HOST
    system = facts.os
    if system.id is not None:
        like = distributions.family(system.id) or next(iter(host.id_like), system.id)
        name = system.pretty_name or system.id
        parent = None if like == system.id else like
        yield System(at("os.id"), system.id, system.version_id, name, place, parent)
    yield Kernel(at("kernel"), facts.kernel)
    versions = {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}
    for program, found in versions.items():
        if found is not None and found.version is not None:
            yield Program(at(f"{program}.version"), program, found.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(f"sysctls.{sysctl}"), sysctl, value, Mood.HOLDS, place=place)
