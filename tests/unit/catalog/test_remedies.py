"""The remedies' files: their texts, the order in which they are tried, and their scripts."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab import causes
from lab.base.errors import UsageError
from lab.catalog import remedies
from lab.record import Needs

KNOWN = remedies.load_remedies()
ON_THE_HOST = [name for name, remedy in KNOWN.items() if remedy.host]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")

MINIMAL = """
title = "Ask nicely"
cures = ["userns-sysctl"]
does = "Asks."
price = "Pride."
loss = 3

[host]
possible = "true"
check = "false"
apply = "true"
undo = "true"
"""


def test_what_gives_up_least_is_tried_first_and_the_jailer_is_given_up_last() -> None:
    losses = [remedy.loss for remedy in KNOWN.values()]
    assert losses == sorted(losses)
    assert list(KNOWN)[-1] == "jailer-off"
    assert [name for name, remedy in KNOWN.items() if remedy.loss == 100] == ["jailer-off"]
    rows = causes.list_causes()
    assert KNOWN["jailer-off"].cures == [name for name in rows if rows[name].breaks is Needs.SANDBOX]
    assert all(len(remedy.price) > 20 and remedy.does for remedy in KNOWN.values())
    cured = {cause for remedy in KNOWN.values() for cause in remedy.cures}
    # What boxlite mounts on no host, no setting of a host cures.
    assert causes.list_causes().keys() - cured == {"volume-not-in-sandbox", "volumes-exhaust-irqs"}


def test_a_remedy_for_a_cause_that_there_is_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ask.toml").write_text(MINIMAL.replace("userns-sysctl", "userns-sysctls"))
    with pytest.raises(UsageError, match=r"ask\.toml: cures: .*userns-sysctls") as error:
        remedies.load_remedies(tmp_path)
    assert "userns-sysctl" in (error.value.hint or "")


def test_candidates_of_two_causes_are_those_of_either_and_each_once() -> None:
    both = [remedy.name for remedy in remedies.choose_candidates(KNOWN, ["userns-sysctl", "userns-limit"])]
    assert both == ["preflight", "userns-clone-on", "userns-limit-raise", "privileged-container", "jailer-off"]
    assert remedies.choose_candidates(KNOWN, ["unknown"]) == []


def test_a_remedy_is_one_file_dropped_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "ask.toml").write_text(MINIMAL)
    (tmp_path / "ask-first.toml").write_text(MINIMAL.replace("loss = 3", "loss = 2"))
    loaded = remedies.load_remedies(tmp_path)
    assert list(loaded) == ["ask-first", "ask"]
    assert [remedy.name for remedy in remedies.choose_candidates(loaded, ["userns-sysctl"])] == [
        "ask-first",
        "ask",
    ]
    assert "name=ask\n" in loaded["ask"].script()


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ('cures = ["userns-sysctl"]', "cures = []", "cures: List should have at least 1 item"),
        ('undo = "true"', 'undone = "true"', "host.undone: unknown key"),
        ("[host]", '[run]\nexample = "please"\n[host]', "exactly one of `host` and `run` must be given"),
    ],
)
def test_a_wrong_file_is_named_with_the_key(tmp_path: Path, before: str, after: str, error: str) -> None:
    assert before in MINIMAL
    (tmp_path / "ask.toml").write_text(MINIMAL.replace(before, after))
    with pytest.raises(UsageError) as raised:
        remedies.load_remedies(tmp_path)
    assert error in str(raised.value)
    assert str(tmp_path / "ask.toml") in str(raised.value)


def test_a_digest_changes_with_all_that_a_trial_does() -> None:
    digests = {remedy.digest for remedy in KNOWN.values()}
    assert len(digests) == len(KNOWN)
    clone, off = KNOWN["userns-clone-on"], KNOWN["jailer-off"]
    assert clone.host
    assert off.run
    other = clone.model_copy(update={"host": clone.host.model_copy(update={"undo": "true"})})
    assert other.digest != clone.digest
    other = off.model_copy(update={"run": off.run.model_copy(update={"environment": {}})})
    assert other.digest != off.digest


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_scripts_say_what_they_do_and_cost_and_are_clean_for_any_posix_shell(name: str, tmp_path: Path) -> None:
    script = KNOWN[name].script()
    words = " ".join(script.split())
    assert " ".join(KNOWN[name].does.split()) in words
    assert " ".join(KNOWN[name].price.split()) in words
    # No template syntax is left, and no command calls sudo.
    assert "{{" not in script
    assert "sudo " not in script.replace("called sudo", "")
    file = tmp_path / f"{name}.sh"
    file.write_text(script)
    done = subprocess.run([SHELLCHECK, "--shell=sh", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
