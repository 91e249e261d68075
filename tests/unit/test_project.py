"""What a stranger meets first: licence, changelog, how to cite, and what the package says of itself."""

import hashlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.version import Version

from lab import __version__
from lab.base.paths import PACKAGE
from tests.builders.workflows import read_yaml

ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_licence_is_the_text_of_apache_and_each_file_names_it() -> None:
    # As the Apache Software Foundation publishes it, with nothing filled in.
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == digest
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert read_yaml(ROOT / "CITATION.cff")["license"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("CITATION.cff", "citation-file-format"),
        (".github/dependabot.yml", "dependabot"),
        (".github/ISSUE_TEMPLATE/bug.yml", "github-issue-forms"),
        (".github/ISSUE_TEMPLATE/host.yml", "github-issue-forms"),
        (".github/ISSUE_TEMPLATE/config.yml", "github-issue-config"),
    ],
)
def test_what_others_read_is_valid_by_their_schema(file: str, schema: str) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        str(ROOT / file),
    ]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_the_changelog_begins_with_what_is_not_released_and_no_release_is_newer_than_this() -> None:
    first, *rest = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading) for heading in rest]
    versions = [Version(found[1]) for found in released if found]
    assert len(versions) == len(rest)
    assert versions == sorted(versions, reverse=True)
    assert not versions or versions[0] <= Version(__version__)


def test_what_comes_from_elsewhere_is_named_and_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Licence\n")[2]
    names = re.findall(r"^\| `([^`]+)` ", text, re.MULTILINE)
    assert "images/keys/" in names
    assert [name for name in names if not (ROOT / name).exists()] == []
