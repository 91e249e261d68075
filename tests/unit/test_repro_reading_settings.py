# ruff: noqa: E501
"""Settings in bug reports: those that hold, those that were tried, and those that somebody only advised."""

import pytest

from lab.repro import settings as settings_of_reports
from lab.repro.reading import read
from lab.repro.report import Command, Mood, Place, Program, Setting, Speaker, Words
from lab.repro.settings import Outcome
from lab.repro.source import Text
from tests.builders.report_texts import CLONE, RESTRICT, holds, of, settings, tried


@pytest.mark.parametrize(
    "text",
    [
        f"{CLONE} = 0",
        f"{CLONE}=0",
        f"{CLONE}: 0",
        f"`{CLONE}` is `0`",
        f"| {CLONE} | 0 |\n|-|-|\n| a | b |",
        "$ cat /proc/sys/kernel/unprivileged_userns_clone\n0",
        "/proc/sys/kernel/unprivileged_userns_clone:0",
        f"```\n$ sysctl {CLONE}\n{CLONE} = 0\n```",
        f"```\n$ sysctl -n {CLONE}\n0\n```",
        f"the host has {CLONE} set to 0",
        "unprivileged_userns_clone=0",
        "My system has unprivileged_userns_clone disabled.",
    ],
)
def test_a_sysctl_that_holds_in_every_form(text: str) -> None:
    assert settings(text) == [holds(CLONE, "0")]


def test_a_container_has_its_hosts_kernel() -> None:
    text = "## In the container\n\nkernel.unprivileged_userns_clone = 1\n\nuser.max_user_namespaces = 0"
    assert [each.place for each in of(Setting, text)] == [Place.HOST, Place.CONTAINER]


def test_prompts_of_other_shells_are_known() -> None:
    text = "```\n❯ uname -r\n> sysctl -a\n[me@host dir]$ ls\nroot@host:~# id\n# a comment on this\n```"
    assert [each.text for each in of(Command, text)] == ["uname -r", "sysctl -a", "ls", "id"]


def test_what_boxlite_advises_was_done_by_nobody() -> None:
    text = (
        "2026-11-26T02:51:52.465873Z ERROR boxlite::jailer::sandbox::bwrap: Sandbox preflight failed: x.\n"
        "bwrap --unshare-user failed (system bwrap at bwrap)\n"
        "bwrap stderr: bwrap: No permissions to create a new namespace, likely because\n"
        "clone(CLONE_NEWUSER) errno: 1 (Operation not permitted (os error 1))\n"
        "\n"
        f"Cause: Unprivileged user namespaces disabled ({CLONE}=0).\n"
        "\n"
        f"Fix: sudo sysctl -w {CLONE}=1\n"
        f"  # Persist: echo '{CLONE}=1' | sudo tee /etc/sysctl.d/99-boxlite-userns.conf\n"
        "To skip the sandbox (development only): SecurityOptions::disabled()\n"
    )
    for shape in (text, f"```\n{text}```"):
        # boxlite read the value that it blames.
        assert settings(shape) == [holds(CLONE, "0")]
        assert of(Command, shape) == []
        assert read(shape.encode()).unread == ()
        speakers = [each.speaker for each in of(Words, shape)]
        assert speakers == [
            Speaker.BOXLITE,
            Speaker.BOXLITE,
            Speaker.BUBBLEWRAP,
            Speaker.BOXLITE,
            Speaker.BOXLITE,
        ]
    assert settings(f"Fix: sudo sysctl -w {CLONE}=1 and it works") == [tried(CLONE, "1", True)]


def test_several_values_are_asked_for_at_once() -> None:
    text = "```\n$ cat /proc/sys/kernel/unprivileged_userns_clone /proc/sys/user/max_user_namespaces\n1\n15000\n```"
    assert settings(text) == [holds(CLONE, "1"), holds("user.max_user_namespaces", "15000")]


