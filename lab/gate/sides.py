"""Finds what a command line names: a run, by its name or folder, or a baseline file."""

from pathlib import Path

from lab.base.errors import UsageError
from lab.gate import baseline, results
from lab.gate.results import BuildResults
from lab.record import RESULTS_FILE, RunResult
from lab.run import journal

# How to compare with one build of a run that tested several.
OF_SEVERAL = "lab baseline RUN -o FILE --build"


def read(runs: Path, named: str, build: str | None = None, option: str = OF_SEVERAL) -> BuildResults:
    """Read a run or a baseline; `build`, named by `option`, is needed for a run of several builds.

    Raises UsageError if there is no such thing, or if it cannot be read.
    """
    file = baseline_file(named)
    if file is None:
        folder, run = read_run(runs, named)
        return results.of_run(run, folder, results.choose_build(run, build, option))
    found = baseline.read(file)
    if build not in (None, found.build, found.version):
        raise UsageError(f"{option} {build}: {file} is a baseline of {found.build}", hint=f"leave out {option}")
    return found


def read_run(runs: Path, named: str) -> tuple[Path, RunResult]:
    """Read a run, which may also be named by its `results.json`. Raises UsageError."""
    path = Path(named)
    folder = path.parent if path.is_file() and path.name == RESULTS_FILE else journal.find_folder(runs, named)
    return folder, RunResult.read(folder)


def baseline_file(named: str) -> Path | None:
    """Return the file if a name is that of a baseline, None if it is that of a run. Raises UsageError."""
    path = Path(named)
    if path.is_file() and path.name != RESULTS_FILE:
        return path
    if path.suffix == ".toml" and not path.exists():
        raise UsageError(f"{path}: no such file", hint=f"write a baseline with: lab baseline RUN -o {path}")
    return None
