"""The probe script: what a user runs on their own host, so that a bug report says what decides."""

import click

from lab import catalog
from lab.probes import script


@click.command("probe")
def probe_command() -> int:
    """Print a shell script that says what decides about boxlite on a user's host.

    The user runs it with `sh probe.sh`, without root and without installing anything, and pastes what it prints
    into a bug report. It takes less than a second, changes nothing, and prints no name and no address.
    """
    click.echo(script.text(catalog.load().sysctls()), nl=False)
    return 0
