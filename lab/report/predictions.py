"""How often the probes alone were right about cells whose suites ran."""

from collections.abc import Iterable
from dataclasses import dataclass

from lab.base.files import join_lines
from lab.record import CellResult, RunResult
from lab.report.table import format_count, format_square, name_cell
from lab.verdict.prediction import PREDICTED_SUITE, judge_prediction


@dataclass(frozen=True)
class PredictionScore:
    """What became of the predictions of cells that a suite decided: how many were right, and the wrong ones."""

    right: int
    wrong: list[CellResult]
    silent: int

    @property
    def total(self) -> int:
        return self.right + len(self.wrong) + self.silent

    def describe(self) -> str:
        """Count them in a line; empty if there was no prediction."""
        if not self.total:
            return ""
        wrong = len(self.wrong)
        return f"the probes alone: {self.right} right, {wrong} wrong, {self.silent} silent of {self.total}"

    def describe_trust(self) -> str:
        """Say to users with how much right the probe alone tells them something; empty without a prediction."""
        if not self.total:
            return ""
        return (
            f"the probe alone was right on {self.right} of {format_count(self.total, 'host')} that were tested"
        )

    def list_wrong(self) -> list[str]:
        """Name each cell about which the probes were wrong: a rule or a probe is at fault."""
        return [
            f"{name_cell(cell)}: {cell.prediction}, and it is: {join_lines(format_square(cell))}"
            for cell in self.wrong
        ]


def score_predictions(cells: Iterable[tuple[CellResult, str]]) -> PredictionScore:
    """Score predictions of cells, each with the name of its suite. Only those of the jailer's suite count."""
    predicted = [
        cell
        for cell, suite in cells
        if cell.prediction and cell.status.is_decisive and suite == PREDICTED_SUITE
    ]
    judged = [(cell, judge_prediction(cell)) for cell in predicted]
    return PredictionScore(
        right=sum(is_right is True for _, is_right in judged),
        wrong=[cell for cell, is_right in judged if is_right is False],
        silent=sum(is_right is None for _, is_right in judged),
    )


def score_run(run: RunResult) -> PredictionScore:
    """Score the predictions of the cells that a run ran itself."""
    suites = {build.name: build.suite for build in run.run.builds}
    return score_predictions((cell, suites.get(cell.build, "")) for cell in run.cells if not cell.history.kept)
