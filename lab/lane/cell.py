"""Running cells on a lane: fork, apply the variant, read it back, run the suite, gather evidence, judge.

And where attempts at the same cell or trial keep their evidence, and how a faulty one is set aside.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lab import causes
from lab.base.activity import Activity, Progress
from lab.base.files import A_RUN, explain_full_disk
from lab.base.wait import Stopwatch
from lab.builds import WHOLE_SUITE, SuiteOptions
from lab.catalog import Variant
from lab.causes import evidence
from lab.guest import collect, ready, stress, suite
from lab.guest import variant as guest_variant
from lab.guest.programs import RemoteFailed
from lab.guest.variant import CellStart, NotInEffect
from lab.lane.running import COLD, FORKED, RunningLane
from lab.plan import Cell
from lab.probes import Facts, Probes, SuiteUser
from lab.record import (
    CellResult,
    CellVerdict,
    FoundCause,
    Outcome,
    Prediction,
    Status,
    SuiteResult,
    SuiteRun,
    TestResult,
)
from lab.verdict.prediction import ProbedHost, predict_suite
from lab.verdict.status import Circumstances, judge_cell

# Evidence of an attempt that met a fault of the lab; numbered.
FAULT = "fault-"
# The variable that the tests of a suite see that is run again after a boot.
BOOTED_AGAIN = "LAB_BOOTED_AGAIN"
# Why a cell is not-run in a run that only predicts.
PREDICTED_ONLY = "--predict: no suite ran"


@dataclass(frozen=True)
class Applied:
    """A variant in effect on a guest: what the guest showed then, and the mark in its kernel log.

    `probes`: None if nobody asked for them.
    """

    facts: Facts
    user: SuiteUser
    mark: CellStart
    probes: Probes | None = None


def find_obstacle(running: RunningLane, cell: Cell) -> str | None:
    """What keeps a cell from making sense on this guest; None if nothing does."""
    if cell.machine.arguments and running.lane.image.firmware is not None:
        return "its own loader decides what its kernel is booted with"
    if cell.suite.boots_again and cell.variant.is_put_on:
        return f"the suite {cell.suite.name} boots the guest again, and what the variant sets there is lost"
    return guest_variant.explain_inapplicable(cell.variant, running.facts)


def record_not_applicable(running: RunningLane, cell: Cell, reason: str) -> CellResult:
    """The result of a cell that makes no sense on this guest, with the facts that say so."""
    verdict = CellVerdict(status=Status.NOT_APPLICABLE, reason=reason)
    return cell.judged_result(SuiteResult(facts=running.facts), verdict)


def run_cell(
    running: RunningLane,
    cell: Cell,
    folder: Path,
    options: SuiteOptions = WHOLE_SUITE,
    show_prediction: Callable[[Prediction], None] | None = None,
    prediction: Prediction | None = None,
) -> CellResult:
    """Run one cell in a fork, or in the lane as it is if cells are cold. Its evidence goes to `folder`.

    The cell's build is deployed already. With more than the usual time, a suite that does not end has hung.
    What the probes alone expect is shown before the suite runs, and kept beside the verdict, which it does not
    change. The probes do not run if their `prediction` is known, or without `show_prediction`. Raises LabError.
    """
    checkpoint = running.checkpoint(cell.build)
    watch = Stopwatch() if checkpoint else running.watch
    if prediction:
        show_prediction = None
    running.show(Progress(cell.variant.name, Activity.SETUP))
    if checkpoint:
        with watch.step("fork"):
            running.fork(cell.build)
    with watch.step("apply"):
        applied = apply_variant(running, cell.variant, probes=show_prediction is not None)
    if show_prediction:
        prediction = predict_cell(cell, applied)
        show_prediction(prediction)
    suite_run = run_suite(running, cell, watch, options)
    folder.mkdir(parents=True, exist_ok=True)
    clean = not suite_run.cut_short and all(test.outcome is Outcome.PASS for test in suite_run.tests)
    with watch.step("evidence"), explain_full_disk(folder, A_RUN):
        gather_evidence(running, cell, folder, mark=applied.mark, full=not clean)
        if not clean:
            printed = guest_variant.run_probe_script(running.session, cell.variant, running.work.sysctls)
            (folder / evidence.SCRIPT_FILE).write_text(printed)
    findings = [] if clean else diagnose_cell(cell, folder, suite_run.tests)
    circumstances = Circumstances(
        cell.own_causes,
        speed=running.lane.speed,
        hangs_count=options.stretch > 1,
        killed_for_memory=evidence.find_killed_programs(folder),
    )
    verdict = judge_cell(cell.suite, suite_run, cell.expected, findings, circumstances)
    suite_result = SuiteResult(
        tests=suite_run.tests,
        seed=options.seed,
        stress=list(options.stress),
        facts=applied.facts,
        context=applied.user.context,
        seconds=watch.seconds,
        fork=FORKED if checkpoint else COLD,
    )
    return cell.judged_result(suite_result, verdict).with_values(prediction=prediction)


def predict_without_suite(running: RunningLane, cell: Cell) -> CellResult:
    """Say what the probes alone expect of a cell, in a fork of the guest as it booted. Raises LabError.

    No build is deployed and no suite is run, so the cell is `not-run`.
    """
    watch = Stopwatch()
    applied = probe_without_build(running, cell, watch)
    suite_result = SuiteResult(facts=applied.facts, context=applied.user.context, seconds=watch.seconds)
    verdict = CellVerdict(status=Status.NOT_RUN, reason=PREDICTED_ONLY)
    return cell.judged_result(suite_result, verdict).with_values(prediction=predict_cell(cell, applied))


def probe_without_build(running: RunningLane, cell: Cell, watch: Stopwatch) -> Applied:
    """Apply a cell's variant in a fork of the guest as it booted, and run the probes. Raises LabError."""
    running.show(Progress(cell.variant.name, Activity.SETUP))
    with watch.step("fork"):
        running.fork_base()
    with watch.step("apply"):
        return apply_variant(running, cell.variant, probes=True)


