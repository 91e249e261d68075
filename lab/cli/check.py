"""What a user's host shows: the probe script, and what published results say about this host or another."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lab import catalog, check
from lab.base.errors import LabError, UsageError
from lab.check import Answer, text
from lab.cli import common, completion, consoles
from lab.probes import script
from lab.probes.report import HostReport, read
from lab.site.users import tested


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

    The user runs it with `sh probe.sh`, without root, and pastes what it prints into a bug report. It needs
    Python 3.6 or newer and nothing else, takes less than a second, changes nothing, and prints no name and no
    address.
    """
    sysctls = catalog.load().sysctls()
    click.echo(script.issue_form(sysctls) if form else script.text(sysctls), nl=False)
    return 0


# Bytes of a text with a probe's output.
LARGEST = 8 << 20
# The script ends in a second; every command in it has a limit of its own.
SECONDS = 120


@click.command("check")
@click.argument("probe", required=False, metavar="[PROBE|-]", type=click.Path(allow_dash=True))
@click.option(
    "--results",
    multiple=True,
    metavar="RUN|SITE",
    shell_complete=completion.runs,
    help="Compare with this run, or with the site in this folder (made by `lab publish`); may be given several "
    "times. Default: all of the lab's own runs.",
)
@common.json_option
@click.pass_obj
def check_command(lab: common.Lab, probe: str | None, results: tuple[str, ...], *, as_json: bool) -> int:
    """Say whether boxlite will work on a host, why not, and what to do.

    PROBE is a file that holds the output of the script that `lab probe` prints, for example a bug report; `-`
    reads it from standard input. Without PROBE the script runs on this host.

    What the probe itself shows comes first, then the nearest tested host and the settings that differ. A host
    that is unlike any tested one is never called one that works. Exit status: 0 expected to work, 1 blocked,
    3 not known.
    """
    report = _here() if probe is None else _pasted(probe)
    loaded = tested.load(results, lab.paths.runs)
    answer = check.judge(report, loaded.published)
    for left_out in loaded.left_out:
        consoles.errors.print(f"left out: {left_out}", markup=False, soft_wrap=True)
    if as_json:
        common.print_json(_document(answer, loaded.sources))
        return answer.outcome.exit_status
    for line in text.lines(answer):
        common.say(line)
    if not loaded.sources:
        common.say("There are no published results: `lab matrix` makes some, and --results names a site.")
    return answer.outcome.exit_status


def _here() -> HostReport:
    """Run the script on this host and read what it prints."""
    command = ["sh", "-c", script.text(catalog.load().sysctls())]
    # A host whose own Python is missing or too old has the one that the lab runs with.
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"the probe script did not run on this host: {error}", hint="lab probe | sh") from error
    report = read(done.stdout)
    if report is None:
        raise LabError(f"the probe script failed on this host: {done.stderr}", hint="lab probe | sh")
    return report


def _pasted(name: str) -> HostReport:
    try:
        with click.open_file(name, "rb") as stream:
            data = stream.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(
            f"{name}: {error.strerror}", hint="give a file with the probe's output, or - and paste it"
        ) from error
    if len(data) > LARGEST:
        raise UsageError(f"{name}: larger than {LARGEST >> 20} MiB", hint="give only the probe's output")
    report = read(data.decode("utf-8", errors="replace"))
    if report is None:
        raise UsageError(
            f"{name}: holds no output of the probe script",
            hint="on the host: `sh probe.sh`, with the script that `lab probe` prints",
        )
    return report


def _document(answer: Answer, sources: tuple[str, ...]) -> dict[str, Any]:
    near = answer.nearest
    return {
        "system": answer.system,
        "outcome": answer.outcome,
        "reasons": list(answer.reasons),
        "causes": [each.model_dump(mode="json") for each in answer.findings],
        "refused": [asdict(each) for each in answer.refused],
        "advice": [
            {
                "remedy": each.name,
                "title": each.title,
                "does": each.does,
                "price": each.price,
                "commands": each.commands,
                "verified_on": each.verified_on and _cell(each.verified_on),
                "script_changed": each.changed,
            }
            for each in answer.advice
        ],
        "otherwise": list(answer.otherwise),
        "nearest": near
        and {
            **_cell(near.cell),
            "same_system": answer.same_system,
            "compared": len(near.comparison.compared),
            "differing": [{**asdict(each), "decides": each.decides} for each in near.comparison.differing],
            "not_known": list(near.comparison.not_known),
        },
        "as_close": [_cell(each) for each in answer.others],
        "related": [each.name for each in answer.related],
        "unreadable": list(answer.unreadable),
        "as_root": answer.as_root,
        "results": list(sources),
    }


def _cell(cell: check.Cell) -> dict[str, Any]:
    return {
        "guest": cell.guest,
        "variant": cell.variant,
        "build": cell.build,
        "outcome": cell.kind,
        "headline": cell.headline,
        "causes": list(cell.causes),
    }
