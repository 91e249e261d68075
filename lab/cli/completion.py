"""Shell completion: the script for a shell, and the names that it offers.

While a shell completes a word, click runs no command: nothing is removed, started or asked over the network.
"""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from lab import catalog
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import pip
from lab.catalog import remedies
from lab.cli import COMPLETE
from lab.lane import keeper
from lab.record import RunResult
from lab.run import journal, past
from lab.verdict import claims

SHELLS = ("bash", "zsh", "fish")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offering(names: Callable[[], Iterable[str]], otherwise: str = "") -> Completer:
    """Offer the names that begin with the word, or else paths of the kind `otherwise`: dir or file."""

    def complete(_context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
        try:
            # The user's folders may hold any name; the shells' protocol has one line for each.
            found = [name for name in names() if name.startswith(word) and name.isprintable()]
        except (LabError, OSError):
            found = []  # A broken definition is told by the command, not in the middle of a word.
        if not found and otherwise:
            return [CompletionItem(word, type=otherwise)]
        return [CompletionItem(name) for name in found]

    return complete


def _runs() -> list[str]:
    # The newest first: it is the one that is asked for most.
    return sorted((folder.name for folder in past.folders(Paths.default().runs)), reverse=True)


def _releases() -> set[str]:
    """The releases in the cache of wheels: which others there are, only the package index knows."""
    folders = pip.store(Paths.default()).glob(f"{pip.PROJECT}-*/")
    return {folder.name.removeprefix(f"{pip.PROJECT}-").partition("-")[0] for folder in folders}


def _names_of_kept() -> list[str]:
    return [kept.name for kept in keeper.all_kept(Paths.default())]


def guests_or_cells(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Offer guests, or the cells of the run that `--run` names."""
    run = context.params.get("run")
    return (_offering(lambda: _cells(run)) if run else guests)(context, parameter, word)


def _cells(run: str) -> list[str]:
    return past.names_of_cells(RunResult.read(journal.find_folder(Paths.default().runs, run)))


guests = _offering(lambda: catalog.load().guests)
variants = _offering(lambda: catalog.load().variants)
sets = _offering(lambda: catalog.load().sets)
remedy_names = _offering(lambda: remedies.load())
reports = _offering(lambda: claims.reports())
builds = _offering(_releases, otherwise="file")
runs = _offering(_runs, otherwise="dir")
kept = _offering(_names_of_kept)
copied = _offering(lambda: [f"{name}:" for name in _names_of_kept()], otherwise="file")
own_runs = _offering(_runs)
files = _offering(lambda: [], otherwise="file")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
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
