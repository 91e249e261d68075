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
    return inventory.load_inventory(tmp_path / "hosts.toml")


def test_a_whole_inventory_is_read(tmp_path: Path) -> None:
    whole = read(tmp_path, WHOLE)
    assert (whole.coordinator.address, whole.coordinator.port) == ("10.0.0.1", 8786)
    first, second = whole.hosts.values()
    assert (first.lanes, first.memory_mib) == (4, 16384)
    assert first.command == "env LAB_HOME=/var/lab /srv/lab/.venv/bin/python -m lab.fleet.host"
    assert second.command == "env /opt/venv/bin/python -m lab.fleet.host"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ["expected a host, for example [hosts.lab-1], or coordinator.port"]),
        ("[hosts]\n", ["expected a host"]),
        ('[hosts."A B"]\naddress = "x"\npython = "/p"\n', ["hosts.A B.[key]: "]),
        (
            "[coordinator]\nport = 0\n"
            '[hosts.a]\naddress = "-oProxyCommand=x"\nmemory_mib = "all"\ncores = 2\npython = "/p"\n'
            '[hosts.b]\naddress = "::1"\nlanes = 0\npython = "~/python"\n[hosts.c]\naddress = "x"\n',
            [
                *("coordinator.port: ", "hosts.a.address: ", "hosts.a.memory_mib: ", "hosts.a.cores: "),
                *("hosts.b.lanes: ", "hosts.b.python: ", "hosts.c.python: "),
            ],
        ),
    ],
    ids=["empty", "no host", "name", "values"],
)
def test_everything_wrong_is_told_at_once_by_its_key(tmp_path: Path, text: str, keys: list[str]) -> None:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text)
    for key in keys:
        assert key in str(raised.value)
