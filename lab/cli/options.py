"""What the commands share: the lab's folders and its libvirt, the options, and what shell completion offers.

While a shell completes a word, click runs no command: nothing is removed, started or asked over the network.
What a few commands need is imported where it is used: the imports are most of what a short command takes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

from lab.base.errors import LabError
from lab.base.files import write_atomically
from lab.base.paths import STATES_GIB, Paths
from lab.cli import output
from lab.run.request import Group, Option

if TYPE_CHECKING:
    from lab.lane.upkeep import Unused
    from lab.record import RunResult

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@dataclass(frozen=True)
class Swept:
    """What dead labs left behind and a sweep removed: lanes by name, and folders.

    `stuck` names the folders that could not be removed, each with the reason.
    """

    lanes: list[str]
    folders: "list[Unused]"
    stuck: list[str]


class Lab:
    """The lab's folders and the libvirt to use; every command gets it."""

    def __init__(self, connect: str | None, states_gib: int = STATES_GIB) -> None:
        self.paths = replace(Paths.default(), states_gib=states_gib)
        self._connect = connect

    @cached_property
    def uri(self) -> str:
        """The libvirt daemon to use."""
        from lab.machine.connection import default_uri

        return self._connect or default_uri()

    def sweep(self) -> Swept:
        """Remove what dead labs left behind. Raises LabError if libvirt does not remove a machine of theirs.

        Every command that starts, uses or counts machines calls this first. The others do not, so that they
        work where libvirt does not.
        """
        from lab.lane import upkeep
        from lab.machine import leftovers

        return Swept(leftovers.reap(self.paths), *upkeep.sweep(self.paths))


def show_result(run: "RunResult", folder: Path) -> None:
    """Print a run's summary, and write `matrix.md` into its folder."""
    from lab.report import markdown, terminal

    try:
        write_atomically(folder / "matrix.md", markdown.render(run, folder))
    finally:
        terminal.summary(output.console, run, folder)


# -- what shell completion offers


def _offering(names: Callable[[], Iterable[str]], otherwise: str = "") -> Completer:
    """Offer the names that begin with the word, or else paths of the kind `otherwise`: dir or file."""

    def complete(_context: click.Context, _parameter: click.Parameter, word: str) -> list[CompletionItem]:
        try:
            # The user's folders may hold any name; the shells' protocol has one line for each.
            offered = [name for name in names() if name.startswith(word) and name.isprintable()]
        except (LabError, OSError):
            offered = []  # A broken definition is told by the command, not in the middle of a word.
        if not offered and otherwise:
            return [CompletionItem(word, type=otherwise)]
        return [CompletionItem(name) for name in offered]

    return complete


def _of_catalog(kind: str) -> Completer:
    """Offer the names of the catalog's guests, variants or sets."""

    def names() -> Iterable[str]:
        from lab import catalog

        return list(getattr(catalog.load(), kind))

    return _offering(names)


def _runs() -> list[str]:
    from lab.run import past

    # The newest first: it is the one that is asked for most.
    return sorted((folder.name for folder in past.folders(Paths.default().runs)), reverse=True)


def _releases() -> set[str]:
    """The releases in the cache of wheels: which others there are, only the package index knows."""
    from lab.builds import wheels

    folders = wheels.store(Paths.default()).glob(f"{wheels.PROJECT}-*/")
    return {folder.name.removeprefix(f"{wheels.PROJECT}-").partition("-")[0] for folder in folders}


def _kept() -> list[str]:
    from lab.lane import shell

    return [kept.name for kept in shell.all_kept(Paths.default())]


