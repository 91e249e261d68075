"""Shows where runs spent their time: the median seconds of each step, from the runs' records."""

import argparse
import statistics
from pathlib import Path

from rich.console import Console

from benchmarks import history
from lab.record import RunResult

CELL_STEPS = ("fork", "apply", "suite", "evidence")
TRIAL_STEPS = ("fork", "apply", "remedy", "suite", "evidence", "undo")
LANE_STEPS = ("boot", "fetch", "deploy", "checkpoint")


def line(name: str, seconds: list[float]) -> str:
    if not seconds:
        return f"{name:12} -"
    return (
        f"{name:12} median {statistics.median(seconds):6.1f} s   "
        f"{min(seconds):6.1f} to {max(seconds):6.1f}   n={len(seconds)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that were made on this machine")
    history.add_options(parser)
    options = parser.parse_args()
    runs = [RunResult.read(folder) for folder in options.runs]
    figures: list[history.Figure] = []

    def tell(name: str, seconds: list[float], of: str = "") -> None:
        print(line(name, seconds))
        figures.extend([history.Figure.median(f"{of}{name}", seconds)] if seconds else [])

    for run in runs:
        if run.run.finished:
            wall = (run.run.finished - run.run.started).total_seconds()
            print(f"run {run.run.id}: {len(run.cells)} cells in {wall:.0f} s")
    lanes = [lane for run in runs for lane in run.run.lanes]
    for step in LANE_STEPS:
        tell(step, [lane.seconds[step] for lane in lanes if step in lane.seconds])
    cells = [cell for run in runs for cell in run.cells if "suite" in cell.suite.seconds]
    for step in CELL_STEPS:
        tell(step, [cell.suite.seconds[step] for cell in cells if step in cell.suite.seconds])
    other = [sum(cell.suite.seconds.values()) - cell.suite.seconds["suite"] for cell in cells]
    tell("not suite", other)
    if cells:
        share = sum(other) / sum(cell.suite.seconds["suite"] for cell in cells)
        print(f"time outside the suite: {share:.0%} of the suite's time, over {len(cells)} cells")
    trials = [trial for cell in cells for trial in cell.remedies if "suite" in trial.steps]
    if trials:
        print("trials of remedies:")
        for step in TRIAL_STEPS:
            tell(step, [trial.steps[step] for trial in trials if step in trial.steps], "trial: ")
        own = [sum(trial.steps.values()) - trial.steps["suite"] for trial in trials]
        tell("not suite", own, "trial: ")
    # The same cells: their suites take as long.
    names = sorted({f"{cell.guest}/{cell.variant}" for cell in cells})
    history.keep(Console(highlight=False), options, "steps", setting=" ".join(names), figures=figures)


if __name__ == "__main__":
    main()
