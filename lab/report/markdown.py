"""The report `matrix.md` in a run's folder."""

from collections.abc import Callable
from pathlib import Path

from lab.base import notices
from lab.base.files import escape_markdown
from lab.catalog import remedies
from lab.record import CellResult, RunResult
from lab.report import predictions, protection, run_notes, sections, table
from lab.report.markdown_pages import render_template
from lab.report.sections import Section
from lab.verdict import words
from lab.verdict.words import FinishedCell, WordsVerdict

# Most tests, reasons, faults or commands that a section lists.
MOST = 20


def render_run(run: RunResult, folder: Path | None = None, *, linked: bool = True) -> str:
    """Render a whole run on one page: the table, a section for each kind of failure, and the environment.

    If the run's `folder` is given, boxlite's own diagnosis of each cell is judged too. `linked`: with links to
    evidence.
    """
    all_remedies = remedies.load_remedies()
    weaknesses = protection.find_weaknesses(run.cells)

    @notices.guard_text
    def find_misdiagnosis(cell: CellResult) -> str:
        judged = words.judge_words(cell, FinishedCell(cell, folder).words, all_remedies) if folder else None
        return "" if judged in (None, WordsVerdict.RIGHT) else str(judged)

    def guarded(make: Callable[[Section], str], section: Section) -> str:
        """Make the text of a section with a macro of the page, or say in its place why that failed."""
        return notices.show_or_explain(
            lambda: make(section),
            lambda reason: f"## {escape_markdown(section.where)}: {escape_markdown(reason)}\n\n",
        )

    return render_template(
        "matrix.md",
        run=run,
        title=table.describe_run(run),
        counts=table.count_statuses(run.cells),
        next_step=run_notes.describe_next_step(run, folder) if folder else "",
        headings=list(table.label_columns_of(run).values()),
        rows=table.arrange_rows(run),
        left_out=[*table.list_left_out(run), *table.list_kept(run)],
        coverage=run_notes.describe_coverage(run.cells),
        format_kernel=table.format_kernel,
        format_square=table.format_square,
        sections=sections.make_sections(run, find_misdiagnosis),
        describe_experiment=sections.describe_experiment,
        format_command=sections.format_command,
        rates=run_notes.list_rates(run),
        rates_note=run_notes.explain_rates(run),
        predictions=predictions.score_run(run),
        confinements=protection.find_confinements(run.cells),
        unmet=protection.find_unmet_options(run.cells),
        weaknesses=weaknesses,
        weak=protection.name_weak_cells(weaknesses),
        hosts=run_notes.group_hosts(run),
        host_lines=run_notes.describe_hosts(run),
        conditions=run_notes.list_conditions(run.run.options),
        time=run_notes.describe_time(run),
        most=MOST,
        guarded=guarded,
        linked=linked,
    )