@pytest.mark.parametrize(
    ("text", "helped"),
    [
        (f"sudo sysctl -w {RESTRICT}=0", None),
        ("echo 0 | sudo tee /proc/sys/kernel/apparmor_restrict_unprivileged_userns", None),
        ("sudo sh -c 'echo 0 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns'", None),
        (f"With {RESTRICT}=0 it works at once.", True),
        (f"Setting {RESTRICT}=0 does not help.", False),
        (f"I tried {RESTRICT}=0 but it still fails", False),
        (f"I tried:\n\n```\n$ sudo sysctl -w {RESTRICT}=0\n```\n\nand everything works now.", True),
        (f"```\n$ sudo sysctl -w {RESTRICT}=0\n{RESTRICT} = 0\n```\n\nNo change.", False),
        (f"{RESTRICT}=0 fixes it", True),
        (f"sysctl {RESTRICT}=0 no working", False),
        (f"I tried {RESTRICT}=0, which should help", None),
        (f"These settings do not help:\n\n- {RESTRICT}=0", False),
    ],
)
def test_what_was_tried_is_told_from_what_holds(text: str, helped: bool | None) -> None:
    assert settings(text) == [tried(RESTRICT, "0", helped)]


def test_what_is_said_of_the_next_step_is_not_said_of_this_one() -> None:
    text = (
        f"After `sysctl -w {CLONE}=1` the error changes to\nbwrap: Creating new namespace failed: x (ENOSPC)\n"
        "After also running `sysctl -w user.max_user_namespaces=15000`, boxes start."
    )
    assert settings(text) == [tried(CLONE, "1", None), tried("user.max_user_namespaces", "15000", True)]


@pytest.mark.parametrize(
    ("text", "step", "helped"),
    [
        ("With --privileged it works.", "--privileged", True),
        ("I ran `sudo modprobe kvm_intel` but no luck", "modprobe kvm_intel", False),
        ("`setenforce 0` makes it work. As root I did not try.", "setenforce 0", True),
        ("1. `sudo usermod -aG kvm me` and a new login - no difference", "usermod -aG kvm me", False),
    ],
)
def test_steps_that_are_no_sysctl(text: str, step: str, helped: bool) -> None:
    assert settings(text) == [tried(step, None, helped)]


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ("32768 60999", "32768 60999"),
        ("32768\t60999", "32768 60999"),
        ("|/bin/false", "|/bin/false"),
        ("-1", "-1"),
    ],
)
def test_lists_of_numbers_and_words_are_values(value: str, read_as: str) -> None:
    assert settings(f"    net.ipv4.some_range = {value}\n") == [holds("net.ipv4.some_range", read_as)]


def test_a_value_that_holds_stays_beside_the_one_that_was_tried() -> None:
    text = f"- {RESTRICT} = 1\n\nAfter setting {RESTRICT}=0 it works."
    assert settings(text) == [holds(RESTRICT, "1"), tried(RESTRICT, "0", True)]


def test_the_sysctl_that_bubblewrap_advises_was_set_by_nobody() -> None:
    said = f"bwrap: No permissions to creating new namespace. ... this can be enabled with 'sysctl {CLONE}=1'."
    assert settings(said) == []


@pytest.mark.parametrize(
    ("text", "mood"),
    [
        (f"{CLONE} is set to 0 by default there", Mood.DEFAULT),
        (f"# {CLONE}=0", Mood.DEFAULT),
        (f"I want to avoid {CLONE}=1", Mood.AVOIDED),
        (f"{CLONE}=0 to undo it", Mood.AVOIDED),
        (f"Docker requires {CLONE}=1", Mood.HYPOTHETICAL),
        (f"We recommend `sudo sysctl -w {CLONE}=1`.", Mood.HYPOTHETICAL),
        (f"You can run `sudo sysctl -w {CLONE}=1` there.", Mood.HYPOTHETICAL),
        (f"The manual recommends `sudo sysctl -w {CLONE}=1`, which did not help.", Mood.TRIED),
        (f"## Steps to reproduce\n\n- disable it by `sudo sysctl {CLONE}=0`", Mood.HOLDS),
    ],
)
def test_a_setting_has_a_mood(text: str, mood: Mood) -> None:
    shape = f"```\n{text}\n```" if text.startswith("# ") else text
    assert [each.mood for each in of(Setting, shape)] == [mood]


