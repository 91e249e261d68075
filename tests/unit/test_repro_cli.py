"""`lab repro` as users have it."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders.processes import run_main
from tests.builders.report_texts import FAMILY, MANY_PROCESSES, PROBE, TWICE


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Repro = Callable[..., Done]


@pytest.fixture
def repro(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Repro:
    """Run `lab repro` with arguments and with this text as its standard input."""

    def run(*arguments: str | Path, text: str | bytes = b"") -> Done:
        data = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        status = run_main(monkeypatch, "repro", *arguments)
        assert isinstance(status, int)
        return Done(status, *capsys.readouterr())

    return run


def test_a_report_is_shown_with_its_lines_and_what_they_show(repro: Repro) -> None:
    done = repro("-", "--text-only", text=FAMILY)
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "1 | - OS: Ubuntu 24.04 family" in lines
    assert "system        Ubuntu 24.04 family or a derivative" in lines
    assert "apparmor-userns-nocaps (likely)" in lines
    assert "lines 6, 10, 12" in lines


def test_the_plan_is_shown_without_a_network(repro: Repro) -> None:
    done = repro("-", "--text-only", text="# No box on Ubuntu 24.04\n\nboxlite 0.10.8")
    assert "guest: ubuntu-24.04, for Ubuntu 24.04" in done.stdout
    assert "build: boxlite 0.10.8, as the report says, if the package index has it" in done.stdout
    done = repro("-", "--text-only", text=MANY_PROCESSES)
    assert (
        "the report names no host; ask the reporter for the output of the script that lab probe prints"
        in done.stdout
    )


def test_a_file_is_shown_as_json(repro: Repro, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    file.write_text(TWICE)
    document = json.loads(repro(file, "--text-only", "--json").stdout)
    kinds = [statement["kind"] for statement in document["statements"]]
    assert {"system", "kernel", "setting", "audit-line", "message", "failing-test", "command"} <= set(kinds)
    tried = [one["says"] for one in document["statements"] if one["kind"] == "setting"]
    assert [setting["helped"] for setting in tried] == [False, False, False]
    assert "apparmor-userns-nocaps" in [finding["cause"] for finding in document["findings"]]
    assert (document["characters"], document["cut"]) == (len(TWICE), False)


def test_the_output_of_the_probe_script_is_shown(repro: Repro) -> None:
    assert "failed: unshare_user, unshare_user_root" in repro("-", "--text-only", text=PROBE).stdout
    document = json.loads(repro("-", "--text-only", "--json", text=PROBE).stdout)
    [probed] = [one for one in document["statements"] if one["kind"] == "lab-probe"]
    assert probed["says"]["host"]["facts"]["os"]["id"] == "debian"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lab: the report is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "lab: the report is binary data, not text"),
        (
            "https://github.com/a/b/issues/7",
            "gh issue view 7 --repo a/b --json title,body,comments | lab repro -",
        ),
        ('{"title": "x"}', "JSON without any text"),
    ],
)
def test_bad_input_is_told_with_the_next_step(repro: Repro, text: str | bytes, said: str) -> None:
    done = repro("-", "--text-only", text=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "next: " in done.stderr


def test_what_is_no_file_is_told_with_the_next_step(repro: Repro, tmp_path: Path) -> None:
    for argument, said in {
        tmp_path: "cannot be read: Is a directory",
        tmp_path / "none.md": "cannot be read: No such file or directory",
        "https://github.com/a/b/issues/7": "is an address, and nothing is fetched",
    }.items():
        done = repro(argument, "--text-only")
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_hostile_report_does_not_reach_the_terminal(repro: Repro) -> None:
    text = "Ubuntu 24.04 \x1b]0;owned\x07 \u202e[bold]x[/bold]\n::error::forged\n$ echo ##[add-path]/evil\n"
    done = repro("-", "--text-only", text=text)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "[bold]x[/bold]" in done.stdout
    assert "##\\[add-path]" in done.stdout
    assert "##[" not in done.stdout
