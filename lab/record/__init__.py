"""The record of a run, stored as `results.json`: runs write it, reports only read it.

What the other rooms need is imported here.
"""

from lab.record.cell import (
    AT,
    CellHistory,
    CellResult,
    CellTrials,
    CellVerdict,
    Experiment,
    ExperimentPolicy,
    ExperimentTrial,
    KeptFrom,
    RemedyOutcome,
    RemedyResult,
    RepeatResult,
    SuiteResult,
    TestRate,
    TrialOutcome,
    format_cell_folder,
    strip_kernel,
)
from lab.record.outcome import (
    UNKNOWN,
    BoxGroups,
    Confidence,
    Entry,
    Expectation,
    Fault,
    Foreseen,
    FoundCause,
    Needs,
    Outcome,
    PlainText,
    Prediction,
    Protection,
    Status,
    Stress,
    SuiteRun,
    TestResult,
)
from lab.record.run import (
    DECIDED_FILE,
    RESULTS_FILE,
    BuildRecord,
    DecidedCell,
    Host,
    LaneRecord,
    LaneStep,
    Omission,
    RunInfo,
    RunOptions,
    RunResult,
    ShardRecord,
    format_continuation,
    make_json_schema,
)
