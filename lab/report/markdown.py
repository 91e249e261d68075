"""The report `matrix.md` in a run's folder, and the helpers that all Markdown pages share."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from lab import causes
from lab.base import notices
from lab.base.files import clean_text, cut_text, escape_commands, join_lines
from lab.catalog import remedies
from lab.record import CellResult, RunResult
from lab.report import protection, run_notes, sections, table
from lab.report.sections import Section
from lab.verdict import words
from lab.verdict.words import FinishedCell, WordsVerdict

TEMPLATES = Path(__file__).parent / "templates"
# Longest text from a guest in a page, in characters: between words, and as a block.
LONGEST, LONGEST_BLOCK = 4000, 20_000
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
            lambda: make(section), lambda reason: f"## {_escape(section.where)}: {_escape(reason)}\n\n"
        )

    return render_template(
        "matrix.md",
        run=run,
        title=table.describe_run(run),
        counts=table.count_statuses(run.cells),
        next_step=run_notes.describe_next_step(run, folder) if folder else "",
        headings=list(table.label_columns_of(run).values()),
        rows=table.arrange_rows(run),
        left_out=table.list_left_out(run),
        coverage=run_notes.describe_coverage(run.cells),
        format_kernel=table.format_kernel,
        format_square=table.format_square,
        sections=sections.make_sections(run, find_misdiagnosis),
        describe_experiment=sections.describe_experiment,
        format_command=sections.format_command,
        rates=run_notes.list_rates(run),
        rates_note=run_notes.explain_rates(run),
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


def render_template(template: str, templates: Path = TEMPLATES, **values: Any) -> str:
    """Render one of the templates in a folder. Its filters escape text from guests.

    Whatever a template leaves unescaped, the page holds no control characters and no command to a CI job.
    """
    environment = jinja2.Environment(  # noqa: S701 - Markdown, escaped by the filters below
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    all_causes = causes.list_causes()
    environment.filters |= {
        "cell": _escape,
        "paragraph": _paragraph,
        "code": _code,
        "block": _block,
        "link": _link,
        "counted": table.format_count,
        # Another lab may have found a cause that this one does not know.
        "explanation": lambda name: all_causes[name].explanation if name in all_causes else "",
    }
    return escape_commands(clean_text(environment.get_template(template).render(values)))


def _escape(text: object, most: int = LONGEST) -> str:
    """Escape text for a cell of a Markdown table, cut to `most` characters."""
    line = join_lines(str(text), most)
    # An entity such as &#x202e; would be one more way to write a mark that hides text.
    escaped = re.sub(r"([\\|`*\[\]~]|&(?=#|\w+;)|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)
    return escaped.replace("<", "&lt;")


def _paragraph(text: object) -> str:
    """Escape text so that it stays a paragraph and does not become a heading, list, quotation or rule."""
    return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", _escape(text))


def _code(text: object) -> str:
    """Replace the backticks in text that goes between backticks, where nothing can be escaped."""
    return join_lines(str(text), LONGEST).replace("`", "'")


def _link(path: object) -> str:
    """Quote the path of a file in the run's folder for a link; a guest may have chosen its name."""
    return quote(clean_text(str(path)), safe="/+:@~")


def _block(text: object, language: str = "text") -> str:
    """Return text as a code block, fenced with more backticks than it contains."""
    content = clean_text(cut_text(str(text), LONGEST_BLOCK))
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 0)
    return f"{fence}{language}\n{content}\n{fence}"
