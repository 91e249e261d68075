"""Remedies: what cures a cause, what it costs, and the script that applies it."""

import click
from rich.markup import escape
from rich.table import Table

from lab import remedies
from lab.base.errors import UsageError
from lab.cli import common, completion, consoles


@click.group("remedies", invoke_without_command=True)
@click.pass_context
def remedies_group(context: click.Context) -> int:
    """List the remedies and the causes that they cure, the one that gives up least protection first."""
    if context.invoked_subcommand is not None:
        return 0
    table = Table("remedy", "loss", "what it does, and for which causes", box=None, pad_edge=False)
    for name, remedy in remedies.load().items():
        table.add_row(name, f"{remedy.loss}", escape(remedy.title))
        table.add_row("", "", f"[dim]{', '.join(remedy.cures)}[/]")
    consoles.console.print(table, soft_wrap=True)
    common.say("\nloss: the protection that a remedy gives up; 100 is all that the jailer gives")
    return 0


@remedies_group.command("show")
@click.argument("name", shell_complete=completion.remedy_names)
@click.option("--script", is_flag=True, help="Print a shell script that applies the remedy on your own host.")
def remedies_show(name: str, script: bool) -> int:
    """Show what a remedy does, what it costs, and how to apply it."""
    remedy = remedies.find(name)
    if script:
        if remedy.host is None:
            raise UsageError(
                f"{name} changes how boxlite is run, not the host: there is no script for it",
                hint=f"lab remedies show {name}",
            )
        click.echo(remedy.script(), nl=False)
        return 0
    common.say(f"{remedy.name}: {remedy.title}")
    common.say(f"\ncauses: {', '.join(remedy.cures)}\nloss: {remedy.loss} of 100")
    common.say(f"\n{remedies.wrapped(remedy.does)}\n\nWhat that costs:\n{remedies.wrapped(remedy.price)}\n")
    if remedy.run is not None:
        common.say(remedy.run.example.strip())
    if remedy.host is not None:
        common.say(f"{remedy.host.apply.strip()}\n\nas a script: lab remedies show {name} --script")
    return 0
