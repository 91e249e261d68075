"""The probe script: what a user runs on their own host, so that a bug report says what decides."""

import click

from lab import catalog
from lab.probes import script


@click.command("probe")
@click.option(
    "--issue-form",
    "form",
    is_flag=True,
    help="Print a GitHub issue form that holds the script and asks for its output: a file for "
    ".github/ISSUE_TEMPLATE/ of boxlite's repository.",
)
def probe_command(*, form: bool) -> int:
    """Print a shell script that says what decides about boxlite on a user's host.

    The user runs it with `sh probe.sh`, without root and without installing anything, and pastes what it prints
    into a bug report. It takes less than a second, changes nothing, and prints no name and no address.
    """
    sysctls = catalog.load().sysctls()
    click.echo(script.issue_form(sysctls) if form else script.text(sysctls), nl=False)
    return 0
