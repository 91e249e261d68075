"""What a shell offers while a word is typed: commands, options, and the names that a value can have.

A shell asks at each press of Tab, and importing the commands takes most of a second. So `completion.json`
holds what completion needs to know of them; `python -m lab.cli.reference` writes it from the commands
themselves. Names come from the files that have them. Nothing is removed, started or asked over the network
meanwhile.
"""

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from lab.base.errors import LabError
from lab.base.paths import PACKAGE, Paths, find_definitions

TABLE = Path(__file__).with_name("completion.json")
# Characters; more than the first sentence of any command's help has.
FIRST_SENTENCE = 200


def render_table(group: click.Group) -> str:
    """The content of the table for these commands: a line for each."""
    commands = _described(group)["commands"].items()
    lines = [f"{json.dumps(name)}: {json.dumps(about)}" for name, about in commands]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _described(command: click.Command) -> dict[str, Any]:
    """The settings of a command that completion needs, as click has them, and of the commands below it."""
    context = click.Context(command)
    params: list[dict[str, Any]] = []
    for parameter in command.params:
        metavar = parameter.make_metavar(context).strip("[].")
        settings: dict[str, Any] = {"param_decls": [parameter.name], "metavar": metavar}
        if isinstance(parameter, click.Option):
            settings["param_decls"].append("/".join([*parameter.opts, *parameter.secondary_opts]))
            settings["help"] = parameter.help
            if parameter.is_flag:
                settings |= {"is_flag": True, "metavar": None}
            elif metavar.startswith("="):  # As the help shows a value that may be left out: [=SEED].
                settings |= {"is_flag": False, "flag_value": ""}
        else:
            settings |= {"nargs": parameter.nargs, "required": False}
        if isinstance(parameter.type, click.Choice):
            settings["type"] = list(parameter.type.choices)
        params.append(settings)
    about: dict[str, Any] = {"help": command.get_short_help_str(FIRST_SENTENCE), "params": params}
    if isinstance(command, click.Group):
        parts = {name: command.get_command(context, name) for name in command.list_commands(context)}
        about["commands"] = {name: _described(part) for name, part in parts.items() if part}
    return about


@cache
def make_stand_ins() -> click.Group:
    """The commands, as far as completion and the list of them in the help need them."""
    table = json.loads(TABLE.read_text("utf-8"))
    return click.Group(commands={name: _command(name, about) for name, about in table.items()})


def _command(name: str, about: dict[str, Any]) -> click.Command:
    params: list[click.Parameter] = []
    for settings in about["params"]:
        choices = settings.pop("type", None)
        settings |= {"type": click.Choice(choices)} if choices else {"shell_complete": _offered}
        params.append(click.Option(**settings) if "help" in settings else click.Argument(**settings))
    if "commands" not in about:
        return click.Command(name, params=params, help=about["help"])
    parts = {part: _command(part, row) for part, row in about["commands"].items()}
    return click.Group(name, parts, params=params, help=about["help"])


def _offered(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Offer the names that begin with the word, or else paths, as `OFFERED` says."""
    names, otherwise = OFFERED.get(parameter.metavar or "", (_none, ""))
    try:
        # The user's folders may hold any name; the shells' protocol has one line for each.
        offered = [name for name in names(context) if name.startswith(word) and name.isprintable()]
    except (LabError, OSError):
        offered = []  # The command says what is wrong, not the middle of a word.
    if not offered and otherwise:
        return [CompletionItem(word, type=otherwise)]
    return [CompletionItem(name) for name in offered]


# -- names; what needs imports that take long is imported where it is used


def _none(_context: click.Context) -> list[str]:
    return []


def _commands(_context: click.Context) -> list[str]:
    return sorted(make_stand_ins().commands)


def _defined_in(folder: Path) -> Callable[[click.Context], list[str]]:
    """The names of definitions, which are those of their files."""
    return lambda _context: [file.stem for file in sorted(folder.glob("*.toml"))]


def _guests(context: click.Context) -> Iterable[str]:
    """Guests, or the cells of the run that `--run` names."""
    if (run := context.params.get("run")) is None:
        return _defined_in(find_definitions() / "images")(context)
    from lab.record import RunResult
    from lab.record.folders import find_folder

    return RunResult.read(find_folder(Paths.default().runs, run)).cell_names()


def _runs(_context: click.Context) -> list[str]:
    # The newest first: it is the one that is asked for most.
    return sorted((folder.name for folder in Paths.default().runs.iterdir() if folder.is_dir()), reverse=True)


def _releases(_context: click.Context) -> set[str]:
    """The releases in the cache of wheels: which others there are, only the package index knows."""
    wheels = (Paths.default().cache / "wheels").glob("boxlite-*/")
    return {folder.name.split("-")[1] for folder in wheels}


def _kept(_context: click.Context) -> list[str]:
    from lab.lane import shell

    return [guest.name for guest in shell.list_kept_guests(Paths.default())]


def _kept_paths(context: click.Context) -> list[str]:
    return [f"{name}:" for name in _kept(context)]


# What is offered for a value, by the word that stands for it in the help; without any, paths of this kind.
OFFERED: dict[str, tuple[Callable[[click.Context], Iterable[str]], str]] = {
    **dict.fromkeys(("GUEST", "GUESTS"), (_guests, "")),
    "COMMAND": (_commands, ""),
    "VARIANT": (_defined_in(find_definitions() / "cloud-init" / "variants"), ""),
    "SET|FILE": (_defined_in(find_definitions() / "images" / "sets"), "file"),
    "REMEDY": (_defined_in(PACKAGE / "remedies"), ""),
    **dict.fromkeys(("BUILD", "previous|BUILD"), (_releases, "file")),
    **dict.fromkeys(("RUN", "OLD", "NEW", "FILE-or-RUN", "RUN|SITE"), (_runs, "dir")),
    "NAME": (_kept, ""),
    **dict.fromkeys(("SRC", "DST"), (_kept_paths, "file")),
    **dict.fromkeys(("FILE", "PACKAGE|FILE|DIR", "PROBE|-", "REPORT|-"), (_none, "file")),
    "DIR": (_none, "dir"),
}
