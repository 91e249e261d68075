"""The comment on a report: whole ones as they were accepted, and each statement of one on its line."""

import errno
import itertools
import os
import re
from pathlib import Path

import pytest

from lab import causes
from lab.repro import comment, judging, reading, subjects
from tests.builders import golden
from tests.builders.reports import KNOWN, architecture, plan, report, system

TEXTS = Path(__file__).parents[1] / "data" / "repro" / "comments"
NAMES = sorted(file.stem for file in TEXTS.glob("*.md"))
# Hosts, messages and what is said of settings, of which texts are made.
HOSTS = (
    "",
    "Ubuntu 24.04.1 LTS, kernel 6.8.0-55-generic",
    "I run Debian 13 with boxlite 0.10.8.",
    "Fedora 44",
    "NAME=Fedora Linux\nVERSION_ID=44\nID=fedora",
    "Inside a container from debian:12 on Fedora 44",
)
MESSAGES = (
    "",
    "bwrap: No permissions to create a new namespace, likely because the kernel does not allow it.",
    "bwrap: Creating new namespace failed: Permission denied",
    "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)",
    "bwrap: setting up uid map: Permission denied",
    "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
    "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
    "No usable sandbox!",
    "cannot clone: Operation not permitted",
    "Could not access KVM kernel module: Permission denied",
)
SETTINGS = (
    "",
    "kernel.unprivileged_userns_clone = 0",
    "I tried `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, and it works at once.",
    "I tried `sysctl -w user.max_user_namespaces=1000`, which does not help.",
)
ERRORS = re.compile(rf"(?<!its words mean )\b({'|'.join(errno.errorcode.values())})\b")
REFERENCE = re.compile(r" \(lines? ([\d, -]+)\)")
SETTING = re.compile(r"([a-z]+\.[a-z_]+)=(\d+)")
# What is quoted, and the last word of what is named.
NAMED = re.compile(r"(?:[Nn]ames|^,) .*?(\S+)$|(?<=for `).+(?=`$)")


def write(text: str) -> list[str]:
    """The comment on a text."""
    read = reading.read_report(text.encode())
    judged = judging.judge_report(read)
    return comment.write_comment(read, judged, subjects.choose_suite(read, judged))


def find_false_statements(text: str) -> list[str]:
    """What a comment says of the lines of a text, and the lines do not say. Remarks quote no line."""
    numbered = dict(enumerate(text.splitlines(), start=1))
    false = []
    for line in write(text):
        start = 0
        false += [line] if len(re.findall(r"\(lines? ", line)) != len(REFERENCE.findall(line)) else []
        for reference in REFERENCE.finditer(line):
            said, start = line[start : reference.start()], reference.end()
            spans = [(span.partition("-")[0], span.rpartition("-")[2]) for span in reference[1].split(", ")]
            lines = " ".join(numbered[n] for first, last in spans for n in range(int(first), int(last) + 1))
            words = NAMED.findall(said)
            if line.startswith(("**", "- **")):
                words += [part for setting in SETTING.findall(said) for part in setting]
                errors = ERRORS.findall(said)
                words += [name for name in errors if os.strerror(getattr(errno, name)) not in lines]
                words += ["works", "does not help"] if "as the reporter says" in said else []
                if {"works", "does not help"} & {word for word in words if word in lines}:
                    words = [word for word in words if word not in ("works", "does not help")]
            false += [f"{word} is not on{reference[0]}" for word in words if word not in lines]
    return false


@pytest.mark.parametrize("name", NAMES)
def test_a_comment_is_golden(name: str) -> None:
    lines = write((TEXTS / f"{name}.md").read_text())
    assert len(lines) <= comment.MOST_LINES
    golden.check(f"comment-{name}.md", "".join(f"{line}\n" for line in lines))


