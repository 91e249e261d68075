"""A run for GitHub Actions: the summary of a job as Markdown, and annotations on it.

GitHub reads commands from a job's log, one a line. Here only annotations are commands: in their texts GitHub's
own escapes stand for what ends a command, and no line of the summary is one.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from lab.base import notices
from lab.base.files import bounded, plain
from lab.record import RunResult, Status
from lab.report import markdown, table
from lab.report.table import Section, sections

# GitHub takes at most this much for the summary of a step, in bytes, and drops all of a longer one.
LARGEST = 1 << 20
# GitHub shows at most this many annotations of each kind for a step.
MOST = 10
# Longest title and text of an annotation, in characters.
LONGEST_TITLE, LONGEST_TEXT = 200, 2000
CUT = "\n\nThis summary is cut: GitHub takes at most 1 MiB. `lab report RUN --format markdown` shows all.\n"


class Kind(StrEnum):
    """The kind of an annotation: how GitHub marks it."""

    ERROR = "error"
    WARNING = "warning"
    NOTICE = "notice"


@dataclass(frozen=True)
class Annotation:
    """A remark that GitHub shows above the log of the job."""

    kind: Kind
    title: str
    text: str

    @property
    def command(self) -> str:
        """The line that makes GitHub show it."""
        title = _data(plain(bounded(self.title, LONGEST_TITLE))).replace(":", "%3A").replace(",", "%2C")
        return f"::{self.kind} title={title}::{_data(plain(bounded(self.text, LONGEST_TEXT)))}"


def summary(run: RunResult, folder: Path, room: int = LARGEST) -> str:
    """Render the run's page for the summary of a job, cut to at most `room` bytes of UTF-8.

    It is cut before a heading, or in the table if nothing else is left. It has no links, because the evidence
    is not on GitHub.
    """
    page = markdown.render(run, folder, linked=False)
    left = room - len(CUT.encode())
    if len(page.encode()) <= room:
        return page
    if left < 0:
        return ""
    kept = page.encode()[:left].decode(errors="ignore")
    end = max(kept.rfind("\n## "), 0) or kept.rfind("\n")
    return f"{kept[: end + 1]}{CUT}"


def annotations(run: RunResult) -> list[str]:
    """Return the commands for a run's annotations, at most ten of each kind.

    What is not as expected is an error, what could not be run a warning; a notice says how the run ended.
    """
    versions = ", ".join(dict.fromkeys(build.version for build in run.run.builds))
    guests = len(table.rows(run))
    title = f"boxlite {versions} on {guests} guest{'s' if guests != 1 else ''}"
    missing = table.left_out(run, [Status.NOT_RUN])
    notes = [
        *[
            notices.shown_or_why(
                partial(_of_section, section), partial(Annotation, Kind.WARNING, section.where)
            )
            for section in sections(run)
            if not section.first.status.as_expected and section.first.status not in table.LEFT_OUT
        ],
        *[Annotation(Kind.WARNING, "cells were not run", line) for line in missing],
        Annotation(Kind.NOTICE, title, table.counts(run.cells) or "this run has no cells"),
    ]
    commands = []
    for kind in Kind:
        of_kind = [note for note in notes if note.kind is kind]
        if (more := len(of_kind) - MOST) > 0:
            of_kind[MOST - 1 :] = [Annotation(kind, f"and {more + 1} more", "the job's summary lists them")]
        commands += [note.command for note in of_kind]
    return commands


def _of_section(section: Section) -> Annotation:
    first = section.first
    again = f"\nrun it again: {first.rerun}" if first.rerun else ""
    where = ", ".join(f"{cell.guest} {section.heading(cell)}" for cell in section.cells)
    kind = Kind.WARNING if first.status.could_not_run else Kind.ERROR
    reason = bounded(first.reason or str(first.status), LONGEST_TEXT // 2)
    return Annotation(kind, section.title, f"{reason}\n{bounded(where, LONGEST_TEXT // 4)}{again}")


def _data(text: str) -> str:
    """Escape what ends a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
