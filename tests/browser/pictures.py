"""Makes the README's pictures from real runs: python -m tests.browser.pictures RUN...

RUN is the folder of a finished run. The first is shown in the middle, as its live table. The last is shown at
its end, as its summary, and as the page of one cell: one with a verified remedy, or else one with a cause. All
of them together are shown as the front page of their site.
"""

import base64
import re
import tempfile
from collections.abc import Callable
from contextlib import chdir
from datetime import datetime
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import click
from playwright.sync_api import Page
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from lab import builds, catalog
from lab.base.activity import Progress
from lab.plan import Cell
from lab.record import RemedyOutcome, RunResult
from lab.record.folders import RUN_LOG
from lab.report import terminal
from lab.report.site.publish import publish_site
from lab.run.live import LiveTable
from tests.browser.chromium import Visit, running

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
# Of a terminal.
COLUMNS = 100
# Of a page, in pixels: its width, and the height at which its picture ends at the latest.
WIDTH, LONGEST = 1080, 1400
QUALITY = 65
# What rich would load from other hosts, and where it says that it made the picture.
FOREIGN = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


def middle(console: Console, run: RunResult, log: str) -> None:
    """Print the live table of a run when half of its cells are decided, as its log tells.

    No record has the estimates of the time left. Here it is what the run then took.
    """
    assert run.run.finished, "the run is not finished"
    definitions = catalog.load_catalog()
    tested = {
        build.name: builds.resolve_build(builds.format_argument(build), only_shown=True)
        for build in run.run.builds
    }
    plan = [
        Cell(definitions.guest(cell.guest), definitions.variant(cell.variant), tested[cell.build])
        for cell in run.cells
    ]
    waiting = {f"{cell.guest} {cell.variant} {cell.build}": cell for cell in run.cells}
    lanes = {lane.label or lane.guest for lane in run.run.lanes}
    with patch("time.monotonic", return_value=run.run.started.timestamp()) as clock:
        table = LiveTable(console, plan, [])
        for line in log.splitlines():
            time, _, event = line.partition(" ")
            name, _, text = event.partition(": ")
            if name in waiting:
                if len(waiting) <= len(plan) / 2:
                    break
                table.cell(waiting.pop(name))
            elif name in lanes:
                table.lane(name, Progress(text) if text != "done" else None)
            clock.return_value = datetime.fromisoformat(time).timestamp()
        table.time_left(run.run.finished.timestamp() - clock.return_value)
        console.print(table.live.get_renderable())


def draw(file: Path, show: Callable[[Console], None]) -> None:
    """Draw what a terminal shows as an SVG, in whatever font of equal widths its reader has."""
    screen = StringIO()
    show(Console(file=screen, force_terminal=True, color_system="standard", width=COLUMNS, height=30))
    console = Console(file=StringIO(), record=True, width=COLUMNS)
    # Lines that are too long are wrapped, as a terminal does.
    console.print(Text.from_ansi(screen.getvalue().strip("\n")))
    svg = FOREIGN.sub("", console.export_svg(title="lab matrix", theme=MONOKAI, unique_id=file.stem))
    file.write_text("\n".join(filter(None, map(str.rstrip, svg.splitlines()))) + "\n")


def photograph(page: Page, file: Path) -> None:
    """Save the upper part of a page, up to a heading or a row: the last that keeps the picture short enough."""
    tops = "[...document.querySelectorAll('h2, h3, tr, footer')].map(each => each.getBoundingClientRect().top)"
    height = max(top for top in page.evaluate(tops) if top <= LONGEST)
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    options = {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True}
    taken = page.context.new_cdp_session(page).send("Page.captureScreenshot", options)
    file.write_bytes(base64.b64decode(taken["data"]))


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(exists=True, path_type=Path))
def pictures(runs: tuple[Path, ...]) -> None:
    """Make the pictures of the README."""
    first, last = runs[0].resolve(), runs[-1].resolve()
    log, run = (first / RUN_LOG).read_text(), RunResult.read(last)
    PICTURES.mkdir(exist_ok=True)
    draw(PICTURES / "live.svg", lambda console: middle(console, RunResult.read(first), log))
    # The folders that the run's folder is in are the machine's.
    with chdir(last.parent):
        draw(PICTURES / "finished.svg", lambda console: terminal.print_summary(console, run, Path(last.name)))
    cured = [
        cell for cell in run.cells if any(tried.result is RemedyOutcome.VERIFIED for tried in cell.remedies)
    ]
    telling = next(iter(cured or [cell for cell in run.cells if cell.cause] or run.cells))
    with tempfile.TemporaryDirectory() as folder, running() as browser:
        site = publish_site(runs, Path(folder) / "site").parent
        visit = Visit(browser, site, {"size": (WIDTH, LONGEST)})
        photograph(visit.open("index.html"), PICTURES / "site.webp")
        photograph(visit.open(f"{telling.folder}.html"), PICTURES / "cell.webp")
        visit.close()
        visit.check()
    for file in sorted(PICTURES.iterdir()):
        click.echo(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    pictures()
