"""The linters, run as tests like any other, and rules that no linter has."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        ["-m", "importlinter.cli"],
    ],
    ids=["ruff", "ruff format", "mypy", "lint-imports"],
)
def test_the_code_is_clean(command: list[str]) -> None:
    if command[-1] == "importlinter.cli":
        command = ["-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_classes_have_one_name() -> None:
    classes = Counter(
        node.name
        for file in (ROOT / "lab").rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    # Each suite brings its own program into the guest, which starts boxes in its own way.
    assert [name for name, count in classes.items() if count > 1] == ["Boxes"]
