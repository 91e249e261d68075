"""What is behind a report if it is no cause that the lab knows: the table `instead.toml`, by words that decide.

An explanation is shown with a command that tells whether it holds. It leads to no plan, and sets nothing.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lab.repro.report import AuditLine, ErrorMessage, Explanation, ProgramEnd, Quote, Report
from lab.repro.source import load_table

ROWS: list[dict[str, Any]] = load_table(__file__)["instead"]
# Most explanations of one report: the table names the best first.
MOST = 2


def find_explanations(report: Report, host_operations: Collection[str]) -> tuple[Explanation, ...]:
    """Explain a report whose text shows no cause. A host's settings decide about `host_operations`."""
    is_of_host = any(message.operation in host_operations for message in report.of(ErrorMessage))
    rows = [
        (row, tuple(dict.fromkeys(_find_quotes(report, row))))
        for row in ROWS
        if not (row.get("alone", False) and is_of_host) and row.get("beside") in (None, *report.topics)
    ]
    lack = _find_lack(report)
    selected = [pair for pair in rows if pair[1]] or [pair for pair in rows if pair[0].get("lacks") == lack]
    return tuple(
        Explanation(row["name"], row["says"], row["command"], row["shows"], quotes)
        for row, quotes in selected[:MOST]
    )


def _find_quotes(report: Report, row: Mapping[str, Any]) -> Iterator[Quote]:
    """Yield the lines that decide for a row."""
    if "pattern" in row and row["name"] in report.topics and report.tells_failure:
        yield report.topics[row["name"]]
    told = [(one.quote, one.operation, one.means or one.errno) for one in report.of(ErrorMessage)]
    told += [(one.quote, "signal", one.signal) for one in report.of(ProgramEnd)]
    for refusal in row.get("refusals", ()):
        for quote, operation, error in told:
            if operation == refusal.get("operation") and refusal.get("errno", error) == error:
                yield quote
    lines = list(report.of(AuditLine)) if "audit" in row else []
    if all(re.search(row["audit"], line.written, re.MULTILINE) for line in lines):
        yield from (line.quote for line in lines)


def _find_lack(report: Report) -> str:
    """Return `failure` if nothing fails, `message` if no message tells how; else an empty text."""
    if not report.tells_failure:
        return "failure"
    return "" if report.quotes_failure or "error-text" in report.topics else "message"
