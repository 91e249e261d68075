"""The coordinator's desk, without hosts and without a network: what becomes of each part."""

import asyncio
import hashlib
import io
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import plan
from lab.base.paths import Paths
from lab.fleet import archive, desk, pinning
from lab.fleet.attempt import MOST_REST_SECONDS, REST_SECONDS, Attempt, Host
from lab.fleet.desk import Desk
from lab.fleet.events import EventLines
from lab.fleet.handout import MOST_SECONDS, Handout
from lab.fleet.intake import End, Intake
from lab.fleet.merging import Merger
from lab.fleet.part import Part
from lab.fleet.pinning import Pinning
from lab.fleet.receiving import Receiver
from lab.fleet.showing import Silence
from lab.images import transfer
from lab.images.content import Content, FileContent
from lab.plan import Cell
from lab.record import LaneRecord, RunOptions, RunResult, Status
from lab.run.journal import Journal
from lab.run.several import HostNow, HostsNow
from tests.unit.image_examples import put_prepared, put_published
from tests.unit.run_examples import KNOWN, RELEASE, SMALL, VARIANTS, begin, finish
from tests.unit.told import Told, run_in_a_loop

OPTIONS = RunOptions()
IMAGE = {"disk.qcow2": FileContent(sha256="d" * 64, size=1)}
PINS = {cell.guest.name: Content(guest=cell.guest.name, inputs="a" * 64, files=IMAGE) for cell in SMALL}


class Wire:
    """In place of the network: what was given out, released and stopped."""

    def __init__(self) -> None:
        self.given: list[tuple[Part, Attempt]] = []
        self.released: list[str] = []
        self.stopped: list[str] = []

    def submit(self, part: Part, attempt: Attempt) -> None:
        self.given.append((part, attempt))

    def release(self, token: str) -> None:
        self.released.append(token)

    def stop(self, attempt: Attempt) -> None:
        self.stopped.append(attempt.token)

    async def ask_image(self, host: str, digest: str, name: str, offset: int) -> bytes:
        raise AssertionError("nothing is asked for")


