"""What a guest answers that is asked about KVM in it; vm/test_kvm_in_guest.py asks a real one."""

import ast
from pathlib import Path

import pytest

from lab.machine import ask_kvm


@pytest.mark.parametrize("device", ["nowhere", "no device"])
def test_without_kvm_the_answer_is_the_kernel_s_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    (tmp_path / "no device").touch()
    run_machine = ask_kvm.run_machine
    monkeypatch.setattr(ask_kvm, "run_machine", lambda: run_machine(str(tmp_path / device)))
    reason = {"nowhere": "No such file or directory", "no device": "Inappropriate ioctl for device"}[device]
    assert reason in ask_kvm.ask()


@pytest.mark.parametrize(
    ("reason", "answer"), [(5, "a machine ran"), (17, "exit reason 17"), (8, "exit reason 8")]
)
def test_only_a_machine_that_came_to_its_halt_ran(
    monkeypatch: pytest.MonkeyPatch, reason: int, answer: str
) -> None:
    monkeypatch.setattr(ask_kvm, "run_machine", lambda: reason)
    assert ask_kvm.ask().endswith(answer)
    assert (ask_kvm.ask() == ask_kvm.RUNS) is (reason == 5)


def test_it_is_written_for_the_python_of_the_oldest_guest() -> None:
    ast.parse(Path(ask_kvm.__file__).read_text(), feature_version=(3, 6))
