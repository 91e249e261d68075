"""Measures how long a user waits for a first answer: the first prediction, and the first verdict.

For a newcomer, who has no images and no stored states, and for the second run. The lab is ended after its first
verdict; its time for more is what `benchmarks.steps` shows.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from benchmarks import history

# Lines of `lab matrix --verbose`: a prediction of a cell, and a decided cell: what did not run is no answer.
PREDICTION = re.compile(r"\] \S.*: ~ ")
VERDICT = re.compile(r"\] \d+/\d+ \S.*: (?!error|not-run|n/a)")
NEWCOMER, SECOND = "newcomer", "second run"
# How long the lab has to take its guests down, in seconds.
END_SECONDS = 120


def find_answers(lines: Iterable[str], clock: Callable[[], float]) -> dict[str, float]:
    """Return when the first prediction and the first verdict came, by the clock; stops at the verdict."""
    answers: dict[str, float] = {}
    for line in lines:
        if VERDICT.search(line):
            answers["first verdict"] = clock()
            break
        if "first prediction" not in answers and PREDICTION.search(line):
            answers["first prediction"] = clock()
    return answers


def measure(words: list[str], home: Path, run: Path) -> dict[str, float]:
    """Run the lab with its own folders in `home` until its first verdict. Exits if it ends without one."""
    start = time.monotonic()
    command = [sys.executable, "-m", "lab", "matrix", "--verbose", *words, "-o", str(run)]
    environment = {**os.environ, "LAB_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        answers = find_answers(lab.stdout, lambda: time.monotonic() - start)
        lab.send_signal(signal.SIGINT)
        lab.communicate(timeout=END_SECONDS)
    if "first verdict" not in answers:
        sys.exit(f"{' '.join(command)} ended without a verdict, with exit status {lab.returncode}")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often a newcomer begins")
    history.add_options(parser)
    options, words = parser.parse_known_args()
    words = words or ["--set", "quick"]
    seconds: dict[str, list[float]] = {}
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="first-answer-") as folder:
            Path(folder).chmod(0o755)  # The account of the system's QEMU has to reach what is in it.
            for who in (NEWCOMER, SECOND):
                answers = measure(words, Path(folder) / "home", Path(folder) / who.replace(" ", "-"))
                for answer, after in answers.items():
                    print(f"round {number}: {who}: {answer} after {after:.1f} s", flush=True)
                    seconds.setdefault(f"{who}: {answer}", []).append(after)
    figures = [history.Figure.median(name, values) for name, values in seconds.items()]
    history.keep(Console(highlight=False), options, "first_answer", setting=" ".join(words), figures=figures)


if __name__ == "__main__":
    main()
