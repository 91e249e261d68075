"""Boots and deployed builds that a lane stores, and that later lanes take up."""

import shutil
from hashlib import sha256
from typing import NoReturn

import pytest

from lab.base import process
from lab.base.wait import DeadlineExpired
from lab.guest.agent import AgentLost
from lab.lane.cell import run_cell
from lab.lane.running import RunningLane
from lab.machine.checkpoint import CheckpointFailed
from lab.machine.lane import BootFailed, LaneDied
from lab.machine.states import StateInfo
from lab.record import Status
from tests.builders.lanes import NEW, OLD, RESTORED, SYSCTLS, Bench, asked_for, cell, fails


def test_a_stored_boot_is_restored_and_gets_a_new_client_key(bench: Bench) -> None:
    stored = bench.store().info()
    served = bench.service()
    served.start()
    assert bench.lane.did == RESTORED
    assert served.record().restored
    assert bench.lane.endpoint.host_key == stored.host
    # Whoever can read the store must not get into this lane.
    assert bench.lane.endpoint.client_key != stored.client
    assert bench.guest.endpoint is bench.lane.endpoint
    assert bench.states.find() is not None
    assert bench.processors.turns == []


@pytest.mark.parametrize(
    ("at", "error", "is_bad"),
    [
        ("load boot", CheckpointFailed("QEMU's snapshot-load: no such device\nand so on"), True),
        ("resume", DeadlineExpired("waited 30 s"), True),
        ("resume", AgentLost("no answer"), True),
        ("start paused", BootFailed("libvirt could not start it"), False),
        ("load boot", LaneDied("the machine is gone"), False),
        ("adopt", process.CommandFailed(["cp"], "exit status 1", "No space left on device"), False),
        ("adopt", OSError(28, "No space left on device"), False),
    ],
    ids=["cannot be loaded", "silent", "silent agent", "cannot be started", "dies", "not copied", "disk full"],
)
def test_a_useless_boot_is_made_again(bench: Bench, at: str, error: Exception, is_bad: bool) -> None:
    stored = bench.store()
    info = stored.info()

    def fail_once() -> NoReturn:
        del bench.lane.when[at]
        raise error

    bench.lane.when[at] = fail_once
    served = bench.service()
    served.start()
    until = RESTORED.index(at) + 1
    # A state that is bad is stored anew; a fault of that moment says nothing about it.
    anew = STORED if is_bad else ["start"]
    assert bench.lane.did == [*RESTORED[:until], "stop", "set up", *anew]
    assert bench.lane.endpoint.host_key != info.host
    assert bench.guest.endpoint is bench.lane.endpoint
    record = served.record()
    assert not record.restored
    assert record.note == f"a stored state could not be used: {str(error).splitlines()[0]}"
    assert bench.states.find() == stored
    assert (stored.info() == info) is not is_bad


def test_a_state_with_damaged_keys_is_not_restored_nor_any_where_none_may_be(bench: Bench) -> None:
    bench.store()
    bench.service(stores=False).start()
    assert bench.lane.did == ["start"]
    # As after a power failure: the folder has its name, and a file in it has no content yet.
    (bench.store().folder / "known.json").write_text("")
    served = bench.service()
    served.start()
    assert bench.lane.did[-4:] == STORED
    assert not served.record().restored


def test_a_lane_that_is_given_up_while_it_is_restored_is_not_booted_and_refuses_nothing(bench: Bench) -> None:
    bench.store()

    def interrupt() -> NoReturn:
        bench.lane.given_up = True
        raise CheckpointFailed("QEMU's snapshot-load: the machine went away")

    bench.lane.when["load boot"] = interrupt
    with pytest.raises(LaneDied, match="given up"):
        bench.service().start()
    assert "start" not in bench.lane.did
    assert bench.states.find() is not None


STORED = ["start", "save boot", "suspend", "resume"]


def test_a_boot_is_stored_and_the_lane_goes_on_with_a_key_of_its_own(bench: Bench) -> None:
    host = bench.lane.endpoint.host_key
    client = bench.lane.endpoint.client_key
    served = bench.service()
    served.start()
    assert bench.lane.did == STORED
    # The checkpoint of a deployed build needs the room.
    assert bench.lane.tags == set()
    assert not served.record().restored
    stored = bench.states.find()
    assert stored is not None
    assert stored.info() == StateInfo("boot", client, host)
    assert (stored.folder / "state.qcow2").read_text() == "empty"
    assert bench.lane.overlay.read_text() == "empty"
    # Whoever can read the store must not get into this lane.
    assert bench.lane.endpoint.client_key != client
    assert bench.guest.endpoint is bench.lane.endpoint