def test_each_statement_of_a_comment_stands_on_its_line() -> None:
    texts = [
        "\n\n".join(["# A failure", *filter(None, parts)])
        for parts in itertools.product(HOSTS, MESSAGES, SETTINGS)
    ]
    texts += [(TEXTS / f"{name}.md").read_text() for name in NAMES]
    false = {text: statements for text in texts if (statements := find_false_statements(text))}
    assert false == {}


def test_the_explanations_of_all_causes_are_read_from_their_rules() -> None:
    for name, cause in causes.list_causes().items():
        assert comment.read_explanation(name) == cause.explanation
    assert comment.read_explanation("none") == ""


def test_the_guest_of_a_comment_is_that_of_the_plan() -> None:
    for guest in KNOWN.guests.values():
        name, _, version = (guest.system or guest.name).partition("-")
        read = report(system(name, version or None), architecture(guest.arch))
        planned = plan(read).guest
        assert comment.find_guest(read) == (planned.name if planned else None)


@pytest.mark.parametrize(
    ("error", "cures"),
    [
        ("Device or resource busy (os error 16)", []),
        ("Inappropriate ioctl for device (os error 25)", ["/dev/kvm"]),
    ],
)
def test_a_cure_that_helps_against_one_error_is_named_only_where_it_is_quoted(
    error: str, cures: list[str]
) -> None:
    text = f"/dev/kvm: {error}\n"
    found = comment.find_cures("kvm-unusable", reading.read_report(text.encode()), "")
    assert [cure.title.split()[-1] for cure in found] == cures


def test_a_cure_helps_the_program_that_is_blocked_and_the_host_that_is_told() -> None:
    ubuntu = report(system("ubuntu", "24.04"))
    cures = comment.find_cures("apparmor-userns-nocaps", ubuntu, "bwrap")
    assert "bwrap-userns-restrict" in cures[0].script
    # Neither a profile for bubblewrap nor another way to run boxlite cures another program.
    others = comment.find_cures("apparmor-userns-nocaps", ubuntu, "podman")
    assert [cure.script for cure in others] == ["lab remedies show unprivileged-userns-complain --script"]
    assert not any("Skip" in cure.title or "jailer" in cure.title for cure in cures)


@pytest.mark.parametrize("name", ["<b>x</b>", "a|b", "@somebody", "`x`"])
def test_text_of_a_report_is_no_markup_in_a_comment(name: str) -> None:
    lines = write(
        f"# It fails\n\n{name} says on Ubuntu 24.04\n\n    {name}: failed: Permission denied {name}\n"
    )
    for line in lines:
        outside = re.sub("`[^`]*`", "", line)
        assert not re.search(r"<b>|(?<!\\)\||@(?=\w)", outside)


def test_no_comment_has_a_general_failure_as_a_reason_against_a_cause() -> None:
    text = "# It fails in docker, libseccomp2\n\nDebian 11\n\n    docker run --security-opt seccomp=x x\n"
    lines = write(text)
    assert any("**seccomp**" in line for line in lines)
    assert not any("against it" in line for line in lines)
    # It quotes no message.
    assert not any("whose messages" in line for line in lines)


@pytest.mark.parametrize(
    ("host", "false"),
    [
        ("I run Void Linux.", "release of"),
        ("It fails on Ubuntu derivatives.\n\nLinux 5.15.11-76051511-generic", "is a kernel of Pop"),
        ("A Debian 12 based system", "based"),
    ],
)
def test_nothing_false_is_said_of_a_host_without_releases_and_of_a_derivative(host: str, false: str) -> None:
    text = f"# It fails\n\n{host}\n\nbwrap: No permissions to create a new namespace\n"
    assert not [line for line in write(text) if false in line]


def test_a_system_that_words_only_point_to_is_said_to_be_that() -> None:
    trace = 'access("/etc/ld-nix.so.preload", R_OK)  = -1 ENOENT (No such file or directory)'
    text = f"# It fails\n\n```\n{trace}\n```\n\nbwrap: Can't mount proc: Permission denied\n"
    [asked] = [line for line in write(text) if "It does not say" in line]
    assert "the distribution (its words only point to NixOS or a derivative) and its release" in asked
