"""Commands about other hosts: the script that asks one what decides, and whether boxlite works on it."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from lab import catalog, check
from lab.base.errors import LabError, UsageError
from lab.check import HostAnswer, published, text
from lab.cli import options, output
from lab.probes import script
from lab.probes.report import HostReport, read_host_report

# Bytes of a text with a probe's output.
LARGEST = 8 << 20
# The probe script ends in a second; every command in it has a limit of its own.
SECONDS = 120


@click.command("probe")
@click.option(
    "--issue-form",
    "form",
    is_flag=True,
    help="Print a GitHub issue form that holds the script and asks for its output: a file for "
    ".github/ISSUE_TEMPLATE/ of boxlite's repository.",
)
def probe_command(*, form: bool) -> int:
    """Print a shell script that shows what matters to boxlite on a user's host.

    The user runs it with `sh probe.sh`, without root, and pastes what it prints into a bug report. It needs
    Python 3.6 or newer and nothing else, takes less than a second, changes nothing, and prints no name and no
    address.
    """
    sysctls = catalog.load_catalog().sysctls()
    click.echo(script.render_issue_form(sysctls) if form else script.render_script(sysctls), nl=False)
    return 0


@click.command("check")
@click.argument("probe", required=False, metavar="[PROBE|-]", type=click.File("rb"))
@click.option(
    "--results",
    multiple=True,
    metavar="RUN|SITE",
    help="Compare with this run, or with the site in this folder (made by `lab publish`); may be given several "
    "times. Default: all of the lab's own runs.",
)
@options.json_option
@click.pass_obj
def check_command(lab: options.Lab, probe: BinaryIO | None, results: tuple[str, ...], *, as_json: bool) -> int:
    """Say whether boxlite will work on a host, why not, and what to do.

    PROBE is a file that holds the output of the script that `lab probe` prints, for example a bug report; `-`
    reads it from standard input. Without PROBE the script runs on this host.

    What the probe itself shows comes first, then the nearest tested host and the settings that differ. A host
    that is unlike any tested host is never said to work. Exit status: 0 expected to work, 1 blocked,
    3 not known, or n/a: boxlite has no wheel for the host's C library.
    """
    report = _here() if probe is None else _pasted(probe)
    loaded = published.load_published(results, lab.paths.runs)
    answer = check.judge_host(report, loaded.published)
    for left_out in loaded.left_out:
        output.print_warning(f"left out: {left_out}")
    if as_json:
        output.print_json(_document(answer, loaded.sources))
        return answer.outcome.exit_status
    for line in text.format_answer(answer):
        output.print_line(line)
    if not loaded.sources:
        output.print_line(
            "There are no published results: `lab matrix` makes some, and --results names a site."
        )
    return answer.outcome.exit_status


def _here() -> HostReport:
    """Run the script on this host and read what it prints."""
    command = ["sh", "-c", script.render_script(catalog.load_catalog().sysctls())]
    # A host whose own Python is missing or too old has the one that the lab runs with.
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    try:
        process = subprocess.run(
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
    report = read_host_report(process.stdout)
    if report is None:
        raise LabError(f"the probe script failed on this host: {process.stderr}", hint="lab probe | sh")
    return report


def _pasted(stream: BinaryIO) -> HostReport:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UsageError(f"PROBE is larger than {LARGEST >> 20} MiB", hint="give only the probe's output")
    report = read_host_report(data.decode("utf-8", errors="replace"))
    if report is None:
        raise UsageError(
            "PROBE holds no output of the probe script",
            hint="on the host: `sh probe.sh`, with the script that `lab probe` prints",
        )
    return report


def _document(answer: HostAnswer, sources: tuple[str, ...]) -> dict[str, Any]:
    near = answer.nearest
    return {
        "system": answer.system,
        "outcome": answer.outcome,
        "reasons": list(answer.reasons),
        "covers": answer.covers,
        "fails": [asdict(failure) for failure in answer.fails],
        "causes": [finding.model_dump(mode="json") for finding in answer.findings],
        "refused": [asdict(refused) for refused in answer.refused],
        "advice": [
            asdict(advice) | {"verified_on": advice.verified_on and _cell(advice.verified_on)}
            for advice in answer.advice
        ],
        "otherwise": list(answer.otherwise),
        "nearest": near
        and {
            **_cell(near.cell),
            "same_system": answer.same_system,
            "compared": len(near.comparison.compared),
            "differing": [
                {**asdict(setting), "decides": setting.decides} for setting in near.comparison.differing
            ],
            "not_known": list(near.comparison.not_known),
        },
        "as_close": [_cell(cell) for cell in answer.others],
        "related": [distribution.name for distribution in answer.related],
        "unreadable": list(answer.unreadable),
        "as_root": answer.as_root,
        "results": list(sources),
    }


def _cell(cell: check.PublishedCell) -> dict[str, Any]:
    return {
        "guest": cell.guest,
        "system": cell.system,
        "variant": cell.variant,
        "build": cell.build,
        "outcome": cell.kind,
        "headline": cell.headline,
        "causes": list(cell.causes),
    }