def predict_cell(cell: Cell, applied: Applied) -> Prediction:
    """Say what the probes that ran when the variant was read back expect of the cell's suite."""
    assert applied.probes is not None, "the probes did not run"
    host = ProbedHost(
        applied.facts,
        applied.user,
        applied.probes,
        boxlite=cell.build.version,
        # The facts are read outside of any container.
        same_ids=applied.user.container is None,
    )
    return predict_suite(host, cell.suite)


def apply_variant(running: RunningLane, variant: Variant, *, probes: bool = False) -> Applied:
    """Apply a variant and read it back; with `probes`, run these as well.

    Raises NotAsDefined or NotInEffect if the guest does not show its own settings or the variant's.
    """
    mark = CellStart(f"lab-cell-begins {running.lane.name} {variant.name}")
    facts = guest_variant.begin_cell(running.session, variant, mark=mark, sysctls=running.work.sysctls)
    if "selinux" not in variant.knobs:  # A variant that changes SELinux is read back by its own knob.
        ready.check_as_defined(running.lane.guest, facts)
    probed: Probes | None = None
    try:
        user: SuiteUser
        if probes:
            user = probed_user = guest_variant.probe_suite_user(running.session, variant)
            probed = probed_user.probes
        else:
            user = guest_variant.read_suite_user(running.session, variant)
        guest_variant.check_variant(variant, facts, user)
    except (RemoteFailed, NotInEffect) as error:
        raise guest_variant.explain_not_in_effect(running.session, variant, error) from error
    return Applied(facts, user, mark, probed)


def run_suite(
    running: RunningLane, cell: Cell, watch: Stopwatch, options: SuiteOptions = WHOLE_SUITE
) -> SuiteRun:
    """Run the suite in the guest as it is, as soon as a processor is free. Raises LabError.

    A suite that boots again is run once more after that boot, if all its tests passed: its tests' results are
    those after the boot then. What was in the kernel's log before that boot explains no failure after it.
    """
    before = _run_once(running, cell, watch, options)
    is_over = before.cut_short or any(test.outcome is not Outcome.PASS for test in before.tests)
    if is_over or not cell.suite.boots_again:
        return before
    running.boot_again()
    with watch.step("apply"):
        apply_variant(running, cell.variant)
    environment = {**options.environment, BOOTED_AGAIN: "1"}
    after = _run_once(running, cell, watch, replace(options, environment=environment))
    earlier = {test.name: test.seconds for test in before.tests}
    tests = [
        test.with_values(seconds=round(test.seconds + earlier.get(test.name, 0.0), 2)) for test in after.tests
    ]
    return replace(after, tests=tests)


def _run_once(running: RunningLane, cell: Cell, watch: Stopwatch, options: SuiteOptions) -> SuiteRun:
    work = f"{cell.variant.name}: running the suite{' alone' if running.alone else ''}"
    with (
        running.hold_processor(Progress(work, Activity.SUITE), alone=running.alone),
        watch.step("suite"),
        stress.stress_guest(running.session, options.stress),
    ):
        speed = running.lane.speed
        return suite.execute_suite(running.session, cell.build, cell.variant, speed=speed, options=options)


def gather_evidence(running: RunningLane, cell: Cell, folder: Path, *, mark: CellStart, full: bool) -> None:
    """Fetch a suite's evidence; with `full`, all that can explain a failure. Raises LabError."""
    probed = None
    if full:
        running.show(Progress(f"{cell.variant.name}: gathering evidence", Activity.EVIDENCE))
        probed = guest_variant.probe_user(running.session, cell.variant)
    collect.collect_evidence(running.session, folder, cell.variant, mark=mark, full=full)
    if probed:
        # After what the suite wrote, which may have the same name.
        (folder / evidence.PROBES_FILE).write_text(probed.model_dump_json(indent=2) + "\n")
        (folder / "console.log").write_text(running.lane.console_text())


def diagnose_cell(cell: Cell, folder: Path, tests: Sequence[TestResult]) -> list[FoundCause]:
    """The causes that the evidence in a folder shows, the one that blocks first at the front.

    What breaks nothing that the suite needs explains none of its failures.
    """
    gathered = evidence.read_evidence(folder, tests, control=cell.suite.control)
    findings = causes.diagnose_evidence(replace(gathered, boxlite=cell.build.version))
    by_name = causes.list_causes()
    return [finding for finding in findings if cell.suite.needing(by_name[finding.name].breaks)]


# -- attempts


def choose_fault_folder(folder: Path) -> Path:
    """The next free folder for a fault's evidence, beside those of earlier faults."""
    number = 1
    while (folder / f"{FAULT}{number}").exists():
        number += 1
    return folder / f"{FAULT}{number}"


def set_attempt_aside(folder: Path, target: Path) -> None:
    """Move all that an attempt left, except other faults, to `target` as evidence of its fault."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        if entry != target and not entry.name.startswith(FAULT):
            entry.rename(target / entry.name)


def keep_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts as evidence, by file name. A full disk is no reason to lose the cell's result, too."""
    with suppress(OSError):
        for name, text in texts.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")


def clear_attempt(folder: Path) -> None:
    """Delete an attempt's files before it is repeated; keep `fault-N/`."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not entry.is_dir():
            entry.unlink()
        elif not entry.name.startswith(FAULT):
            shutil.rmtree(entry)