def _guests(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Offer guests, or the cells of the run that `--run` names."""
    run = context.params.get("run")
    if run is None:
        return _of_catalog("guests")(context, parameter, word)

    def names() -> Iterable[str]:
        from lab.record import RunResult
        from lab.run import journal, past

        return past.names_of_cells(RunResult.read(journal.find_folder(Paths.default().runs, run)))

    return _offering(names)(context, parameter, word)


def _remedies() -> Iterable[str]:
    from lab.catalog import remedies

    return remedies.load()


def _reports() -> Iterable[str]:
    from lab.verdict import claims

    return claims.REPORTS


runs = _offering(_runs, otherwise="dir")
builds = _offering(_releases, otherwise="file")
# What is offered for a value, by the words that stand for it in the help.
OFFERED: dict[str, Completer] = {
    "GUEST": _guests,
    "VARIANT": _of_catalog("variants"),
    "SET": _of_catalog("sets"),
    "BUILD": builds,
    "previous|BUILD": builds,
    "RUN": runs,
    "FILE-or-RUN": runs,
    "OWN-RUN": _offering(_runs),
    "REMEDY": _offering(_remedies),
    "REPORT": _offering(_reports),
    "KEPT": _offering(_kept),
    "KEPT:PATH": _offering(lambda: [f"{name}:" for name in _kept()], otherwise="file"),
}


# -- options


class GroupedOption(click.Option):
    """An option that the help shows under a heading."""

    def __init__(self, *flags: Any, group: Group, **settings: Any) -> None:
        super().__init__(*flags, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows its options under headings, in the order of `Group`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[Group, list[tuple[str, str]]] = {group: [] for group in Group}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None:
                rows[getattr(parameter, "group", Group.OTHER)].append(row)
        for group, records in rows.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)


def of_request(request: type[Any]) -> list[click.Parameter]:
    """The options of a request: one for each of its fields, which are annotated with an `Option`."""
    hints = get_type_hints(request, include_extras=True)
    return [_option(field, *get_args(hints[field.name])) for field in fields(request)]


def _option(field: Field[Any], kind: Any, option: Option) -> click.Option:
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    settings: dict[str, Any] = {"default": field.default} if field.default else {}
    if option.parse is not None:
        settings["callback"] = _reader(option.parse, field.default)
    elif kind is bool:
        settings |= {"is_flag": True, "default": field.default}
    elif kind is int:
        settings |= {"type": click.IntRange(*(option.limits or ())), "show_default": True}
    elif kind is Path:
        settings["type"] = click.Path(path_type=Path)
    elif get_origin(kind) is Sequence:
        settings["multiple"] = True
    if option.bare is not None:
        settings |= {"is_flag": False, "flag_value": option.bare}
    return GroupedOption(
        [field.name, option.flags],
        group=option.group,
        help=option.help,
        metavar=option.metavar,
        shell_complete=OFFERED.get(option.metavar or ""),
        **settings,
    )


def _reader(parse: Callable[[str], Any], default: Any) -> Callable[..., Any]:
    """Click's callback for an option whose text is read by `parse`. It raises BadParameter."""

    def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        try:
            return default if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return read


def build_option(help_text: str, flag: str = "--build", metavar: str = "BUILD") -> Callable[..., Any]:
    """An option that names a build."""
    return click.option(flag, metavar=metavar, shell_complete=builds, help=help_text)


def file_option(help_text: str) -> Callable[..., Any]:
    """`-o FILE`, which has to be given."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("-o", "file", type=kind, metavar="FILE", required=True, help=help_text)


def folder_option(help_text: str, *, required: bool = False) -> Callable[..., Any]:
    """`-o DIR`."""
    kind = click.Path(path_type=Path)
    return click.option("-o", "folder", type=kind, metavar="DIR", required=required, help=help_text)


EACH_STEP = "Print a line for each step instead of a live table."
JSON = "Print one JSON document; see docs/reference/json.md."
NEW_RUN = "Write the run into this folder. Default: a new folder among the lab's runs."

run_argument = click.argument("run", metavar="RUN", shell_complete=runs)
runs_argument = click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=runs)
json_option = click.option("--json", "as_json", is_flag=True, help=JSON)
