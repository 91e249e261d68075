"""A run for GitHub Actions: the summary of a job as Markdown, and annotations on it.

GitHub reads commands from a job's log, one a line. Here only annotations are commands: in their texts GitHub's
own escapes stand for what ends a command, and no line of the summary is one.
"""

from pathlib import Path

from lab.base import notices
from lab.base.files import clean_text, cut_text
from lab.record import RunResult, Status
from lab.report import markdown, predictions, table
from lab.report.sections import Section, make_sections

# GitHub takes at most this much for the summary of a step, in bytes, and drops all of a longer one.
LARGEST = 1 << 20
# How GitHub marks an annotation; it shows at most so many of each for a step, above the log of the job.
KINDS, MOST = ("error", "warning", "notice"), 10
# Longest title and text of an annotation, in characters.
LONGEST_TITLE, LONGEST_TEXT = 200, 2000
CUT = "\n\nThis summary is cut: GitHub takes at most 1 MiB. `lab report RUN --format markdown` shows all.\n"


def render_summary(run: RunResult, folder: Path, room: int = LARGEST) -> str:
    """Render the run's page for the summary of a job, cut to at most `room` bytes of UTF-8.

    It is cut before a heading, or in the table if nothing else is left. It has no links, because the evidence
    is not on GitHub.
    """
    page = markdown.render_run(run, folder, linked=False)
    space = room - len(CUT.encode())
    if len(page.encode()) <= room:
        return page
    if space < 0:
        return ""
    start = page.encode()[:space].decode(errors="ignore")
    end = max(start.rfind("\n## "), 0) or start.rfind("\n")
    return f"{start[: end + 1]}{CUT}"


def list_annotations(run: RunResult) -> list[str]:
    """Return the commands for a run's annotations, at most ten of each kind.

    What is not as expected is an error, what could not be run a warning; a notice says how the run ended.
    """
    notes: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for section in make_sections(run):
        status = section.first.status
        if not status.as_expected and status not in table.LEFT_OUT:
            notes["warning" if status.could_not_run else "error"].append((section.title, _text(section)))
    missing = table.list_left_out(run, [Status.NOT_RUN])
    notes["warning"] += [("cells were not run", line) for line in missing]
    score = predictions.score_run(run)
    told = [table.count_statuses(run.cells) or "this run has no cells", *table.list_kept(run), score.describe()]
    notes["notice"].append((table.describe_run(run), "\n".join(filter(None, told))))
    if wrong := score.list_wrong():
        notes["notice"].append(("a prediction was wrong: a rule or a probe is at fault", "\n".join(wrong)))
    commands = []
    for kind, of_kind in notes.items():
        if (more := len(of_kind) - MOST) > 0:
            of_kind[MOST - 1 :] = [(f"and {more + 1} more", "the job's summary lists them")]
        for title, text in of_kind:
            escaped = _data(title, LONGEST_TITLE).replace(":", "%3A").replace(",", "%2C")
            commands.append(f"::{kind} title={escaped}::{_data(text, LONGEST_TEXT)}")
    return commands


@notices.guard_text
def _text(section: Section) -> str:
    """Say of what is not as expected why it is so, where, and how to run it again."""
    first = section.first
    again = f"\nrun it again: {first.rerun}" if first.rerun else ""
    where = ", ".join(f"{cell.guest} {section.heading(cell)}" for cell in section.cells)
    reason = cut_text(first.reason or str(first.status), LONGEST_TEXT // 2)
    return f"{reason}\n{cut_text(where, LONGEST_TEXT // 4)}{again}"


def _data(text: str, longest: int) -> str:
    return clean_text(cut_text(text, longest)).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
