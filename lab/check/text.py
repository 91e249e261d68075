"""The answer about a host, as text for a terminal."""

import textwrap
from collections.abc import Iterator

from lab import causes
from lab.base.files import clean_text, join_lines
from lab.catalog import load_subjects
from lab.check.answer import BeyondStart, HostAnswer
from lab.check.published import PublishedCell

WIDTH = 100
# Entries of a list that are shown, and characters of a value.
MOST, LONGEST = 12, 300


def format_answer(answer: HostAnswer) -> Iterator[str]:
    """Yield the lines of an answer: what to expect and why, what to do, and the tested hosts."""
    yield f"{_short(answer.system)}: {answer.outcome}"
    for reason in answer.reasons:
        yield from _item(reason)
    if answer.covers:
        yield from _item(f"Tested there: {answer.covers}")
    for failure in answer.fails:
        yield from _format_failure(failure)
    if answer.as_root:
        yield from _item("The probe ran as root. Run it as the user who runs boxlite.")
    all_causes = causes.list_causes()
    for finding in answer.findings:
        yield from _item(f"{finding.name} ({finding.confidence}): {finding.reason}")
        yield from _item(all_causes[finding.name].explanation, mark=" ")
    kinds = {
        "The probe was refused:": [each for each in answer.refused if each.tried and each.about_start],
        "The probe was refused what a box can start without:": [
            each for each in answer.refused if each.tried and not each.about_start
        ],
        "The probe could not try:": [each for each in answer.refused if not each.tried],
    }
    for title, failed in kinds.items():
        if failed:
            yield from ("", title)
        for refused in failed:
            yield from _item(f"{refused.tries.rstrip('.')}: {_short(refused.error)}")
    if answer.findings:
        yield ""
        yield from _what_to_do(answer)
    yield ""
    yield from _tested(answer)


def _format_failure(failure: BeyondStart) -> Iterator[str]:
    subjects = load_subjects()
    failed = "; ".join(subjects.get(name, name) for name in failure.subjects)
    yield from _item(f"Failed there ({', '.join(failure.causes) or 'cause not known'}): {failed}")
    for reason in failure.reasons:
        yield from _item(reason, mark=" ")
    if failure.remedy:
        yield from _item(f"{failure.remedy} cures it there: `lab remedies show {failure.remedy}`", mark=" ")


def _what_to_do(answer: HostAnswer) -> Iterator[str]:
    if not answer.advice:
        yield "What to do: the lab knows no remedy for this cause."
    for number, advice in enumerate(answer.advice):
        joint = "What to do" if number == 0 else "and" if advice.verified_on else "or"
        yield f"{joint}: {advice.title}"
        if advice.verified_on is None:
            evidence = f"{advice.remedy} claims to cure it; no published result shows that it does."
        else:
            evidence = f"{advice.remedy} was verified on {_cell(advice.verified_on)}: all tests passed with it."
        yield from _item(f"{evidence} Its script has changed since." if advice.script_changed else evidence)
        yield from _item(advice.does)
        yield from _item(f"What it costs: {advice.price}")
        yield from textwrap.indent(advice.commands, "    ").splitlines()
    if answer.otherwise:
        names = ", ".join(answer.otherwise)
        yield from _item(f"Other ways to run boxlite or its tests (`lab remedies show NAME`): {names}", mark="")


def _tested(answer: HostAnswer) -> Iterator[str]:
    if answer.nearest is None:
        yield "No tested host to compare with: no published result is about this system or one like it."
        return
    if not answer.same_system:
        names = ", ".join(distribution.title for distribution in answer.related[:MOST])
        yield from _item(
            f"This system was never tested. Related ones, which are other systems: {names}", mark=""
        )
    nearest, comparison = answer.nearest.cell, answer.nearest.comparison
    yield from _item(f"Nearest tested host: {_cell(nearest)}: {nearest.headline}", mark="")
    of = len(comparison.compared)
    if comparison.differing:
        yield from _item(f"{len(comparison.differing)} of {of} settings that could be compared differ:")
    else:
        yield from _item(f"All {of} settings that could be compared are as tested.")
    for difference in sorted(comparison.differing, key=lambda difference: not difference.decides)[:MOST]:
        value, tested_value = (
            "the kernel has none" if value is None else _short(value)
            for value in (difference.yours, difference.theirs)
        )
        seldom = "" if difference.decides else " (seldom decides)"
        yield from _item(
            f"{difference.name}: {value} here, {tested_value} on the tested host{seldom}", mark="  -"
        )
    if answer.others:
        yield from _item(f"{len(answer.others)} tested hosts are as close and had another outcome:")
        for cell in answer.others[:MOST]:
            yield from _item(f"{_cell(cell)}: {cell.headline}", mark="  -")
    if missing := comparison.not_known:
        yield from _item(f"Not known here, so not compared: {', '.join(missing[:MOST])}")
    if answer.unreadable:
        unreadable = ", ".join(map(_short, answer.unreadable[:MOST]))
        yield from _item(f"Not readable for the user who ran the probe: {unreadable}")


def _cell(cell: PublishedCell) -> str:
    return clean_text(f"{cell.system} with {cell.variant}, boxlite {cell.build}")


def _item(text: str, mark: str = "-") -> list[str]:
    """Wrap a text; lines after the first stand below its beginning."""
    first = f"{mark} " if mark else ""
    return textwrap.wrap(clean_text(text), WIDTH, initial_indent=first, subsequent_indent=" " * len(first)) or [
        ""
    ]


def _short(text: str) -> str:
    return join_lines(text, LONGEST)