class Bench:
    """A desk and what it does; each guest of the plan is a part."""

    def __init__(self, folder: Path, cells: Sequence[Cell] = SMALL, most_seconds: float = MOST_SECONDS) -> None:
        self.folder, self.told, self.wire = folder, Told(), Wire()
        planned = begin(folder / "run", cells)
        planned.folder.mkdir()
        (folder / "arriving").mkdir()
        self.journal = Journal(planned.folder, planned.cells, planned.info, {})
        intake = Intake(Merger(self.journal, self.told), Receiver(folder / "arriving"))
        known = Pinning(Paths(folder, folder), [], self.told, pins=PINS)
        self.desk = Desk(
            Handout(cells, OPTIONS, most_seconds),
            intake,
            self.told,
            OPTIONS,
            "run",
            known,
            transport=self.wire,
        )
        self._numbers = self._looks = 0

    def pinned(self, by: Pinning) -> None:
        """Another one finds the images; called before the desk works."""
        self.desk = replace(self.desk, pinning=by)

    def joins(self, *names: str) -> None:
        for name in names:
            self.desk.joined(Host(name, 1, 8192))

    async def given(self, count: int) -> Attempt:
        """The attempt with this number, counted from 1, once it was given out."""
        async with asyncio.timeout(60):
            while len(self.wire.given) < count:
                await asyncio.sleep(0.01)
        return self.wire.given[count - 1][1]

    def result(self, attempt: Attempt, **update: Any) -> bytes:
        """What a host would send: each cell passed, or its suite failed and its child died in the trials."""
        self._numbers += 1
        folder = self.folder / f"part-{self._numbers}-{attempt.host}"
        done = finish(folder, begin(folder, attempt.piece.cells))
        guest = attempt.piece.cells[0].guest.name
        done.run.lanes.append(LaneRecord(guest=guest, label=guest, image="image", fork="memory", seconds={}))
        done.run.builds[0].files.update(update.get("files", {}))
        known = self.wire.given[-1][0].known.results
        cells = [cell.model_copy(update={"lane": guest}) for cell in done.cells]
        if update.get("dies"):
            done.run.finished = None
            cells = [cell.model_copy(update={"status": Status.FAIL, "unfinished": True}) for cell in cells]
        elif known:
            cells = [each.model_copy(update={"unfinished": False}) for each in known.values()]
        RunResult(run=done.run, cells=cells).write(folder)
        archive.pack(folder, folder / "packed", [cell.folder for cell in attempt.piece.cells])
        return (folder / "packed").read_bytes()

    def sends(self, attempt: Attempt, content: bytes = b"", **said: Any) -> None:
        if content:
            self.desk.chunk(attempt.token, 0, content)
        digest = hashlib.sha256(content).hexdigest()
        self.desk.ended(attempt.token, {"size": len(content), "digest": digest, "status": 0, **said})

    def run(self, play: Callable[[], Coroutine[Any, Any, None]]) -> RunResult:
        """Let the desk work while `play` plays the hosts."""

        async def both() -> None:
            async with asyncio.timeout(120):
                await asyncio.gather(self.desk.work(self._look), play())

        run_in_a_loop(both())
        return self.journal.finish(interrupted=self.desk.stopping)

    def _look(self) -> list[Silence]:
        self._looks += 1
        return []

    async def looks(self) -> None:
        """Wait until the desk has looked at everything as it is now."""
        now = self._looks
        async with asyncio.timeout(60):
            while self._looks < now + 2:
                await asyncio.sleep(0.01)

    def tells(self, attempt: Attempt, cell: Cell) -> None:
        """Its host tells that it decided a cell."""
        names = {"guest": cell.guest.name, "variant": cell.variant.name, "build": cell.build.name}
        line = {"kind": "cell", "lane": cell.guest.name, "status": "pass", **names}
        self.desk.event(attempt.token, json.dumps(line))

    async def shows(self, what: Callable[[HostsNow], bool]) -> HostsNow:
        """What is shown of the hosts, once it is so."""
        async with asyncio.timeout(60):
            while not (self.told.now and what(self.told.now[-1])):
                await asyncio.sleep(0.01)
        return self.told.now[-1]

    def hosts_of(self, run: RunResult) -> list[str]:
        return [cell.lane.partition(":")[0] for cell in run.cells]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_part_goes_to_a_host_that_is_free(bench: Bench) -> None:
    async def play() -> None:
        bench.joins("one", "two")
        for number in (1, 2):
            attempt = await bench.given(number)
            # One host sends what its processors did, the other none.
            spent = {"session": "a", "processors": 2, "wall": 9.0, "lab": 1.0, "idle": 30.0}
            said = {"spent": spent} if attempt.host == "one" else {}
            bench.sends(attempt, bench.result(attempt), **said)

    run = bench.run(play)
    assert [(each.host, each.idle) for each in bench.desk.intake.spending.sessions()] == [("one", 30.0)]
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert sorted(set(bench.hosts_of(run))) == ["one", "two"]
    assert sorted(bench.wire.released) == sorted(attempt.token for _, attempt in bench.wire.given)


def test_a_late_result_of_a_lost_host_is_taken_if_it_is_the_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL[:2])

    async def play() -> None:
        bench.joins("one")
        first = await bench.given(1)
        bench.desk.left("one")
        bench.joins("two")
        second = await bench.given(2)
        bench.sends(first, bench.result(first))
        while not bench.wire.stopped:
            await asyncio.sleep(0.01)
        assert bench.wire.stopped == [second.token]
        bench.sends(second, bench.result(second))

    run = bench.run(play)
    assert bench.hosts_of(run) == ["one", "one"]
    assert bench.told.noted("two sent part 2 a second time; the first result stands")
    assert len(bench.told.cells) == 2
    assert list((tmp_path / "arriving").iterdir()) == []


