from collections.abc import Sequence

import pytest

from lab.base.paths import Paths
from lab.host import proof, tiny_guest
from lab.host.denials import HostLog
from lab.host.tiny_guest import Outcome, Trial
from lab.machine import network
from lab.machine.acceleration import Acceleration
from lab.machine.domain import Network
from tests.unit.test_network import Daemon

DENIED = (
    'audit: type=1400 audit(1.2:3): apparmor="DENIED" operation="mknod" profile="passt" '
    'name="/run/user/1000/libvirt/qemu/run/passt/1.socket"'
)


class Guests:
    """What becomes of the tiny guests of each network; `tried` has the networks in their order."""

    def __init__(self, passt: Trial, qemu: Trial | None = None) -> None:
        self.outcomes = {Network.PASST: passt, Network.QEMU: qemu}
        self.tried: list[Network] = []

    def start(self, _connection: object, _paths: Paths, _how: Acceleration, which: Network) -> Trial:
        self.tried.append(which)
        outcome = self.outcomes[which]
        assert outcome is not None
        return outcome


PROVED = Trial(Outcome.PROVED, "a guest answered")
STARTED = Trial(Outcome.STARTED, "it starts")
REFUSED = Trial(Outcome.REFUSED, "passt was killed by signal 11")


CLOSED = "/dev/kmsg (sudo dmesg)"


def prove(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, guests: Guests, denied: Sequence[str] = (DENIED,)
) -> proof.Proof:
    monkeypatch.setattr(tiny_guest, "start", guests.start)
    monkeypatch.setattr(HostLog, "denials", lambda _log: list(denied))
    monkeypatch.setattr(HostLog, "unread", lambda _log: [CLOSED])
    return proof.prove(Daemon(), paths, Acceleration(False, "a test"))


def test_a_proof_is_kept_and_the_second_one_starts_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests = Guests(PROVED)
    first, second = prove(paths, monkeypatch, guests), prove(paths, monkeypatch, guests)
    assert guests.tried == [Network.PASST]
    assert first == second
    assert first.verdict is not None
    assert (first.verdict.network, first.verdict.proved) == (Network.PASST, "a guest answered")
    assert (first.verdict.denials, first.verdict.rule) == ([], "")


def test_where_passt_is_refused_qemu_s_own_network_is_tried_and_kept_with_the_denials(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests = Guests(REFUSED, PROVED)
    found = prove(paths, monkeypatch, guests)
    assert guests.tried == [Network.PASST, Network.QEMU]
    assert found.verdict == network.cached(Daemon(), paths)
    assert found.verdict is not None
    assert found.verdict.network is Network.QEMU
    assert found.verdict.proved == "passt was killed by signal 11; a guest answered"
    assert (found.verdict.denials, found.verdict.rule) == ([DENIED], "passt")
    assert network.chosen(Daemon(), paths) is Network.QEMU


def test_logs_that_may_not_be_read_are_named_only_where_nothing_was_found(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prove(paths, monkeypatch, Guests(REFUSED, PROVED), denied=[])
    assert found.verdict is not None
    assert (found.verdict.denials, found.verdict.unread, found.verdict.rule) == ([], [CLOSED], "")
    paths.network.unlink()
    found = prove(paths, monkeypatch, Guests(REFUSED, PROVED))
    assert found.verdict is not None
    assert (found.verdict.denials, found.verdict.unread) == ([DENIED], [])
    paths.network.unlink()
    found = prove(paths, monkeypatch, Guests(PROVED), denied=[])
    assert found.verdict is not None
    assert found.verdict.unread == []


def test_without_a_kernel_a_refusal_of_passt_is_kept_all_the_same(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove(paths, monkeypatch, Guests(REFUSED, STARTED))
    assert network.chosen(Daemon(), paths) is Network.QEMU


def test_what_could_not_be_tried_is_no_verdict(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    found = prove(paths, monkeypatch, Guests(STARTED))
    assert (found.verdict, found.reason) == (None, "it starts")
    assert not paths.network.exists()


def test_a_host_that_runs_no_machine_either_way_is_refused_and_tried_again_next_time(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prove(paths, monkeypatch, Guests(REFUSED, Trial(Outcome.REFUSED, "no QEMU")))
    assert found.verdict is not None
    assert (found.verdict.key, found.verdict.rule, found.verdict.denials) == ("", "passt", [DENIED])
    assert found.verdict.proved == (
        "with passt: passt was killed by signal 11; with QEMU's own network: no QEMU"
    )
    # setup.sh asks what is missing. No lane and no later proof goes by it.
    assert network.last(paths) == found.verdict
    assert network.cached(Daemon(), paths) is None


def test_a_console_that_is_not_written_is_no_matter_of_the_network(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests = Guests(Trial(Outcome.NO_CONSOLE, "no console"))
    found = prove(paths, monkeypatch, guests)
    assert guests.tried == [Network.PASST]
    assert found.verdict is not None
    assert (found.verdict.key, found.verdict.proved) == ("", "no console")
    assert (found.verdict.network, found.verdict.denials) == (Network.PASST, [DENIED])
