"""`lab hosts`, through the command line."""

import json
from pathlib import Path

import pytest

from tests.unit.cli_examples import rows_listed, run_main


def test_certificates_are_made_listed_and_renewed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "hosts", "list") == 0
    assert "lab hosts init NAME..." in capsys.readouterr().out
    assert not home.exists()
    assert run_main(monkeypatch, "hosts", "init", "a", "--days", "20") == 0
    said = capsys.readouterr().out
    assert f"ssh a lab hosts install < {home}/state/hosts/workers/a.pem" in said
    assert run_main(monkeypatch, "hosts", "add", "b") == 0
    capsys.readouterr()
    assert run_main(monkeypatch, "hosts", "list") == 0
    rows = rows_listed(capsys)
    assert rows[0] == ["name", "role", "state", "until", "file"]
    assert [row[:3] for row in rows[2:]] == [
        ["coordinator", "coordinator", "ends soon"],
        ["a", "worker", "ends soon"],
        ["b", "worker", "valid"],
    ]
    assert run_main(monkeypatch, "hosts", "renew") == 0
    capsys.readouterr()
    assert run_main(monkeypatch, "hosts", "list", "--json") == 0
    found = json.loads(capsys.readouterr().out)["certificates"]
    assert [each["state"] for each in found] == ["valid"] * 4
    assert {each["role"] for each in found} == {"ca", "coordinator", "worker"}


def test_a_second_ca_is_refused_with_the_next_step(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "hosts", "init") == 0
    assert run_main(monkeypatch, "hosts", "init", "a") == 2
    said = capsys.readouterr().err
    assert "there is a CA already" in said
    assert "next: for more hosts: lab hosts add NAME..." in said


def test_a_host_takes_its_certificate_from_a_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "hosts", "init", "a") == 0
    file = home / "state" / "hosts" / "workers" / "a.pem"
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "host"))
    assert run_main(monkeypatch, "hosts", "install", file) == 0
    installed = tmp_path / "host" / "state" / "hosts" / "worker.pem"
    assert installed.read_text() == file.read_text()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert run_main(monkeypatch, "hosts", "install", tmp_path / "binary") == 2
    assert "not a text" in capsys.readouterr().err
    installed.chmod(0o644)
    assert run_main(monkeypatch, "hosts", "list") == 0
    assert "unusable: " in capsys.readouterr().out