def test_a_late_result_that_is_the_second_is_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    async def play() -> None:
        bench.joins("one", "two")
        first, other = await bench.given(1), await bench.given(2)
        bench.desk.left(first.host)
        bench.sends(other, bench.result(other))
        again = await bench.given(3)
        content = bench.result(first)
        assert bench.desk.chunk(first.token, 0, content)
        bench.sends(again, bench.result(again))
        while len(bench.told.cells) < len(SMALL):
            await asyncio.sleep(0.01)
        assert not bench.desk.chunk(first.token, len(content), b"more")
        bench.sends(first)

    run = bench.run(play)
    lost = bench.wire.given[0][1]
    assert [cell.retried for cell in run.cells if cell.guest == lost.piece.cells[0].guest.name] == [
        [f"{lost.host} was lost"]
    ] * 2
    assert lost.host not in bench.hosts_of(run)
    assert len(bench.told.cells) == len(SMALL)


def test_a_host_with_other_files_of_a_build_gets_nothing_more(bench: Bench) -> None:
    async def play() -> None:
        bench.joins("one", "two")
        first, second = await bench.given(1), await bench.given(2)
        bench.sends(first, bench.result(first, files={"boxlite.whl": "a" * 64}))
        while not bench.told.cells:
            await asyncio.sleep(0.01)
        bench.sends(second, bench.result(second, files={"boxlite.whl": "b" * 64}))
        again = await bench.given(3)
        assert again.host == first.host
        bench.sends(again, bench.result(again, files={"boxlite.whl": "a" * 64}))

    run = bench.run(play)
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert [cell.retried for cell in run.cells] == [[]] * 4
    assert bench.told.noted("two gets no more parts: two deployed other files of boxlite 0.10.8")


def test_a_bug_that_a_result_meets_is_that_part_s_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    take = bench.desk.intake.merger.take

    def fails(*arguments: Any) -> None:
        if arguments[3].host == "two":
            raise KeyError("a bug")
        take(*arguments)

    monkeypatch.setattr(bench.desk.intake.merger, "take", fails)

    async def play() -> None:
        bench.joins("one", "two")
        for number in (1, 2):
            attempt = await bench.given(number)
            bench.sends(attempt, bench.result(attempt))
        again = await bench.given(3)
        bench.sends(again, bench.result(again))

    run = bench.run(play)
    assert bench.hosts_of(run) == ["one"] * 4
    assert {cell.status for cell in run.cells} == {Status.PASS}
    faults = [fault for cell in run.cells for fault in cell.retried]
    assert faults == ["the lab met a bug: KeyError: 'a bug'"] * 2
    [trace] = [note for note in bench.told.notes if "Traceback" in note]
    assert "in fails" in trace


def test_an_event_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        bench.joins("one")
        bench.desk.joined(Host("1" * 5_000, lanes=0, memory_mib=0))
        for number in (1, 2):
            attempt = await bench.given(number)
            bench.desk.event(attempt.token, json.dumps({"kind": "left", "seconds": 1e15}))
            with monkeypatch.context() as patch:
                patch.setattr(bench.desk._showing, "event", lambda attempt, event: [][0])
                bench.desk.event(attempt.token, json.dumps({"kind": "note", "text": "hello"}))
            await bench.looks()
            str(timedelta(seconds=bench.told.now[-1].seconds_left or 0))
            bench.sends(attempt, bench.result(attempt))

    assert {cell.status for cell in bench.run(play).cells} == {Status.PASS}
    assert any("Traceback" in note for note in bench.told.notes)


@pytest.mark.parametrize("hostile", [[[]], {"a": []}, "\x1b[2J", 1e400, None])
def test_what_a_host_says_at_the_end_of_a_part_is_text_or_numbers(hostile: Any) -> None:
    end = End.read(dict.fromkeys(("size", "digest", "status", "words", "refused", "spent"), hostile))
    assert (end.size, end.digest, end.status) == (0, "", None)


