"""How long a run took, and how busy the processors of its hosts were."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from lab.record import ProcessorTime, RunResult


def lines(run: RunResult) -> list[str]:
    """A sentence for each session of a run that was measured, the newest last.

    Those of a run on several hosts come by host, and all of them together at the end.
    """
    own, of_hosts = _sessions(run)
    numbered = len(own) > 1
    found = [
        f"{f'session {number}' if numbered else 'the run'} took {_sentence(each)}"
        for number, each in enumerate(own, 1)
    ]
    found += _by_host(of_hosts)
    return [*found, _together(of_hosts)] if len(of_hosts) > 1 else found


def short(run: RunResult) -> list[str]:
    """The last session; of a run on several hosts, all of them together. Empty if nothing was measured."""
    return lines(run)[-1:]


def _sessions(run: RunResult) -> tuple[list[ProcessorTime], list[ProcessorTime]]:
    """The sessions on a host of the run's own, and those of worker hosts."""
    found = run.run.processor_time
    return [each for each in found if not each.host], [each for each in found if each.host]


def _by_host(sessions: Sequence[ProcessorTime]) -> list[str]:
    """A sentence for each session of a host, those of one host together."""
    count = Counter(each.host for each in sessions)
    seen = Counter[str]()
    found = []
    for host in count:
        for each in sessions:
            if each.host == host:
                seen[host] += 1
                which = f", session {seen[host]}," if count[host] > 1 else ""
                found.append(f"the run on {host}{which} took {_sentence(each)}")
    return found


def _together(sessions: Sequence[ProcessorTime]) -> str:
    """What all sessions of hosts did together: their seconds of processor time can be added."""
    capacity = sum(each.capacity for each in sessions)
    busy, lab, others, idle = (
        sum(getattr(each, what) for each in sessions) for what in ("busy", "lab", "others", "idle")
    )
    hosts = len({each.host for each in sessions})
    return (
        f"the run kept the processors of {hosts} host{'s' if hosts > 1 else ''} busy for {_time(busy)} of "
        f"{_time(capacity)} {_shares(lab, others, idle, capacity)}"
    )


def _sentence(spent: ProcessorTime) -> str:
    took = f"{_time(spent.wall)}; it kept {_processors(spent)} busy for {_time(spent.busy)} of"
    whole = f"{spent.processors} x {_time(spent.wall)}" if spent.processors > 1 else _time(spent.wall)
    return f"{took} {whole} {_shares(spent.lab, spent.others, spent.idle, spent.capacity)}"


def _shares(lab: float, others: float, idle: float, capacity: float) -> str:
    """Who took how much of the time that processors had."""
    shares = [_percent(each, capacity) for each in (lab, others, idle)]
    return f"(the lab itself {shares[0]}); other programs {shares[1]}, idle {shares[2]}"


def _processors(spent: ProcessorTime) -> str:
    return f"{spent.processors} processors" if spent.processors > 1 else "the processor"


def _percent(seconds: float, capacity: float) -> str:
    return f"{100 * seconds / capacity:.0f} %" if capacity else "0 %"


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
