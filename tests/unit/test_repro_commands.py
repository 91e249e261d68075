from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import catalog
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.base.speed import Speed
from lab.plan import Cell
from lab.repro import commands
from lab.repro.commands import CommandResult
from tests.unit.repro_examples import POLICY, command, plan, report, system

PATHS = Paths(cache=Path("cache"), state=Path("state"))
HOSTILE = "true'; touch /tmp/owned; `id` $(id) \"\nrm -rf / #"


class Guest:
    """Stands for a guest and the session to it. `told` is what its program prints for each command."""

    def __init__(self, *told: dict[str, Any]) -> None:
        self.told = list(told)
        self.speed = Speed(emulated=False, kernel_seconds=1.0)
        self.asked: list[dict[str, Any]] = []

    def program(self, name: str, argument: dict[str, Any], *, seconds: float) -> Any:
        assert name == "without_network"
        self.asked.append(argument)
        answer = self.told.pop(0)
        if "error" in answer:
            raise LabError(answer["error"])
        return {"interfaces": ["lo"], "status": 0, "timed_out": False, "cut": False, "output": "", **answer}

    def close(self) -> None:
        pass


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run commands in a guest that tells what the test says; returns results and what was shown before each."""

    def in_guest(guest: Guest, *texts: str, cell: Cell | None = None) -> tuple[list[CommandResult], list[str]]:
        @contextmanager
        def ready(*_: object) -> Iterator[SimpleNamespace]:
            yield SimpleNamespace(lane=SimpleNamespace(endpoint=None, check_alive=None, speed=guest.speed))

        monkeypatch.setattr("lab.repro.commands.shell.ready", ready)
        monkeypatch.setattr("lab.repro.commands.Session", lambda *_, **__: guest)
        shown: list[str] = []
        wanted = [command(text, number) for number, text in enumerate(texts, start=1)]
        results = commands.run(
            wanted, cell or cell_of(POLICY), tmp_path, PATHS, "", lambda text: None, shown.append
        )
        return results, shown

    return in_guest


def cell_of(cause: str) -> Cell:
    return plan(report(system()), cause).cells("lab repro")[0]


def test_a_command_goes_to_the_guest_as_data_and_is_shown_before_and_kept_after(
    run: Any, tmp_path: Path
) -> None:
    guest = Guest({"status": 1, "output": "bwrap: loopback: Failed RTM_NEWADDR\n"}, {"output": "\x1b[31mred"})
    confined = replace(cell_of(POLICY), variant=catalog.load().variant("apparmor-kvm-deny"))
    results, shown = run(guest, HOSTILE, "echo red", cell=confined)
    assert [each["command"] for each in guest.asked] == [HOSTILE, "echo red"]
    assert guest.asked[0]["under"] == ["aa-exec", "-p", "lab-without-kvm", "--"]
    assert guest.asked[0]["user"] == "tester"
    assert (guest.asked[0]["seconds"], guest.asked[0]["bytes"]) == (2 * commands.SECONDS, commands.BYTES)
    assert shown[1] == "in debian-13, as tester, without a network: echo red"
    assert [each.outcome for each in results] == ["exit status 1", "exit status 0"]
    kept = tmp_path / confined.folder / commands.FOLDER
    assert (kept / "01.txt").read_text().endswith("Failed RTM_NEWADDR\n(exit status 1; without a network)\n")
    assert (kept / "02.txt").read_text() == "$ echo red\nred\n(exit status 0; without a network)\n"


def test_limits_that_ended_a_command_are_said(run: Any) -> None:
    guest = Guest({"timed_out": True, "status": None}, {"cut": True, "status": None})
    results, _ = run(guest, "sleep 9999", "yes")
    assert [each.outcome for each in results] == [
        "ended at its time limit",
        "ended after 64000 bytes of output",
    ]


def test_a_command_that_may_have_a_network_is_not_run(run: Any) -> None:
    results, _ = run(Guest({"interfaces": None, "status": None}), "curl http://example.org")
    assert results[0].ran is None
    assert results[0].outcome == "not run: it could not be shown that it has no network"


def test_a_guest_that_fails_keeps_what_was_run_before_and_says_why_the_rest_was_not(run: Any) -> None:
    results, shown = run(Guest({}, {"error": "the machine is gone\nmore"}), "one", "two", "three")
    assert [each.outcome for each in results] == [
        "exit status 0",
        "not run: the machine is gone",
        "not run: the machine is gone",
    ]
    assert len(shown) == 2


def test_a_cell_whose_suite_runs_in_a_container_runs_no_commands(run: Any) -> None:
    made = plan(report(system()), "masked-proc", guest="debian-13-podman")
    results, shown = run(Guest(), "id", cell=made.cells("lab repro")[0])
    assert results[0].why_not == "the suite of this cell runs in a container"
    assert shown == []


def test_each_command_is_run_once_and_neither_too_many_nor_too_long_ones() -> None:
    texts = ["id", "id", "x" * (commands.LONGEST + 1), *(f"echo {number}" for number in range(30))]
    said = report(system(), *(command(text, number) for number, text in enumerate(texts, start=1)))
    chosen = commands.chosen(said)
    assert [each.text for each in chosen] == ["id", *(f"echo {number}" for number in range(commands.MOST - 1))]