def test_a_host_whose_lab_fails_at_once_does_not_take_part_after_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.attempt.REST_SECONDS", 0.0)
    bench = Bench(tmp_path)
    bench.desk.handout = Handout(SMALL, OPTIONS, most_seconds=1.0)

    async def play() -> None:
        bench.joins("bad")
        for number in (1, 2):
            bench.sends(await bench.given(number), status=3, words="lab: no libvirt")
            if number == 1:
                bench.joins("good")
        number, done = 2, 0
        while done < len(SMALL):
            number += 1
            attempt = await bench.given(number)
            if attempt.host == "bad":
                bench.sends(attempt, status=3, words="lab: no libvirt")
            else:
                bench.sends(attempt, bench.result(attempt))
                done += 1

    run = bench.run(play)
    assert bench.told.noted("bad gets no more parts: its lab failed 2 times in a row")
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert set(bench.hosts_of(run)) == {"good"}
    assert any("exit status 3: lab: no libvirt" in fault for cell in run.cells for fault in cell.retried)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The desk's clock, which stands still until a test moves it. The event loop has another one."""
    now = [0.0]
    for module in ("attempt", "desk", "handout", "silence"):
        monkeypatch.setattr(f"lab.fleet.{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(desk, "LOOK_SECONDS", 0.01)
    return now


def test_the_only_host_rests_after_each_failure_and_another_one_runs_everything(
    bench: Bench, clock: list[float]
) -> None:
    async def play() -> None:
        bench.joins("bad")
        for number in (1, 2):
            bench.sends(await bench.given(number), status=3, words="lab: no libvirt")
            now = await bench.shows(lambda now: now.hosts[0].rests_after == len(bench.wire.given))
            assert now.hosts == (HostNow("bad", 1, 0, kvm=False, rests_after=number),)
            if number == 1:
                clock[0] += REST_SECONDS
        # As long as a run waits for another host; but this one is there.
        clock[0] += 2 * REST_SECONDS - 0.1
        await bench.looks()
        assert (len(bench.wire.given), bench.told.cells) == (2, [])
        bench.joins("good")
        for number in (3, 4):
            attempt = await bench.given(number)
            assert attempt.host == "good"
            bench.sends(attempt, bench.result(attempt))

    run = bench.run(play)
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert [len(cell.retried) for cell in run.cells] == [1] * len(SMALL)


def test_the_only_host_gets_nothing_more_after_some_failures_and_its_words_are_the_reason(
    bench: Bench, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.fleet.handout.MOST_LOSSES", 100)
    # A rest is longer than that, and no time without a host.
    monkeypatch.setattr(desk, "WAIT_FOR_ANOTHER_SECONDS", 10.0)
    host = bench.desk.handout.hosts

    async def play() -> None:
        bench.joins("bad")
        for number in range(1, desk.MOST_FAILURES_ALONE + 1):
            bench.sends(await bench.given(number), status=3, words="lab: no\nlibvirt" + "!" * 900)
            while host["bad"].failures < number:
                await asyncio.sleep(0.01)
            if number < desk.MOST_FAILURES_ALONE:
                clock[0] += min(number * REST_SECONDS, MOST_REST_SECONDS) - 0.1
                await bench.looks()
                assert (len(bench.wire.given), bench.told.cells) == (number, [])
                clock[0] += 0.2
        # A process that stood still did not wait for another host all the time.
        clock[0] += desk.WAIT_FOR_ANOTHER_SECONDS + 1.0
        await bench.looks()
        assert bench.told.cells == []
        while not bench.told.cells:
            clock[0] += 1.0
            await asyncio.sleep(0.02)

    run = bench.run(play)
    [reason] = {cell.reason for cell in run.cells if cell.status is Status.NOT_RUN}
    assert len([cell for cell in run.cells if cell.status is Status.NOT_RUN]) == len(SMALL)
    assert "failed 6 times in a row, the last time: the lab on bad ended with exit status 3: lab: no" in reason
    assert len(reason) < 500
    assert bench.told.noted("bad gets no more parts: its lab failed 6 times in a row")
    assert len(bench.wire.given) == 6


def test_a_host_whose_worker_fails_rests_too(bench: Bench, clock: list[float]) -> None:
    async def play() -> None:
        bench.joins("bad")
        bench.desk.failed((await bench.given(1)).token, "[Errno 28] No space left on device")
        await bench.shows(lambda now: now.hosts[0].rests_after == 1)
        bench.joins("good")
        for number in (2, 3):
            attempt = await bench.given(number)
            assert attempt.host == "good"
            bench.sends(attempt, bench.result(attempt))

    assert {cell.status for cell in bench.run(play).cells} == {Status.PASS}


def test_without_any_host_the_run_ends_in_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "WAIT_SECONDS", 0.0)

    async def play() -> None:
        pass

    run = bench.run(play)
    assert {(cell.status, cell.reason) for cell in run.cells} == {
        (Status.NOT_RUN, "no host that could run it was there for 0 s")
    }


def test_if_no_host_has_the_memory_the_figures_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "WAIT_FOR_ANOTHER_SECONDS", 0.0)

    async def play() -> None:
        bench.desk.joined(Host("small", 1, 512))

    run = bench.run(play)
    assert {cell.status for cell in run.cells} == {Status.NOT_RUN}
    assert "MiB of memory, and small has 512 MiB" in run.cells[0].reason


