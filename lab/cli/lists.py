"""What the lab knows: guests, variants, causes, sets, suites, remedies; help, and completion of names."""

import textwrap
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class
from rich.markup import escape
from rich.table import Table

from lab import catalog, causes, plan
from lab.base.errors import UsageError
from lab.catalog import Catalog, remedies
from lab.catalog.debian_packages import list_image_omissions
from lab.cli import COMPLETE, options, output
from lab.record import ExperimentPolicy, RunOptions
from lab.report.site.charts import format_duration

if TYPE_CHECKING:
    from lab.run.reuse import Judgement

LISTS = ("guests", "variants", "causes", "sets", "suites")


def list_rows(kind: str, definitions: Catalog) -> list[dict[str, Any]]:
    """Return one of the lists, as it stands in the JSON document under its name."""
    match kind:
        case "guests":
            return [
                {
                    "name": name,
                    "title": guest.title,
                    "arch": guest.arch,
                    "image": guest.image.origin,
                    "omissions": [omission.model_dump() for omission in list_image_omissions(guest.image)],
                }
                for name, guest in definitions.guests.items()
            ]
        case "variants":
            return [
                {
                    "name": name,
                    "title": variant.title,
                    "expected": {"status": variant.expect.status, "cause": variant.expect.cause or None},
                }
                for name, variant in definitions.variants.items()
            ]
        case "causes":
            return [
                {"name": name, "explanation": cause.explanation, "breaks": cause.breaks}
                for name, cause in causes.list_causes().items()
            ]
        case "sets":
            return [definition.model_dump(mode="json") for definition in definitions.sets.values()]
        case _:
            return [
                {
                    "name": suite.name,
                    "title": suite.title,
                    "filter": suite.filter or None,
                    "subject": suite.subject,
                    "tests": [
                        {"name": name, "needs": needs, "subject": suite.get_subject(name)}
                        for name, needs in suite.tests.items()
                    ],
                    "others": suite.others,
                }
                for suite in catalog.load_suites()
            ]


@click.command("list")
@click.argument("kind", type=click.Choice(LISTS))
@options.json_option
def list_command(kind: str, as_json: bool) -> int:
    """List the guests, variants, causes, sets or suites that the lab knows.

    `lab matrix --list` lists cells.
    """
    documents = list_rows(kind, catalog.load_catalog())
    if as_json:
        output.print_json({kind: documents})
        return 0
    match kind:
        case "causes":
            for cause in documents:
                output.print_line(f"{cause['name']}: {cause['explanation']}")
        case "suites":
            for suite in documents:
                name = suite["name"]
                output.print_line(f"{name}: {suite['title']}")
                if suite["filter"]:
                    output.print_line(
                        f"  suite={name} behind nextest:FILE or checkout:DIR runs {suite['filter']}"
                    )
                rows = [[test["name"], f"needs {test['needs']}", test["subject"]] for test in suite["tests"]]
                output.print_rows([[f"  {name}", *words] for name, *words in rows])
                if suite["others"]:
                    output.print_line(f"  all others need {suite['others']} and are about {suite['subject']}")
        case _:
            columns = ["name", "title", *(["arch", "image"] if kind == "guests" else [])]
            output.print_rows([[row[column] for column in columns] for row in documents])
    return 0


def print_cells(cells: Sequence[plan.Cell], options: RunOptions, judged: "Sequence[Judgement]" = ()) -> None:
    """Print cells, each with its expected status, the reason, and the command that runs it alone.

    `judged` says of each cell whether the result of an earlier run stands for it; empty: nobody asked.
    """
    rows = [["guest", "variant", "build", "expected", "because", "since", "again"]]
    for number, cell in enumerate(cells):
        expected = f"{cell.expected.status} {cell.expected.cause or ''}".strip()
        names = [cell.guest.name, cell.variant.name, cell.build.name]
        since = judged[number].reason if judged else ""
        rows.append([*names, expected, cell.because, since, cell.rerun(options)])
    several, reasons = len({cell.build for cell in cells}) > 1, any(cell.because for cell in cells)
    columns = [True, True, several, True, reasons, bool(judged), True]
    output.print_rows([list(compress(row, columns)) for row in rows])
    # Not on standard output, which is the table alone.
    guests = list(dict.fromkeys(cell.guest.name for cell in cells))
    output.print_warning(f"guests: {len(guests)} ({', '.join(guests)})")
    left = [each.cell for each in judged if each.kept is None] if judged else cells
    output.print_warning(f"time: {_time(left, options)}" if left else "time: none, all of them are kept")


