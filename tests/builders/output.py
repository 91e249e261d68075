"""What reports print and a site shows, and text with which a guest could change it."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from lab.record import CellResult, Outcome, RepeatResult, RunResult, Status, TestResult
from lab.report import github, judgements, junit, markdown, terminal
from lab.report.site import one_page
from lab.report.site.publish import publish_site
from tests.builders.cells import cell
from tests.builders.facts import facts
from tests.builders.runs import run_of

# Terminal: clear the screen, set the title, green. rich: green, and an invalid tag.
STEERING = "\x1b[2J\x1b]0;title\x07\x1b[32m[bold green]pass[/] \x9b[/nothing]"
SAID = "[bold green]pass[/] [/nothing]"
FAULT = "the machine of debian-13 is gone\nits console ends:\n  | Reached target"
FLAKY: dict[str, Any] = {
    "status": Status.FLAKY,
    "reason": "all tests passed in 2 of 3 repeats",
    "repeats": [
        RepeatResult(status=Status.PASS),
        RepeatResult(status=Status.FAIL, failed=["jail_starts"]),
        RepeatResult(status=Status.PASS),
    ],
}


def printed(run: RunResult, folder: Path = Path("a run"), width: int = 240) -> str:
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=False, color_system=None)
    terminal.print_summary(console, run, folder)
    return out.getvalue()


# Every report of a run as text.
REPORTS: dict[str, Callable[[RunResult, Path], str]] = {
    "table": printed,
    "Markdown": markdown.render_run,
    "HTML": one_page.render_one_page,
    "JUnit": lambda run, _: junit.render_junit(run),
    "summary": github.render_summary,
    "annotations": lambda run, _: "\n".join(github.list_annotations(run)),
    "upstream": judgements.render_misdiagnoses,
}


def told(text: str) -> CellResult:
    """A cell with a guest's text in every field, as a running lab passes it on: not read from a record."""
    result = cell(status=Status.NOT_APPLICABLE)
    tests = [TestResult(name="jail_starts", outcome=Outcome.FAIL, message=text)]
    return result.model_copy(
        update={
            "suite": result.suite.model_copy(update={"facts": facts(kernel=text), "tests": tests}),
            "verdict": result.verdict.model_copy(update={"reason": text}),
            "history": result.history.model_copy(update={"retried": [text]}),
        }
    )


def skeleton(text: str) -> list[tuple[str, str, str]]:
    """The structure of a rendered Markdown page, without the words."""

    def walk(tokens: list[Token]) -> Iterator[tuple[str, str, str]]:
        for token in tokens:
            if token.type not in ("text", "softbreak"):
                code = token.content if token.type == "code_inline" else ""
                yield token.type, token.tag, code
            yield from walk(token.children or [])

    return list(walk(MarkdownIt("commonmark").enable("table").parse(text)))


def run_folder(base: Path, *cells: CellResult, name: str = "run", **more: object) -> Path:
    """Write a run of these cells, each of its evidence files holding its own path. Returns the run's folder."""
    folder = base / name
    folder.mkdir()
    run = run_of(*cells)
    info = run.run.model_copy(update={"id": name, **more})
    RunResult(run=info, cells=run.cells).write(folder)
    for file in (file for result in cells for file in result.evidence):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return folder


def site_of(base: Path, *cells: CellResult) -> Path:
    """Publish a run of these cells. Returns the site's folder."""
    publish_site([run_folder(base, *cells)], base / "site")
    return base / "site"


class Parsed(HTMLParser):
    """A page as a parser of HTML sees it: elements with their attributes, and the text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        """The text with one space between words."""
        return " ".join(self.text.split())

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class PageText(HTMLParser):
    """The text of a page without its frame: a line for each block and for each row of a table."""

    WITHIN_A_LINE = ("a", "code", "span", "strong", "svg", "path", "rect", "circle", "use")
    # A script that a page shows is cut.
    LONGEST = 300

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._blocks: list[str] = []
        page = file.read_text()
        self.feed(page[page.index("<main") : page.index("</main>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("td", "th"):
            self._blocks[-1] += " | "
        elif tag in ("br", "small"):
            self._blocks[-1] += " "
        elif tag not in self.WITHIN_A_LINE:
            self._blocks.append("")

    def handle_data(self, data: str) -> None:
        self._blocks[-1] += data

    def __str__(self) -> str:
        lines = [" ".join(block.split())[: self.LONGEST] for block in self._blocks]
        return "".join(f"{line}\n" for line in lines if line)


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))
