"""The record of a run, stored as `results.json`: runs write it, reports only read it."""

from lab.record._base import Entry, PlainText
from lab.record.cell import CellResult, RepeatResult, TestRate, cell_folder
from lab.record.experiment import Experiment, ExperimentPolicy, ExperimentStep, NotTried, StepOutcome
from lab.record.lane import Host, LaneRecord
from lab.record.outcome import (
    UNKNOWN,
    Confidence,
    Expectation,
    Finding,
    Needs,
    Outcome,
    Status,
    Stress,
    TestResult,
)
from lab.record.processor_time import ProcessorTime
from lab.record.protection import Protection
from lab.record.remedy import RemedyOutcome, RemedyResult
from lab.record.run import (
    RESULTS_FILE,
    BuildRecord,
    RunInfo,
    RunOptions,
    RunResult,
    ShardRecord,
    json_schema,
)

__all__ = [
    "RESULTS_FILE",
    "UNKNOWN",
    "BuildRecord",
    "CellResult",
    "Confidence",
    "Entry",
    "Expectation",
    "Experiment",
    "ExperimentPolicy",
    "ExperimentStep",
    "Finding",
    "Host",
    "LaneRecord",
    "Needs",
    "NotTried",
    "Outcome",
    "PlainText",
    "ProcessorTime",
    "Protection",
    "RemedyOutcome",
    "RemedyResult",
    "RepeatResult",
    "RunInfo",
    "RunOptions",
    "RunResult",
    "ShardRecord",
    "Status",
    "StepOutcome",
    "Stress",
    "TestRate",
    "TestResult",
    "cell_folder",
    "json_schema",
]
