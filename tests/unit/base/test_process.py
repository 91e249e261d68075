import threading
from pathlib import Path

import psutil
import pytest

from lab.base import process
from tests.builders.processes import other_process, wait_until_ended

LONG = 60.0
RUNS_A_CHILD = """
from lab.base import process
process.run_command(
    ["sh", "-c", "echo $$; exec sleep 600"], timeout=600, on_line=lambda line: print(line, flush=True)
)
"""


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (["sh", "-c", "echo one; echo two >&2"], ["one", "two"]),
        # The environment is added to.
        (["sh", "-c", "echo $OURS $THEIRS"], ["kept added"]),
        # Bytes that are no text do no harm.
        (["printf", r"a\377b\n"], ["a\ufffdb"]),
    ],
)
def test_output_and_errors_come_back_together_and_line_by_line(
    monkeypatch: pytest.MonkeyPatch, command: list[str], lines: list[str]
) -> None:
    monkeypatch.setenv("OURS", "kept")
    seen: list[str] = []
    text = process.run_command(command, timeout=LONG, env={"THEIRS": "added"}, on_line=seen.append)
    assert (text.splitlines(), seen) == (lines, lines)


def test_a_failure_shows_a_command_to_paste_and_the_end_of_the_output() -> None:
    with pytest.raises(process.CommandFailed) as failed:
        process.run_command(["sh", "-c", "seq 100; echo 'it broke'; exit 4"], timeout=LONG)
    lines = str(failed.value).splitlines()
    assert lines[0] == """sh -c 'seq 100; echo '"'"'it broke'"'"'; exit 4': exit status 4"""
    assert lines[-2:] == ["100", "it broke"]
    assert "50" not in lines


def test_a_program_that_is_not_there_or_takes_too_long_is_named() -> None:
    with pytest.raises(process.CommandFailed, match="no-such-program"):
        process.run_command(["no-such-program"], timeout=LONG)
    with pytest.raises(process.CommandFailed, match="sleep 600: stopped after"):
        process.run_command(["sleep", "600"], timeout=0.1)


@pytest.mark.parametrize(
    ("script", "stays"),
    [("setsid sleep 20 & echo $! >$0", True), ("exec >&- 2>&-; echo $$ >$0; exec sleep 600", False)],
    ids=["a daemon keeps it", "the program closes it"],
)
def test_a_limit_holds_whatever_becomes_of_the_output(script: str, stays: bool, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(process.CommandFailed, match="stopped after"):
        process.run_command(["sh", "-c", script, pid], timeout=2)
    # The daemon has left the program's family, so that nobody knows whose it is.
    assert runs(int(pid.read_text())) is stays


def test_what_a_program_started_is_stopped_before_it_goes_on_with_its_next_command(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    # Many, for the order among a few may be right by chance.
    script = 'for n in $(seq 20); do (sleep 600; touch "$0/$n") & done; echo up; wait'
    with pytest.raises(KeyboardInterrupt):
        process.run_command(["sh", "-c", script, tmp_path], timeout=LONG, on_line=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_takes_too_long_is_told_when_all_of_it_has_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    # The program itself ends at once and its output with it; what it started needs another moment.
    slow = f"trap 'sleep 0.5; exit' TERM; echo $$ >{pid}; while :; do sleep 0.1; done"
    with pytest.raises(process.CommandFailed, match="stopped after"):
        # Long enough for both shells to start on a busy host.
        process.run_command(["sh", "-c", 'sh -c "$0" >/dev/null 2>&1 & wait', slow], timeout=3)
    assert not runs(int(pid.read_text()))


def test_processes_that_left_are_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 1.0)
    pids = tmp_path / "pids"
    stubborn = f"trap '' TERM; echo $$ >>{pids}; echo up; while :; do sleep 1; done"
    started: list[str] = []

    def count(line: str) -> None:
        started.append(line)
        if len(started) == 2:
            raise KeyboardInterrupt

    script = 'setsid sh -c "$0" & sh -c "$0" & wait'
    with pytest.raises(KeyboardInterrupt):
        process.run_command(["sh", "-c", script, stubborn], timeout=LONG, on_line=count)
    assert [pid for pid in pids.read_text().split() if runs(int(pid))] == []


def runs(pid: int) -> bool:
    """Whether it has not ended; nobody may have noticed its end yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_stop_all_ends_what_other_threads_run() -> None:
    started = threading.Event()
    raised: list[Exception] = []

    def work() -> None:
        try:
            process.run_command(
                ["sh", "-c", "echo up; exec sleep 600"], timeout=LONG, on_line=lambda _: started.set()
            )
        except process.CommandFailed as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(LONG)
    process.stop_programs()
    thread.join(LONG)
    assert len(raised) == 1


def test_a_killed_lab_leaves_no_child_running() -> None:
    with other_process(RUNS_A_CHILD) as (parent, line):
        parent.kill()
        wait_until_ended(int(line))
