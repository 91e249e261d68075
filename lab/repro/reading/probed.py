"""The output of the probe script in a report: read exactly, and by no other rule."""

from collections.abc import Iterator, Sequence

from lab.base.errors import UsageError
from lab.probes import report
from lab.probes.report import QUOTE_MARKS, HostReport
from lab.repro.reading import distributions
from lab.repro.reading.rules import Found, quote
from lab.repro.reading.structure import Line
from lab.repro.report import Kernel, Mood, Place, Probed, Program, Quote, Setting, Statement, System


def lines_of(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of the first output of the probe script, which may be cut off."""
    return list(lines[report.find([line.raw for line in lines])])


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
        begin = f"{name.lower()}: "
        told = (line for line in lines if line.raw.strip(QUOTE_MARKS).lower().startswith(begin))
        return quote(next(told, lines[0]))

    facts, place = host.facts, Place.CONTAINER if host.who.container else Place.HOST
    system = facts.os
    if system.id is not None:
        like = distributions.family(system.id) or next(iter(host.id_like), system.id)
        name = system.pretty_name or system.id
        parent = None if like == system.id else like
        yield System(at("system"), system.id, system.version_id, name, place, parent)
    yield Kernel(at("kernel"), facts.kernel)
    versions = {"bubblewrap": facts.bubblewrap, "apparmor": facts.apparmor}
    for program, found in versions.items():
        if found is not None and found.version is not None:
            yield Program(at(program), program, found.version)
    for sysctl, value in facts.sysctls.items():
        if value is not None:
            yield Setting(at(sysctl), sysctl, value, Mood.HOLDS, place=place)
