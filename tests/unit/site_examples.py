"""Sites to test with."""

from html.parser import HTMLParser
from pathlib import Path

from lab.record import CellResult, RunResult
from lab.site.publish import publish
from tests.unit import examples


def run_folder(base: Path, *cells: CellResult, name: str = "run", **more: object) -> Path:
    """Write a run of these cells, each of its evidence files holding its own path. Returns the run's folder."""
    folder = base / name
    folder.mkdir()
    run = examples.run_of(*cells)
    info = run.run.model_copy(update={"id": name, **more})
    RunResult(run=info, cells=run.cells).write(folder)
    for cell in cells:
        for file in cell.evidence:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(file)
    return folder


def site_of(base: Path, *cells: CellResult) -> Path:
    """Publish a run of these cells. Returns the site's folder."""
    publish([run_folder(base, *cells)], base / "site")
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

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))