def test_where_kvm_is_asked_for_a_host_without_it_gets_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "WAIT_FOR_ANOTHER_SECONDS", 0.0)
    bench.desk.needs_kvm = True

    async def play() -> None:
        bench.joins("slow")

    run = bench.run(play)
    why = "guests of slow run without KVM, and --kvm asks for it"
    assert {(cell.status, cell.reason) for cell in run.cells} == {(Status.NOT_RUN, why)}
    assert bench.told.noted(f"slow gets no more parts: {why}")
    assert bench.wire.given == []


def test_where_kvm_is_asked_for_hosts_with_it_run_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.desk.needs_kvm = True

    async def play() -> None:
        bench.joins("slow")
        bench.desk.joined(Host("quick", 1, 8192, kvm=True))
        for number in (1, 2):
            attempt = await bench.given(number)
            bench.sends(attempt, bench.result(attempt))

    assert set(bench.hosts_of(bench.run(play))) == {"quick"}


def test_an_interrupt_stops_every_part_and_waits_for_what_they_decided(bench: Bench) -> None:
    async def play() -> None:
        bench.joins("one", "two")
        first, second = await bench.given(1), await bench.given(2)
        bench.desk.stop()
        assert sorted(bench.wire.stopped) == sorted([first.token, second.token])
        bench.sends(first, bench.result(first), status=130)
        bench.sends(second, status=130)

    run = bench.run(play)
    assert run.run.interrupted
    assert [cell.status for cell in run.cells].count(Status.PASS) == 2
    assert {cell.reason for cell in run.cells if cell.status is Status.NOT_RUN} == {"interrupted"}


def test_a_host_that_does_not_end_is_not_waited_for_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "STOP_SECONDS", 0.5)

    async def play() -> None:
        bench.joins("one")
        await bench.given(1)
        bench.desk.stop()

    assert {cell.status for cell in bench.run(play).cells} == {Status.NOT_RUN}


def test_what_a_host_told_counts_until_its_result_is_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL[:2])

    async def play() -> None:
        bench.joins("one")
        attempt = await bench.given(1)
        for cell in [*attempt.piece.cells, attempt.piece.cells[0], SMALL[3]]:  # Twice, and one of another part.
            bench.tells(attempt, cell)
        now = await bench.shows(lambda now: bool(now.told))
        assert (len(now.told), now.decided, now.cells) == (2, 0, 2)
        assert now.hosts == (HostNow("one", 1, 1, kvm=False),)
        bench.sends(attempt, bench.result(attempt))

    bench.run(play)
    # Never more than there are, at any moment.
    assert {len(now.told) + now.decided for now in bench.told.now} <= {0, 1, 2}
    assert ("one: debian-12", "") in bench.told.lanes


