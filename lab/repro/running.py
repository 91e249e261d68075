"""Running a report's cells: one run among the lab's own, with its evidence, its log and its live view."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lab.base.errors import ImageNotAvailable
from lab.base.files import make_folder, write_atomically
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.images import store
from lab.lane import prepare_image
from lab.machine.budget import Limits
from lab.record import ExperimentPolicy, RunOptions, RunResult
from lab.report import live, markdown
from lab.report.runlog import RunLog
from lab.repro import settings
from lab.repro.planning import Plan
from lab.run import journal, start

# Remedies are tried on what fails; where no cause is proved, an experiment looks for what turns the cell.
OPTIONS = RunOptions(remedies=True, experiments=ExperimentPolicy.UNCLEAR)
# A report has few cells, all of one guest.
JOBS = 1


@dataclass(frozen=True)
class View:
    """How a run is shown."""

    console: Console
    quiet: bool = False
    verbose: bool = False


def new_folder(paths: Paths, wanted: Path | None) -> Path:
    """Make the folder of a new run. Raises UsageError if it holds a run already or cannot be made."""
    folder = journal.new_folder(paths.make(paths.runs), wanted)
    make_folder(folder)
    return folder


def run(plan: Plan, folder: Path, paths: Paths, uri: str, view: View, *, command: str, again: str) -> RunResult:
    """Run the cells of a plan. `command` is recorded, `again` is the command that makes such a run once more.

    Raises LabError if nothing can be run at all.
    """
    _write_variants(plan, folder)
    planned = start.begin(folder, plan.cells(again), command=command, options=OPTIONS, shard=None)
    shown = live.view(view.console, planned.cells, [], quiet=view.quiet, verbose=view.verbose)
    with shown as observer, RunLog(folder, observer) as log:
        result = planned.run(paths, uri, Limits.of_this_host(JOBS, None), log)
    write_atomically(folder / "matrix.md", markdown.render(result, folder))
    return result


def is_stored(paths: Paths, guest: Guest) -> bool:
    """Whether a guest's lanes can start at once."""
    return prepare_image.is_ready(paths, guest)


def why_no_image(paths: Paths, guest: Guest, view: View) -> str | None:
    """Build or fetch a guest's image if it is not here; why it cannot be had, None if it is here now."""
    with view.console.status(f"looking for the image of {guest.name}"):
        try:
            store.ensure(paths, guest, lambda text: None)
        except ImageNotAvailable as error:
            return f"image not available: {error.args[0]}"
    return None


def _write_variants(plan: Plan, folder: Path) -> None:
    """Write the variants that have no file of their own: `lab matrix --resume` finds them there."""
    target = folder / start.VARIANTS
    for variant in plan.made_variants:
        target.mkdir(exist_ok=True)
        (target / f"{variant.name}.toml").write_text(settings.to_toml(variant))