@pytest.mark.parametrize(
    "text",
    [
        "ERROR vm.go:744: vm 0: unable to connect",
        f"sysctl: error: '{CLONE}' is an unknown key",
        "Ensure sysctl user.max_user_namespaces is set in rootless mode",
    ],
)
def test_what_has_no_value_of_its_kind_is_no_setting(text: str) -> None:
    assert settings(text) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"The workaround is to run `sudo sysctl -w {RESTRICT}=0`", RESTRICT),
        (f"## Workaround\n\n`sudo sysctl -w {RESTRICT}=0`", RESTRICT),
        (f"It can be fixed with\n\n```\nsudo sysctl -w {RESTRICT}=0\n```", RESTRICT),
    ],
)
def test_what_is_presented_as_the_cure_helps(text: str, name: str) -> None:
    assert (name, "0", Mood.TRIED, True) in settings(text)


@pytest.mark.parametrize(
    "text",
    [
        "```\nRUN apt-get install -y \\\n    curl\n```\nNow it works.",
        "- dnf install -y curl jq",
        "I confirmed by `readlink -f /etc/hosts` that the problem is gone.",
        "After that, `bwrap --bind / / true` runs.",
        "That is usually done by --privileged, and it works.",
        "```\nHINT:   sudo modprobe kvm_amd\n```\n\nOn my laptop it works.",
        "Check whether adding your user to the kvm group is possible.",
        "We recommend `sudo chmod 666 /dev/kvm`.",
    ],
)
def test_a_test_a_hint_and_a_look_are_no_cures(text: str) -> None:
    assert of(Setting, text) == []


@pytest.mark.parametrize(
    ("text", "name", "helped"),
    [
        ("I ran `sudo aa-teardown` and it works.", "aa-teardown", True),
        ("privileged: true fixes it", "privileged: true", True),
        ("--cap-add=SYS_ADMIN did not help", "--cap-add=SYS_ADMIN", False),
    ],
)
def test_what_came_of_a_step(text: str, name: str, helped: bool) -> None:
    assert [(setting.name, setting.helped) for setting in of(Setting, text)] == [(name, helped)]


def test_what_is_no_option_was_not_tried() -> None:
    [setting] = of(Setting, f"Setting `{RESTRICT}=0` is not an option for us.")
    assert setting.mood is Mood.AVOIDED


@pytest.mark.parametrize(
    "text",
    [
        "`--security-opt label=disable` cures that.",
        "The fix was to add `--security-opt label=disable` to it.",
    ],
)
def test_an_option_that_a_sentence_presents_as_a_cure_is_one(text: str) -> None:
    [setting] = of(Setting, text)
    assert (setting.name, setting.helped) == ("--security-opt label=disable", True)


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("Reverting to Codex CLI 0.99 fixes it; I have codex 0.100.", ["0.100"]),
        ("it works with podman 4.9", []),
    ],
)
def test_a_version_that_is_compared_is_not_the_reporters(text: str, versions: list[str]) -> None:
    assert [each.version for each in of(Program, text)] == versions


@pytest.mark.parametrize(
    "text", ["user.name=foo", "kernel.org is 5", "net.http: 1", "fs.promises.open: 5", "dev.to: 5"]
)
def test_a_name_with_dots_is_no_sysctl(text: str) -> None:
    assert of(Setting, text) == []


@pytest.mark.parametrize("text", [f"Is {CLONE}=1 required?", f"The manual says that `{CLONE}=1` is needed."])
def test_what_is_required_does_not_hold(text: str) -> None:
    assert [setting.mood for setting in of(Setting, text)] == [Mood.HYPOTHETICAL]


@pytest.mark.parametrize(
    "sentence", ["You add your user to the kvm group. ", f"{CLONE}=1 ", "chmod 1 /a ", "--privileged is x. "]
)
def test_the_words_around_a_step_are_judged_so_often_at_most(
    sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []
    outcome_of = settings_of_reports.outcome_of

    def counted(text: Text, index: int, start: int, end: int, **more: bool) -> Outcome:
        judged.append(index)
        return outcome_of(text, index, start, end, **more)

    monkeypatch.setattr(settings_of_reports, "outcome_of", counted)
    read((f"{sentence}\n\n" * 3 * settings_of_reports.MOST).encode())
    assert 0 < len(judged) <= 2 * settings_of_reports.MOST
