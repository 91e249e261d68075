"""What runs in guests, read as text: those guests have other Pythons, and none of the lab's libraries."""

import ast
import configparser
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lab import catalog
from lab.paths import PACKAGE

SUITE = catalog.load().suite.folder
REMOTE = sorted((PACKAGE / "guest" / "remote").rglob("*.py"))
# The suite runs on no older Python than boxlite has wheels for. That a guest's is older (Debian 11's) is for
# the lab's own programs to find out.
OLDEST, OLDEST_OF_GUESTS = (3, 10), (3, 9)


def _name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def suite_functions() -> list[str]:
    tree = ast.parse((SUITE / "jailer_suite.py").read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("file", [*REMOTE, *sorted(SUITE.glob("*.py"))], ids=_name)
def test_it_is_written_for_the_oldest_python(file: Path) -> None:
    oldest = OLDEST_OF_GUESTS if file in REMOTE else OLDEST
    assert ast.parse(file.read_text(), feature_version=oldest).body


@pytest.mark.parametrize("file", REMOTE, ids=_name)
def test_remote_programs_import_the_standard_library_alone(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= sys.stdlib_module_names


def test_suite_toml_names_exactly_the_tests_of_the_suite_in_their_order() -> None:
    assert list(catalog.load().suite.tests) == suite_functions()


def test_pytest_collects_exactly_the_tests_that_suite_toml_names() -> None:
    ini = configparser.ConfigParser()
    ini.read(SUITE / "pytest.ini")
    files, functions = (ini["pytest"][key].split() for key in ("python_files", "python_functions"))
    collected = [file for file in SUITE.glob("*.py") if any(fnmatch(file.name, each) for each in files)]
    assert [file.name for file in collected] == ["jailer_suite.py"]
    found = [name for name in suite_functions() if any(fnmatch(name, each) for each in functions)]
    assert found == list(catalog.load().suite.tests)
