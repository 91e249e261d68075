"""Cuts what waits into parts, which run elsewhere: a part has cells of one machine."""

from collections.abc import Iterable

from lab.record import RunOptions
from lab.run.backlog import Ticket


def typical_seconds(ticket: Ticket, options: RunOptions) -> float:
    """How long a cell takes, or its trials alone if its suite ran before; the same on every host."""
    if ticket.decided:
        return ticket.cell.typical_trials_seconds(options)
    return ticket.cell.typical_seconds(options) * options.repeat


def cut(tickets: Iterable[Ticket], options: RunOptions, most_seconds: float) -> list[list[Ticket]]:
    """Cut tickets into parts of at most about this length; a cell that takes longer is a part by itself."""
    parts: dict[str, list[list[Ticket]]] = {}
    spent: dict[str, float] = {}
    for ticket in tickets:
        seconds, name = typical_seconds(ticket, options), ticket.cell.machine.name
        own = parts.setdefault(name, [])
        if not own or spent[name] + seconds > most_seconds:
            own.append([])
            spent[name] = 0.0
        own[-1].append(ticket)
        spent[name] += seconds
    return [part for own in parts.values() for part in own]
