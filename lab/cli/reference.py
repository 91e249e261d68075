"""What is generated from the code: parts of `docs/`, and the table of shell completion.

`python -m lab.cli.reference` regenerates both.

Each part is in a page between `<!-- generated: NAME -->` and `<!-- end -->`; people write the rest of the page.
This module is in `lab/cli/` because no room below may import the commands.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from lab import catalog, causes, cli
from lab.base.files import write_atomically
from lab.base.paths import PACKAGE
from lab.catalog import knobs, remedies
from lab.cli import completion, lists

DOCS = PACKAGE.parent / "docs"
PART = re.compile(r"(?P<begin><!-- generated: (?P<name>[a-z]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
WIDTH = 100


def regenerated(page: str) -> str:
    """Return the page with its generated parts brought up to date. Raises KeyError for an unknown part."""
    return PART.sub(lambda part: f"{part['begin']}\n{PARTS[part['name']]()}\n{part['end']}", page)


def pages(docs: Path) -> list[Path]:
    """Return the pages that have generated parts."""
    return [page for page in sorted(docs.rglob("*.md")) if PART.search(page.read_text())]


def _commands() -> str:
    return "\n".join(_command_sections(cli.cli, "lab"))


def _command_sections(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield f"## `{name}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for part in sorted(command.list_commands(context)):
            if below := command.get_command(context, part):
                yield from _command_sections(below, f"{name} {part}")


def _causes() -> str:
    loaded = remedies.load_remedies()
    rows = []
    for name, cause in causes.list_causes().items():
        cures = ", ".join(f"`{remedy.name}`" for remedy in remedies.choose_candidates(loaded, [name]))
        rows.append((f"`{name}`", str(cause.breaks), cause.explanation, cures))
    return _table(("cause", "breaks", "what blocks boxlite", "remedies"), rows)


def _remedies() -> str:
    rows, sections = [], []
    for name, remedy in remedies.load_remedies().items():
        changes = "the host" if remedy.host else "how boxlite is run"
        rows.append((f"[`{name}`](#{name})", str(remedy.loss), changes, remedy.title))
        usage = f"Script: `lab remedies show {name} --script`."
        if remedy.run is not None:
            usage = f"How:\n\n```text\n{remedy.run.example.strip()}\n```"
        cures = ", ".join(f"`{cause}`" for cause in remedy.cures)
        sections.append(
            f"## `{name}`\n\n{remedy.title}. For: {cures}.\n\n{remedy.does}\n\n"
            f"Protection given up (loss {remedy.loss} of 100): {remedy.price}\n\n{usage}\n"
        )
    table = _table(("remedy", "loss", "what it changes", "what it does"), rows)
    return "\n".join([table, *sections])


def _variants() -> str:
    rows = []
    for name, variant in catalog.load_catalog().variants.items():
        sets = "; ".join(f"{kind}: {words}" for kind, knob in variant.knobs.items() if (words := knob.words()))
        expected = f"{variant.expect.status} {variant.expect.cause or ''}".strip()
        rows.append((f"`{name}`", variant.title, sets or "nothing", expected))
    return _table(("variant", "what it is", "sets", "expected"), rows)


def _guests() -> str:
    guests = lists.list_rows("guests", catalog.load_catalog())
    rows = [(f"`{guest['name']}`", guest["title"], guest["arch"], guest["image"]) for guest in guests]
    return _table(("guest", "what it is", "architecture", "its image"), rows)


def _sets() -> str:
    rows = []
    for row in lists.list_rows("sets", catalog.load_catalog()):
        guests, variants = ", ".join(row["guests"]), ", ".join(row["variants"])
        rows.append((f"`{row['name']}`", row["title"], guests, variants, "yes" if row["remedies"] else "no"))
    return _table(("set", "what it is", "guests", "variants", "tries remedies"), rows)


def _settings() -> str:
    kinds = knobs.KINDS.items()
    rows = [(f"`[{name}]`", (kind.__doc__ or "").partition("\n")[0], _keys(kind)) for name, kind in kinds]
    return _table(("table", "what it sets", "keys"), rows)


def _keys(kind: type[Any]) -> str:
    keys = []
    for key, field in kind.model_fields.items():
        if key == "root":
            return "any name of that kind"
        # The values of a key that takes one of a fixed list.
        values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        choices = " or ".join(f"`{repr(value).strip("'").lower()}`" for value in values)
        keys.append(": ".join(filter(None, [f"`{key}`", choices or field.description])).rstrip("."))
    return "; ".join(keys)


def _tests() -> str:
    suite = catalog.load_catalog().suite
    return _table(("test", "needs"), [(f"`{name}`", str(needs)) for name, needs in suite.tests.items()])


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([_cell(text) for text in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


PARTS: dict[str, Callable[[], str]] = {
    "causes": _causes,
    "commands": _commands,
    "guests": _guests,
    "remedies": _remedies,
    "sets": _sets,
    "settings": _settings,
    "tests": _tests,
    "variants": _variants,
}


def main() -> None:
    """Rewrite what is out of date: pages with generated parts, and what completion knows of the commands."""
    # First, because the list of commands in the help is made of it.
    _write(completion.TABLE, completion.render_table(cli.cli))
    for page in pages(DOCS):
        _write(page, regenerated(page.read_text()))


def _write(file: Path, text: str) -> None:
    if file.read_text() != text:
        write_atomically(file, text)
        click.echo(f"written: {file.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
