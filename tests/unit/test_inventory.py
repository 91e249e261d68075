"""`hosts.toml`: what it may say, and what is told about a wrong one."""

from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.fleet import inventory
from lab.fleet.inventory import Host

WHOLE = """
[coordinator]
address = "10.0.0.1"
port = 8786

[hosts.lab-1]
address = "lab-1.example.org"
user = "lab"
port = 2222
lab = "/srv/lab"
home = "/var/lab"
lanes = 4
memory_mib = 16384
kvm = true

[hosts.lab-2]
address = "10.0.0.3"
command = ["/opt/venv/bin/python", "-m", "lab"]
"""


def read(tmp_path: Path, text: str) -> inventory.Inventory:
    (tmp_path / "hosts.toml").write_text(text)
    return inventory.load(tmp_path / "hosts.toml")


def told(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(UsageError) as raised:
        read(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(raised.value).splitlines()]


def test_a_whole_inventory_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    assert (found.coordinator.address, found.coordinator.port) == ("10.0.0.1", 8786)
    first, second = found.hosts["lab-1"], found.hosts["lab-2"]
    assert (first.lanes, first.memory_mib, first.kvm) == (4, 16384, True)
    assert first.program == ["env", "LAB_HOME=/var/lab", "/srv/lab/.venv/bin/lab"]
    assert first.reached == "ssh -p 2222 lab@lab-1.example.org"
    assert second.program == ["/opt/venv/bin/python", "-m", "lab"]
    assert (second.reached, second.kvm) == ("ssh 10.0.0.3", False)


def test_a_host_of_this_machine_needs_its_address_alone(tmp_path: Path) -> None:
    found = read(tmp_path, '[hosts.a]\naddress = "127.0.0.1"\n')
    assert found.coordinator.address == "127.0.0.1"
    assert found.hosts["a"].program == ["lab"]


def test_everything_that_is_wrong_is_told_at_once_by_its_key(tmp_path: Path) -> None:
    said = told(
        tmp_path,
        '[hosts.a]\naddress = "-oProxyCommand=x"\nport = 0\nkvm = "yes"\ncores = 2\n'
        '[hosts.b]\naddress = "::1"\nlanes = 0\nlab = "~/lab"\n[hosts.c]\nuser = "root"\n',
    )
    assert [line.rpartition(": ")[0].partition(": ")[2] or line for line in said if "hosts.a" in line]
    keys = [line.split(": ")[1] for line in said]
    assert keys == [
        "hosts.a.address",
        "hosts.a.port",
        "hosts.a.kvm",
        "hosts.a.cores",
        "hosts.b.lab",
        "hosts.b.lanes",
        "hosts.c.address",
    ]
    assert said[2].endswith("found 'yes'")
    assert said[3].endswith("unknown key")
    assert "begins at the user's home, found '~/lab'" in said[4]


def test_an_inventory_without_hosts_or_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert told(tmp_path, "")[0].startswith("hosts.toml: hosts: Field required")
    assert told(tmp_path, "[hosts]\n")[0].startswith("hosts.toml: hosts: ")
    assert told(tmp_path, "[hosts")[0].startswith("hosts.toml: not valid TOML")
    with pytest.raises(UsageError, match="No such file"):
        inventory.load(tmp_path / "nope.toml")


def test_two_programs_contradict_each_other(tmp_path: Path) -> None:
    [said] = told(tmp_path, '[hosts.a]\naddress = "::1"\nlab = "/srv/lab"\ncommand = ["lab"]\n')
    assert said == "hosts.toml: hosts.a: lab and command contradict each other; leave one of them out"


def test_a_host_elsewhere_cannot_reach_a_coordinator_on_loopback(tmp_path: Path) -> None:
    [said] = told(tmp_path, '[hosts.a]\naddress = "10.0.0.2"\n[hosts.b]\naddress = "localhost"\n')
    assert "hosts.a: 10.0.0.2 is another machine" in said
    assert "set coordinator.address" in said
    assert "hosts.b" not in said


def test_one_host_is_not_named_twice_but_may_have_several_homes(tmp_path: Path) -> None:
    [said] = told(tmp_path, '[hosts.a]\naddress = "::1"\n[hosts.b]\naddress = "::1"\nport = 22\n')
    assert "hosts.b: the same host, user and home as hosts.a" in said
    read(tmp_path, '[hosts.a]\naddress = "::1"\nhome = "/a"\n[hosts.b]\naddress = "::1"\nhome = "/b"\n')


def test_a_name_is_one_that_a_certificate_may_have(tmp_path: Path) -> None:
    [said] = told(tmp_path, '[hosts."A b"]\naddress = "::1"\n')
    assert "hosts.A b: expected a name of lower-case letters" in said


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_is_this_machine(address: str) -> None:
    assert inventory.is_loopback(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "::", "0.0.0.0", "lab-1", "localhost.example.org"])
def test_anything_else_is_another(address: str) -> None:
    assert not inventory.is_loopback(address)


def test_a_program_with_a_home_of_its_own() -> None:
    assert Host(address="::1", home="/b c").program == ["env", "LAB_HOME=/b c", "lab"]
