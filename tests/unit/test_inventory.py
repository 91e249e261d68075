"""`hosts.toml`: what it may say, and what is told about a wrong one."""

from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.fleet import inventory

WHOLE = """
[coordinator]
address = "10.0.0.1"
port = 8786

[hosts.lab-1]
address = "lab@lab-1.example.org:2222"
python = "/srv/lab/.venv/bin/python"
home = "/var/lab"
lanes = 4
memory_mib = 16384

[hosts.lab-2]
address = "10.0.0.3"
python = "/opt/venv/bin/python"
"""


def read(tmp_path: Path, text: str) -> inventory.Inventory:
    (tmp_path / "hosts.toml").write_text(text)
    return inventory.load(tmp_path / "hosts.toml")


def test_a_whole_inventory_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    assert (found.coordinator.address, found.coordinator.port) == ("10.0.0.1", 8786)
    first, second = found.hosts["lab-1"], found.hosts["lab-2"]
    assert (first.lanes, first.memory_mib) == (4, 16384)
    assert first.command == "env LAB_HOME=/var/lab /srv/lab/.venv/bin/python -m lab.fleet.host"
    assert second.command == "env /opt/venv/bin/python -m lab.fleet.host"


def test_everything_that_is_wrong_is_told_at_once_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read(
            tmp_path,
            "[coordinator]\nport = 0\n"
            '[hosts.a]\naddress = "-oProxyCommand=x"\nmemory_mib = "all"\ncores = 2\npython = "/p"\n'
            '[hosts.b]\naddress = "::1"\nlanes = 0\npython = "~/python"\n[hosts.c]\naddress = "x"\n',
        )
    for key in (
        *("coordinator.port", "hosts.a.address", "hosts.a.memory_mib", "hosts.a.cores"),
        *("hosts.b.lanes", "hosts.b.python", "hosts.c.python"),
    ):
        assert f"hosts.toml: {key}: " in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a host, for example [hosts.lab-1], or coordinator.port"),
        ('[hosts."A B"]\naddress = "x"\npython = "/p"\n', "hosts.A B.[key]: String should match pattern"),
    ],
)
def test_no_hosts_and_names_that_are_none_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text)
    assert told in str(raised.value)
