import json
import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from lab.base.paths import find_definitions
from lab.machine import seed

CLIENT, HOST = seed.make_keys("lab"), seed.make_keys("root@debian-13")


def rendered(**more: str) -> dict[str, str]:
    values = {"instance": "lab-debian-13-abc123", "hostname": "debian-13"} | more
    return seed.render(client_key=CLIENT, host_key=HOST, **values)


def values(text: str, key: str) -> list[Any]:
    """What YAML reads for a key: its JSON strings, which are YAML too."""
    texts = re.findall(rf"^ *{key}: (.*)$", text, re.MULTILINE)
    return [json.loads(text) if text.startswith(('"', "[")) else text for text in texts]


def test_the_user_data_has_the_keys_and_the_users_of_the_lane() -> None:
    text = rendered()["user-data"]
    assert text.splitlines()[0] == "#cloud-config"
    assert (values(text, "ed25519_private"), values(text, "ed25519_public")) == ([HOST.private], [HOST.public])
    # Both users accept one key and no password.
    assert values(text, "- name") == [seed.ADMIN_USER, seed.SUITE_USER]
    assert values(text, "ssh_authorized_keys") == [[CLIENT.public]] * 2
    assert (values(text, "lock_passwd"), values(text, "ssh_pwauth")) == (["true"] * 2, ["false"])
    # The suite's user may not become root.
    admin, suite = text.split("- name: ")[1:]
    assert ("sudo:" in admin, "sudo:" in suite, "groups: [kvm]" in suite) == (True, False, True)
    # cloud-init's schema wants at least one type here; without the line no key is made, as there are ssh_keys.
    assert "ssh_genkeytypes" not in text
    # No file has a tab, a placeholder or the lab's private key.
    for text in rendered().values():
        assert [words for words in ("\t", "{{", CLIENT.private) if words in text] == []
    lines = seed.render_packages(["bubblewrap", "python3"]).splitlines()
    assert (lines[0], lines[-1]) == ("#cloud-config", 'packages: ["bubblewrap", "python3"]')


def test_instance_and_network_are_those_of_the_lane() -> None:
    files = rendered()
    assert files["meta-data"].splitlines()[0] == "instance-id: lab-debian-13-abc123"
    network = files["network-config"]
    assert f'macaddress: "{seed.MAC}"' in network
    assert f'["{seed.ADDRESS}/{seed.PREFIX}"]' in network
    # netplan 0.101 of Debian 11 stops at `to: default`, and the guest is left without a network.
    assert re.findall(r"^ *routes: (.*)$", network, re.MULTILINE) == [
        f"[{{to: 0.0.0.0/0, via: {seed.GATEWAY}}}]"
    ]
    # Only a guest that needs a nameserver is told of one.
    assert "nameservers" not in network
    told = rendered(nameserver=seed.NAMESERVER)["network-config"]
    assert told == network.rstrip("\n") + '\n    nameservers: {addresses: ["10.0.2.3"]}\n'


def test_a_guest_without_cloud_init_gets_its_keys_and_its_name_by_a_script(tmp_path: Path) -> None:
    script = rendered()["seed.sh"].replace(" /etc", f" {tmp_path}/etc").replace(">/etc", f">{tmp_path}/etc")
    script = script.replace("/home", f"{tmp_path}/home").replace("hostname debian-13", "true", 1)
    (tmp_path / "etc" / "ssh").mkdir(parents=True)
    subprocess.run(["sh", "-c", script.replace("-o $user -g $user ", "")], check=True)
    ssh = tmp_path / "etc" / "ssh"
    assert (ssh / "ssh_host_ed25519_key").read_text().strip() == HOST.private.strip()
    assert (ssh / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (ssh / "ssh_host_ed25519_key.pub").read_text() == f"{HOST.public}\n"
    assert (tmp_path / "etc" / "hostname").read_text() == "debian-13\n"
    assert "127.0.1.1 debian-13" in (tmp_path / "etc" / "hosts").read_text().splitlines()
    for user in (seed.ADMIN_USER, seed.SUITE_USER):
        folder = tmp_path / "home" / user / ".ssh"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "authorized_keys").read_text() == f"{CLIENT.public}\n"


def test_the_network_that_built_guests_have_in_their_image_is_that_of_the_seed() -> None:
    recipe = (find_definitions() / "images" / "recipes" / "debian.sh").read_text()
    [network] = re.findall(r"<<'NETWORK'\n(.*?)\nNETWORK\n", recipe, re.DOTALL)
    assert dict(re.findall(r"^(\w+)=(.*)$", network, re.MULTILINE)) == {
        "MACAddress": seed.MAC,
        "Address": f"{seed.ADDRESS}/{seed.PREFIX}",
        "Gateway": seed.GATEWAY,
        "IPv6AcceptRA": "no",
        "IPv6DuplicateAddressDetection": "0",
    }


@pytest.mark.parametrize("view", ["rr_path", "joliet_path"])
def test_the_image_holds_the_files_under_the_names_that_nocloud_reads(tmp_path: Path, view: str) -> None:
    files = rendered()
    seed.write(tmp_path / "seed.iso", files)
    iso = pycdlib.PyCdlib()
    iso.open(str(tmp_path / "seed.iso"))
    read = {}
    for name in files:
        content = BytesIO()
        iso.get_file_from_iso_fp(content, **{view: f"/{name}"})
        read[name] = content.getvalue().decode()
    label = iso.pvd.volume_identifier.decode().strip()
    iso.close()
    assert read == files
    assert set(read) == {"user-data", "meta-data", "network-config", "seed.sh"}
    assert label == "cidata"
