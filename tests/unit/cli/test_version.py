"""`lab --version`: the commit of a checkout, or that which pip recorded, or none."""

import re
import subprocess
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from lab import __version__
from lab.cli import version
from tests.builders.processes import RunLab

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *names, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(version, "PACKAGE", tmp_path / "lab")
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "-a", "-m", "a", "v0.1.0")
    return tmp_path


def test_a_checkout_has_its_commit_and_says_whether_files_were_changed(checkout: Path, run_lab: RunLab) -> None:
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert run_lab(None, "--version") == f"lab, version {__version__} (commit {commit})\n"
    (checkout / "new").write_text("no part of the lab")
    assert version.find_commit() == commit
    (checkout / "a").write_text("b")
    assert version.find_commit() == f"{commit}-dirty"


def test_a_program_that_the_checkout_names_is_not_started(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "config", "core.fsmonitor", f"touch {tmp_path}/started; false")
    assert re.fullmatch("[0-9a-f]{12}", version.find_commit())
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("lost", ["git", "commits"])
def test_what_git_cannot_tell_is_left_out(
    checkout: Path, lost: str, run_lab: RunLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lost == "git":
        monkeypatch.setenv("PATH", str(checkout))
    else:
        (checkout / ".git/HEAD").unlink()
    assert run_lab(None, "--version") == f"lab, version {__version__}\n"


class Installed(Distribution):
    """What pip wrote down about where the lab came from."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def read_text(self, filename: str) -> str | None:
        return self.text if filename == "direct_url.json" else None

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("text", "commit"),
    [
        (
            f'{{"url": "https://a.example/b", "vcs_info": {{"vcs": "git", "commit_id": "{COMMIT}"}}}}',
            COMMIT[:12],
        ),
        ('{"url": "file:///a.whl", "archive_info": {}}', ""),
        ("{", ""),
        (None, ""),
    ],
    ids=["repository", "wheel", "damaged", "index"],
)
def test_an_installed_lab_has_the_commit_that_pip_wrote_down(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, commit: str
) -> None:
    # The environment may be a folder of somebody's repository, whose commit is not the lab's.
    monkeypatch.setattr(version, "PACKAGE", checkout / "env" / "lab")
    monkeypatch.setattr("importlib.metadata.distribution", lambda _name: Installed(text))
    assert version.find_commit() == commit
