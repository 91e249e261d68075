"""A worker owns one lane, from its image to its last cell."""

import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import libvirt

from lab.base.activity import Activity, Progress, Task
from lab.base.errors import Bug, LabError, NotApplicable, is_lasting
from lab.builds import shuffle_tests
from lab.catalog import DebianImage
from lab.images import store
from lab.lane import cell as lane_cell
from lab.lane import prepare_image
from lab.lane.cell import choose_fault_folder, clear_attempt, keep_texts, set_attempt_aside
from lab.lane.running import RunningLane, Work, open_running_lane
from lab.machine import acceleration, console, leftovers
from lab.machine.acceleration import Acceleration
from lab.machine.connection import RESTART_SECONDS, hold_lane_connection, open_connection
from lab.machine.lane import ClockMissing, Lane, LaneDied, convert_to_fault
from lab.machine.leftovers import LeftBehind
from lab.plan import Machine
from lab.record import CellHistory, CellResult, ExperimentPolicy, Host, Status
from lab.run import lanes
from lab.run.backlog import Ticket
from lab.run.decisions import REST_AGAIN, Decisions
from lab.run.journal import ResultsNotWritten
from lab.trials import experiment, remedies
from lab.verdict import status


class Worker:
    """One lane of a run. `number` counts the run's lanes; `label` is its name for people."""

    _running: RunningLane  # Once the lane is up.

    def __init__(
        self, machine: Machine, number: int, label: str, work: Work, uri: str, decisions: Decisions
    ) -> None:
        self.machine = machine
        self.number = number
        self.label = label
        self._work = work
        self._uri = uri
        self.decisions = decisions
        self.journal = decisions.journal
        self.backlog = decisions.backlog
        self._observer = decisions.observer
        self._options = decisions.journal.info.options
        self._task = Task(self._show, decisions.cancel_token.check)
        self._host: Host | None = None
        # Known once its guest has an image.
        self.acceleration: Acceleration | None = None
        self._lane: Lane | None = None
        # How many suites were begun in it.
        self._served = 0
        self._lock = threading.Lock()

    @property
    def is_stopped(self) -> bool:
        return self.decisions.cancel_token.is_cancelled

    def give_up(self) -> None:
        """Take the lane down, from another thread: the worker then comes to its end by itself."""
        with self._lock:
            running = self._lane
        if running:
            running.give_up()

    def work(self) -> None:
        """Serve cells until none is left for this lane; a fault becomes a result. Raises ResultsNotWritten."""
        try:
            with hold_lane_connection(self._uri, seconds=RESTART_SECONDS, task=self._task) as connection:
                self._work_on(connection)
        except ResultsNotWritten:
            raise
        except LeftBehind as error:
            # Its cells are decided or go to another lane; this one only waits for libvirt to take it down.
            self._observer.note(str(error))
            with suppress(LabError):
                open_connection(self._uri, seconds=RESTART_SECONDS, task=self._task).close()
                leftovers.reap_dead_lanes(self._work.paths)
        except Exception as error:
            self._did_not_come_up(convert_to_fault(error))

    def _show(self, progress: Progress) -> None:
        self._observer.lane(self.label, progress)

    def _show_image(self, progress: Progress) -> None:
        self._show(progress.within(Activity.IMAGE, prefix="image: "))

    def _hold(self, lane: Lane | None) -> None:
        """Remember the lane, so that an interrupt can take it down, or forget one that is at its end."""
        with self._lock:
            self._lane = lane
        if lane and self.is_stopped:
            lane.give_up()

    # -- from the image to a lane

    def _work_on(self, connection: libvirt.virConnect) -> None:
        """Find the guest's image, prepare it, and open a lane on it. Without one, all its cells are decided."""
        work, guest = self._work, self.machine.guest
        task = replace(self._task, show=self._show_image)
        wait = Progress("waiting for a processor", Activity.WAITING)
        try:
            # To build an image keeps a processor busy as long as a boot does.
            is_built_now = isinstance(guest.image, DebianImage) and not store.find_image(work.paths, guest)
            with work.processors.hold(1, lambda: task.show(wait)) if is_built_now else nullcontext():
                image = store.ensure_image(work.paths, guest, task)
        except LabError as error:
            self.decisions.decide_without_image(self._drop_all(), guest.name, error)
            return
        task.check()
        self._show(Progress("finding out about KVM", Activity.WAITING))
        host_acceleration = acceleration.decide_acceleration(connection, work.paths, image, self._task)
        task.check()
        self._host, self.acceleration = lanes.describe_host(connection, host_acceleration), host_acceleration
        if self.journal.begin_on(self._host, guest.arch) and not host_acceleration.kvm:
            speed = (
                f"; {host_acceleration.speed.compared}" if host_acceleration.kernel_seconds is not None else ""
            )
            self._observer.note(
                f"guests of {guest.arch} run under software emulation: {host_acceleration.reason}{speed}"
            )
        if host_acceleration.kernel_seconds is not None:
            self._show(Progress(host_acceleration.told()))
        preparation = prepare_image.Preparation(
            connection, work.paths, host_acceleration, task, work.processors, self._hold
        )
        try:
            image = prepare_image.ensure_prepared_image(preparation, guest, image)
        except LaneDied:
            raise  # Emulated machines sometimes do; another lane may try again.
        except LabError as error:
            tickets = self._drop_all()
            for ticket in tickets:
                keep_texts(self._folder(ticket), error.evidence)
            self.decisions.decide_all(tickets, Status.ERROR, str(error))
            return
        finally:
            self._hold(None)
        self._observer.image(image)
        self.decisions.keep_unchanged(self.machine.name, image)
        if not self.backlog.waiting(self.machine.name):
            return
        with open_running_lane(
            connection,
            work,
            machine=self.machine,
            image=image,
            acceleration=host_acceleration,
            task=Task(self._show),
        ) as running:
            self._hold(running.lane)
            try:
                self._serve_cells(running)
            finally:
                self._hold(None)

    def _drop_all(self) -> list[Ticket]:
        """Every waiting cell of the machine, for what keeps all of them from running."""
        return [] if self.is_stopped else self.backlog.drop(self.machine.name)

    def _serve_cells(self, running: RunningLane) -> None:
        """Bring the lane up and serve cells until none is left that it may take."""
        lane = running.lane
        failed: Exception | None = None
        try:
            running.start()
        except Exception as error:
            failed = convert_to_fault(error)
        if isinstance(failed, ClockMissing):
            acceleration.forget_clock(self._work.paths)
        # How fast another kernel or another processor is says nothing about this host.
        image = lane.image
        is_usual = image.has_own_kernel and image.architecture.is_hosts
        is_first = is_usual and acceleration.keep_speed(
            self._work.paths, lane.acceleration, lane.console_text()
        )
        if failed:
            self._did_not_come_up(failed)
            return
        if is_first:
            self._observer.note(lane.acceleration.told())
        self.backlog.lane_is_up(self.machine.name, self.number)
        # From here on another lane of its guest may be worth a start.
        self.decisions.wake()
        self._running = running
        try:
            while not self.is_stopped and not self.decisions.crash:
                ticket = self.backlog.take(self.machine.name, self.number)
                if ticket is None:
                    return
                if not self.serve(ticket) or self._options.cold:
                    return
        finally:
            self.journal.add_lane(running.record().in_run(self.label, self._host))

    def _did_not_come_up(self, error: Exception) -> None:
        """The lane did not come up: a fault of the cells that no other lane can take.

        A bug is told even if there is no such cell.
        """
        tickets = self.backlog.lane_failed(self.machine.name, self.number)
        for ticket in tickets:
            self._fault(ticket, error)
        if isinstance(error, Bug) and not tickets and not self.is_stopped:
            self.decisions.keep_bug(error.error)

    # -- the cells of a lane that is up

    def serve(self, ticket: Ticket) -> bool:
        """Run a cell to its end, or until it meets a fault of the lab. Whether the lane can serve another one.

        What nobody expected is a fault, too: a bug in the lab, which costs this cell and no other. Raises
        ResultsNotWritten.
        """
        try:
            return self._deploy_and_run(ticket)
        except ResultsNotWritten:
            raise
        except Exception as error:
            fault, lane = convert_to_fault(error), self._running.lane
            is_alive = not isinstance(fault, LaneDied)
            try:
                lane.check_alive()
            except LaneDied as gone:
                if is_alive and not isinstance(fault, Bug):
                    # Report both: the first error may be the cause, or the only trace of it.
                    fault = LaneDied(f"{fault}\n{gone}")
                is_alive = False
            self._fault(ticket, fault)
            return is_alive

    def _deploy_and_run(self, ticket: Ticket) -> bool:
        """Deploy a cell's build and run the cell; see `serve`."""
        build, running = ticket.cell.build, self._running
        if reason := lane_cell.find_obstacle(running, ticket.cell):
            result = lane_cell.record_not_applicable(running, ticket.cell, reason)
            self.decisions.decide(ticket, result, self.label)
            return True
        if running.has_no_build and not self._options.predict and not ticket.prediction and not ticket.decided:
            # The first cell is predicted before its build is fetched and deployed: somebody waits for it.
            applied = lane_cell.probe_without_build(running, ticket.cell, running.watch)
            ticket.prediction = lane_cell.predict_cell(ticket.cell, applied)
            self._observer.prediction(ticket.cell, ticket.prediction)
        deployed = None
        try:
            if self._options.predict:
                # Where the build has nothing for a guest, there is nothing to predict.
                running.fetch(build)
            else:
                deployed = running.deploy(build)
        except NotApplicable as obstacle:
            for same_build in [ticket, *self.backlog.drop(self.machine.name, build)]:
                result = lane_cell.record_not_applicable(running, same_build.cell, str(obstacle))
                self.decisions.decide(same_build, result, self.label)
            return True
        except Exception as error:
            # If no other lane has this guest, all its cells with this build share the fault: another boot for
            # each of them would be wasted.
            alone = self.backlog.lanes(self.machine.name) == 1
            for same_build in [ticket, *(self.backlog.drop(self.machine.name, build) if alone else [])]:
                self._fault(same_build, convert_to_fault(error))
            return False
        if self._options.predict:
            result = lane_cell.predict_without_suite(running, ticket.cell)
            self.decisions.decide(ticket, result, self.label)
            return True
        if deployed is not None:
            self.journal.deployed(build, deployed)
        if earlier := ticket.decided:
            # Whether the bug of an earlier run is still met shows now.
            ticket.decided = earlier.with_parts(history=earlier.history.after_try(bug=False))
            return self._try(ticket, earlier.before_trials())
        return self._run_repeats(ticket)

    def _run_repeats(self, ticket: Ticket) -> bool:
        """Run a cell's suite as often as wanted, and then its experiment and its remedies; see `serve`."""
        evidence, options, running = self._folder(ticket), self._options, self._running
        while (number := len(ticket.repeats) + 1) <= options.repeat:
            if options.cold and self._served:
                self.backlog.put_back(ticket, after_lane=self.number)
                return False
            folder = evidence if number == 1 else evidence / f"repeat-{number}"
            clear_attempt(folder)
            seed = None if options.shuffle is None else options.shuffle + number - 1
            tests = () if seed is None else shuffle_tests(ticket.cell.suite.tests, seed)
            suite_options = replace(ticket.options, tests=tests, seed=seed, stress=tuple(options.stress))
            self._served += 1
            running.alone = ticket.missed_a_limit
            try:
                # A repeat would be predicted the same, and that takes seconds under emulation.
                show = partial(self._observer.prediction, ticket.cell) if number == 1 else None
                known = ticket.prediction if number == 1 else None
                result = lane_cell.run_cell(running, ticket.cell, folder, suite_options, show, known)
            finally:
                running.alone = False
            if self.is_stopped:
                return False
            fault = result.verdict.fault
            is_passing = fault is None or not fault.is_lasting
            if result.status is Status.ERROR and is_passing and self.decisions.may_retry(ticket):
                set_attempt_aside(folder, choose_fault_folder(evidence))
                ticket.faults += [fault] if fault else []
                if fault and fault.missed_a_limit:
                    self.decisions.retry(
                        ticket, result.reason, after_lane=0, next_step="to be tried again alone"
                    )
                else:
                    self.decisions.retry(ticket, result.reason, after_lane=self.number)
                return True
            ticket.repeats.append(result)
            if options.until_fail and status.has_failure(result):
                break
        return self._try(ticket, status.combine_repeats(ticket.repeats, at_most=options.repeat))

    def _try(self, ticket: Ticket, result: CellResult) -> bool:
        """Try experiments and remedies on a cell whose suite has run, and decide it; see `serve`.

        If the machine dies meanwhile, a fresh lane tries the rest, unless the cell was retried often enough.
        """
        cell, folder, running, options = ticket.cell, self._folder(ticket), self._running, self._options
        if not cell.trials:
            options = options.with_values(remedies=False, experiments=ExperimentPolicy.NEVER)
        if experiment.wants_experiment(options, result) or remedies.wants_remedies(options, result):
            self.decisions.decide_before_trials(ticket, result, self.label)
        earlier, passing = result, self.journal.passing(cell.build)
        result = experiment.add_experiment(options, running, cell, result, passing)
        if result is not earlier and remedies.wants_remedies(options, result):
            self.decisions.decide_before_trials(ticket, result, self.label)
        keep = partial(self.decisions.keep_trial, ticket)
        result = remedies.add_remedies(options, running, cell, result, keep)
        died: LaneDied | None = None
        try:
            running.lane.check_alive()
        except LaneDied as error:
            died = error
        if died and result.has_more_to_try and self.decisions.may_retry(ticket) and not self.is_stopped:
            self._keep_evidence(choose_fault_folder(folder), died)
            self.decisions.decide_before_trials(ticket, result, self.label, fault=str(died))
            self.decisions.retry(ticket, str(died), after_lane=self.number, next_step=REST_AGAIN)
        else:
            self.decisions.decide(ticket, result, self.label)
        return died is None

    def _fault(self, ticket: Ticket, error: Exception) -> None:
        """A fault of the lab: the cell is tried again on a fresh lane, or its status is `error`.

        It is not tried again if the fault would be the same on every other lane.
        """
        if self.is_stopped:
            return
        folder = self._folder(ticket)
        again = self.decisions.may_retry(ticket) and not is_lasting(error)
        # If the suite ran before, what the cell's folder has is the evidence of that.
        self._keep_evidence(choose_fault_folder(folder) if again or ticket.decided else folder, error)
        if again:
            self.decisions.retry(ticket, str(error), after_lane=self.number)
        else:
            result = ticket.cell.result(Status.ERROR, reason=str(error))
            history = CellHistory(bug=isinstance(error, Bug))
            self.decisions.decide(ticket, result.with_parts(history=history), self.label)

    def _keep_evidence(self, folder: Path, error: Exception) -> None:
        """Keep the console, if there was a lane, and what the error itself has, as evidence of a fault."""
        keep_texts(folder, error.evidence if isinstance(error, LabError) else {})
        # The fault itself is reported even if its evidence cannot be kept.
        if self._lane is not None:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                console.keep_console(self._lane.console, folder / "console.log")

    def _folder(self, ticket: Ticket) -> Path:
        return self._work.folder / ticket.cell.folder