@pytest.mark.parametrize("fault", ["no room", "cannot be saved", "the name is taken"])
def test_a_boot_that_is_not_stored_serves(bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def run(command: list[str], **_more: object) -> NoReturn:
        raise process.CommandFailed(command, "exit status 1", "No space left on device")

    def take_the_name() -> None:
        folder = bench.store().folder
        shutil.rmtree(folder)
        folder.write_text("")

    if fault == "no room":
        monkeypatch.setattr(process, "run_command", run)
    elif fault == "cannot be saved":
        bench.lane.when["save boot"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    else:
        bench.lane.when["save boot"] = take_the_name
    served = bench.service()
    served.start()
    assert bench.lane.did == (STORED[:2] if fault == "cannot be saved" else STORED)
    assert served.facts == asked_for(SYSCTLS)
    assert bench.states.find() is None
    assert list(bench.paths.states.glob("*/*")) == []


STORED_BUILD = ["deploy 0.10.8", "save build", "suspend", "resume"]


def deployed_lane(bench: Bench) -> RunningLane:
    """A lane that has deployed the run's build."""
    served = bench.service()
    served.start()
    bench.lane.did.clear()
    served.deploy(NEW)
    return served


def test_a_deployed_build_is_stored_before_its_first_cell_and_taken_up_by_the_next_lane(bench: Bench) -> None:
    first = deployed_lane(bench)
    assert bench.lane.did == [*STORED_BUILD, "save build-0"]
    stored = bench.states.find(first.work.deployment(first.lane.guest))
    assert stored is not None
    # Whoever can read the store must not get into this lane.
    assert bench.lane.endpoint.client_key != stored.info().client
    host = bench.lane.endpoint.host_key
    bench.lane.did.clear()
    bench.lane.set_up_disk()
    second = bench.service()
    second.start()
    assert second.deploy(NEW) == {"0.10.8.whl": sha256(b"0.10.8").hexdigest()}
    run_cell(second, cell(NEW), bench.folder / "cell")
    assert bench.lane.did == [
        *["set up", "adopt", "start paused", "load build", "resume"],
        *["save build-0", "suite stock"],
    ]
    assert bench.lane.endpoint.host_key == host
    assert bench.lane.endpoint.client_key != stored.info().client
    assert (second.record().restored, second.record().stored_build) == (True, True)
    assert not second.has_no_build


def test_a_deployed_build_is_not_for_a_run_with_another_one_or_with_several(bench: Bench) -> None:
    deployed_lane(bench)
    bench.lane.did.clear()
    several = bench.service(builds=2)
    several.start()
    several.deploy(OLD)
    assert bench.lane.did == [*RESTORED, "save base", "load base", "deploy 0.9.0", "save build-0"]
    bench.lane.did.clear()
    other = bench.service(build=OLD)
    other.start()
    assert other.deploy(OLD) is not None
    assert bench.lane.did[: len(RESTORED) + 1] == [*RESTORED, "deploy 0.9.0"]


def test_a_deployed_build_that_cannot_be_loaded_leaves_the_stored_boot_and_is_stored_anew(
    bench: Bench,
) -> None:
    deployed_lane(bench)
    bench.lane.did.clear()
    bench.lane.when["load build"] = fails(CheckpointFailed("QEMU's snapshot-load: no"))
    served = bench.service()
    served.start()
    assert bench.lane.did == [*["adopt", "start paused", "load build", "stop", "set up"], *RESTORED]
    bench.lane.did.clear()
    assert served.deploy(NEW) is not None
    assert (served.record().restored, served.record().stored_build) == (True, False)
    assert bench.lane.did == [*STORED_BUILD, "save build-0"]


def test_a_deployed_build_that_is_not_stored_serves_all_the_same(bench: Bench) -> None:
    bench.lane.when["save build"] = fails(CheckpointFailed("QEMU's snapshot-save: no"))
    served = deployed_lane(bench)
    assert bench.lane.did == [*STORED_BUILD[:2], "save build-0"]
    assert bench.states.find(served.work.deployment(served.lane.guest)) is None
    assert run_cell(served, cell(NEW), bench.folder / "cell").status is Status.PASS
