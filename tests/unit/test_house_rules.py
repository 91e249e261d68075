"""The linters, run as tests like any other, and rules that no linter has."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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


def list_private_names(tree: ast.AST) -> Iterator[str]:
    """What a test takes from elsewhere that begins with an underscore, each with its line."""
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Attribute(value=ast.Name("self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                names = [name]
            case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("lab"):
                names = [alias.name for alias in aliases]
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(str(name)), *_]):
                names = [name]
            case _:
                continue
        yield from (f"{node.lineno}: {name}" for name in names if re.match("_(?!_)", name))


def test_tests_do_not_touch_what_is_private_to_a_module() -> None:
    touched = {
        str(file.relative_to(ROOT)): names
        for file in (ROOT / "tests").rglob("*.py")
        if (names := list(list_private_names(ast.parse(file.read_text()))))
    }
    assert touched == {}
    lines = "from re import _a", "from lab.a import _b", "a._c.d", "self._e", "monkeypatch.setattr(a, '_f', 1)"
    assert sorted(list_private_names(ast.parse("\n".join(lines)))) == ["2: _b", "3: _c", "5: _f"]