def test_what_a_host_told_is_lost_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL[:2])

    async def play() -> None:
        bench.joins("one")
        first = await bench.given(1)
        bench.tells(first, first.piece.cells[0])
        await bench.shows(lambda now: len(now.told) == 1)
        bench.desk.left("one")
        now = await bench.shows(lambda now: now.hosts[0].gone)
        assert (now.told, now.hosts[0].used, now.seconds_left) == ((), 0, None)
        bench.tells(first, first.piece.cells[0])
        bench.joins("two-10", "two-9", "one")
        again = await bench.given(2)
        now = await bench.shows(lambda now: len(now.hosts) == 3)
        assert [(each.name, each.gone) for each in now.hosts] == [
            ("one", False),
            ("two-9", False),
            ("two-10", False),
        ]
        assert (now.told, now.is_typical) == ((), True)
        bench.sends(again, bench.result(again))

    assert {cell.status for cell in bench.run(play).cells} == {Status.PASS}


def test_the_trials_of_a_child_that_died_are_given_out_again_without_their_suites(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SMALL[:2])

    async def play() -> None:
        bench.joins("one")
        first = await bench.given(1)
        assert bench.wire.given[0][0].known.results == {}
        bench.sends(first, bench.result(first, dies=True), status=-9)
        again = await bench.given(2)
        assert bench.desk.handout.hosts["one"].failures == 0
        assert bench.wire.given[1][0].known.results.keys() == {cell.folder for cell in SMALL[:2]}
        bench.tells(again, SMALL[0])
        now = await bench.shows(lambda now: bool(now.told))
        assert (len(now.told), now.decided, now.cells) == (1, 0, 2)
        bench.sends(again, bench.result(again))

    run = bench.run(play)
    assert [(cell.status, cell.unfinished) for cell in run.cells] == [(Status.FAIL, False)] * 2
    assert [len(cell.retried) for cell in run.cells] == [1, 1]
    assert len(bench.told.cells) == 2
    assert {len(now.told) + now.decided for now in bench.told.now} <= {0, 1, 2}


def test_the_image_that_a_host_prepares_is_that_of_the_guest_s_next_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "JOIN_SECONDS", 0.2)
    guest = KNOWN.guest("ubuntu-24.04")
    cells = plan.choose(KNOWN, guests=[guest.name], variants=VARIANTS[:2]).cells([RELEASE])
    bench = Bench(tmp_path, cells, most_seconds=1.0)
    here, there = (Paths(tmp_path / name, tmp_path / name) for name in ("here", "there"))
    base = put_published(here, guest)
    prepared = put_prepared(there, guest, base)
    bench.pinned(Pinning(here, [guest], bench.told))

    async def ask(host: str, digest: str, name: str, offset: int) -> bytes:
        assert (host, digest) == ("one", prepared.content.digest)
        return transfer.read_chunk(prepared, name, offset)

    bench.wire.ask_image = ask  # type: ignore[method-assign]

    async def play() -> None:
        bench.joins("one", "two")
        first = await bench.given(1)
        assert first.host == "one"
        await asyncio.sleep(1.5)
        assert len(bench.wire.given) == 1
        told = io.StringIO()
        for image in (base, prepared):
            EventLines(told).image(image)
        (line,) = told.getvalue().splitlines()
        bench.desk.event(first.token, line)
        second = await bench.given(2)
        assert second.host == "two"
        for attempt in (first, second):
            bench.sends(attempt, bench.result(attempt))

    run = bench.run(play)
    assert {cell.status for cell in run.cells} == {Status.PASS}
    assert [part.image and part.image.digest for part, _ in bench.wire.given] == [
        base.content.digest,
        prepared.content.digest,
    ]


def test_a_guest_whose_image_an_interrupt_kept_from_coming_has_no_error(bench: Bench) -> None:
    async def play() -> None:
        bench.joins("one")
        attempt = await bench.given(1)
        bench.desk.stop()
        for guest in PINS:
            bench.desk.pinning.failed[guest] = Status.ERROR, "interrupted"
        await bench.looks()
        bench.sends(attempt, bench.result(attempt))

    run = bench.run(play)
    assert sorted(cell.status for cell in run.cells) == [Status.NOT_RUN] * 2 + [Status.PASS] * 2
    assert {cell.reason for cell in run.cells if cell.status is Status.NOT_RUN} == {"interrupted"}
