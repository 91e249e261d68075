"""What the commands share: the lab's folders and its libvirt, and options.

What a few commands need is imported where it is used: the imports are most of what a short command takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import click

from lab.base.files import write_atomically
from lab.base.options import Group
from lab.base.paths import STATES_GIB, Paths
from lab.cli import output

if TYPE_CHECKING:
    from lab.lane.upkeep import UnusedFolder
    from lab.record import RunResult


class Lab:
    """The lab's folders and the libvirt to use; every command gets it."""

    def __init__(self, connect: str | None, states_gib: int = STATES_GIB) -> None:
        self.paths = replace(Paths.default(), states_gib=states_gib)
        self._connect = connect

    @cached_property
    def uri(self) -> str:
        from lab.machine.connection import get_default_uri

        return self._connect or get_default_uri()

    def sweep(self) -> "tuple[list[str], list[UnusedFolder], list[str]]":
        """Remove what dead labs left behind. Returns the names of lanes, the folders, and why others are left.

        Raises LabError if libvirt does not remove a machine of theirs. Every command that starts, uses or
        counts machines calls this first. The others do not, so that they work where libvirt does not.
        """
        from lab.lane import upkeep
        from lab.machine import leftovers

        return leftovers.reap_dead_lanes(self.paths), *upkeep.sweep_leftovers(self.paths)


def show_result(run: "RunResult", folder: Path) -> None:
    """Print a run's summary, and write `matrix.md` into its folder."""
    from lab.report import markdown, terminal

    try:
        write_atomically(folder / "matrix.md", markdown.render_run(run, folder))
    finally:
        terminal.print_summary(output.get_console(), run, folder)


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


def make_request_options(request: type[Any]) -> list[click.Parameter]:
    """The options of a request: one for each of its fields."""
    kinds, group, options = get_type_hints(request), Group.OTHER, list[click.Parameter]()
    for field in fields(request):
        settings, kind = dict(field.metadata), kinds[field.name]
        group = settings.pop("group") or group
        name = field.name.replace("_", "-")
        flags = settings.pop("flags") or f"--{name}"
        if isinstance(kind, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        if field.default:
            settings["default"] = field.default
        if "type" in settings:
            pass
        elif kind is bool and field.default is False:
            settings |= {"is_flag": True, "default": False}
        elif kind is bool:
            flags = f"--{name}/--no-{name}"
            settings |= {"is_flag": True, "default": field.default}
        elif kind is Path:
            settings["type"] = click.Path(path_type=Path)
        elif get_origin(kind) is Sequence:
            settings["multiple"] = True
        options.append(GroupedOption([field.name, flags], group=group, **settings))
    return options


def add_build_option(help_text: str, flag: str = "--build") -> Callable[..., Any]:
    return click.option(flag, metavar="BUILD", help=help_text)


def add_file_option(help_text: str) -> Callable[..., Any]:
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("-o", "file", type=kind, metavar="FILE", required=True, help=help_text)


def add_folder_option(help_text: str, *, required: bool = False) -> Callable[..., Any]:
    kind = click.Path(path_type=Path)
    return click.option("-o", "folder", type=kind, metavar="DIR", required=required, help=help_text)


EACH_STEP = "Print a line for each step instead of a live table."
JSON = "Print one JSON document; see docs/reference/json.md."
NEW_RUN = "Write the run into this folder. Default: a new folder among the lab's runs."

run_argument = click.argument("run", metavar="RUN")
runs_argument = click.argument("runs", nargs=-1, required=True, metavar="RUN...")
json_option = click.option("--json", "as_json", is_flag=True, help=JSON)