def _time(cells: Sequence[plan.Cell], options: RunOptions) -> str:
    """What cells take by estimate, and what their trials may add if none does as expected."""
    seconds = sum(cell.typical_seconds() for cell in cells)
    seconds += plan.BRING_UP_SECONDS * len({cell.machine.name for cell in cells})
    trials = sum(cell.trials for cell in cells)
    parts = [f"about {format_duration(seconds)} under emulation, one cell after another"]
    if options.experiments is not ExperimentPolicy.NEVER:
        always = options.experiments is ExperimentPolicy.ALWAYS
        cells_in_words = "each cell" if always else "each cell that fails unexpectedly"
        total, each = map(
            format_duration, (plan.MOST_EXPERIMENT_SECONDS * trials, plan.MOST_EXPERIMENT_SECONDS)
        )
        parts.append(f"experiments may add {total} ({each} for {cells_in_words})")
    if options.remedies:
        remedies = [cell.remedies_seconds for cell in cells if cell.trials] or [0.0]
        # Cells of several suites differ.
        each = " to ".join(map(format_duration, sorted({min(remedies), max(remedies)})))
        total = format_duration(sum(remedies))
        parts.append(f"remedies may add about {total} ({each} for each cell that fails)")
    return "; ".join(parts)


@click.group("remedies", invoke_without_command=True)
@click.pass_context
def remedies_command(context: click.Context) -> int:
    """List the remedies and the causes that they cure, the one that gives up least protection first."""
    if context.invoked_subcommand is not None:
        return 0
    table = Table("remedy", "loss", "what it does, and for which causes", box=None, pad_edge=False)
    for name, remedy in remedies.load_remedies().items():
        table.add_row(name, f"{remedy.loss}", escape(remedy.title))
        table.add_row("", "", f"[dim]{', '.join(remedy.cures)}[/]")
    output.get_console().print(table, soft_wrap=True)
    output.print_line("\nloss: the protection that a remedy gives up; 100 is all that the jailer gives")
    return 0


@remedies_command.command("show")
@click.argument("name", metavar="REMEDY")
@click.option("--script", is_flag=True, help="Print a shell script that applies the remedy on your own host.")
def remedies_show(name: str, script: bool) -> int:
    """Show what a remedy does, what it costs, and how to apply it."""
    remedy = remedies.find_remedy(name)
    if script:
        if remedy.host is None:
            raise UsageError(
                f"{name} changes how boxlite is run, not the host: there is no script for it",
                hint=f"lab remedies show {name}",
            )
        click.echo(remedy.script(), nl=False)
        return 0
    output.print_line(f"{remedy.name}: {remedy.title}")
    output.print_line(f"\ncauses: {', '.join(remedy.cures)}\nloss: {remedy.loss} of 100")
    output.print_line(
        f"\n{textwrap.fill(remedy.does, 96)}\n\nWhat that costs:\n{textwrap.fill(remedy.price, 96)}\n"
    )
    if remedy.run is not None:
        output.print_line(remedy.run.example.strip())
    if remedy.host is not None:
        output.print_line(f"{remedy.host.apply.strip()}\n\nas a script: lab remedies show {name} --script")
    return 0


@click.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(context: click.Context, words: Sequence[str]) -> int:
    """Print the help of a command, as its option --help does."""
    shown = context.find_root()
    for place, word in enumerate(words):
        group = shown.command
        below = group.get_command(shown, word) if isinstance(group, click.Group) else None
        if below is None:
            path = " ".join(("lab", *words[:place]))
            raise UsageError(f"{path} has no command {word}", hint=f"{path} --help")
        shown = click.Context(below, parent=shown, info_name=word)
    click.echo(shown.get_help())
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> int:
    """Print the script that lets a shell complete commands, options and names.

    bash: add `eval "$(lab completion bash)"` to ~/.bashrc. zsh: the same with zsh, in ~/.zshrc after compinit.
    fish: lab completion fish > ~/.config/fish/completions/lab.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "lab", COMPLETE).source())
    return 0
