"""The seed: a small ISO image with what a lane's guest has to know: its keys, users, name and network.

Each lane gets a new pair of SSH keys for the lab and a new pair for the guest.

A distribution's disk has cloud-init read it, as a NoCloud seed. A guest that the lab built runs its `seed.sh`.
Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import pycdlib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lab.base.paths import find_definitions

# Each lane has a network of its own, so all lanes can use the same addresses. They are those of QEMU's user
# network, and built guests have them in their image (images/recipes/debian.sh).
MAC = "52:54:00:1a:b0:01"
ADDRESS = "10.0.2.15"
PREFIX = 24
GATEWAY = "10.0.2.2"
# It asks the nameserver of the host, also one that listens on the loopback interface alone.
NAMESERVER = "10.0.2.3"

ADMIN_USER = "lab"
SUITE_USER = "tester"

# The templates that are not called as the files are.
TEMPLATES = {"user-data": "user-data.yaml"}


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair in OpenSSH's formats."""

    private: str
    public: str


def make_keys(comment: str) -> KeyPair:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private.decode(), f"{public.decode()} {comment}")


def render(
    *,
    instance: str,
    hostname: str,
    client_key: KeyPair,
    host_key: KeyPair,
    nameserver: str = "",
) -> dict[str, str]:
    """The seed's files, from the templates in `cloud-init/`.

    Without a `nameserver` the guest cannot resolve names; no cell needs to.
    """
    values: dict[str, Any] = {
        "instance": instance,
        "hostname": hostname,
        "client_public_key": client_key.public,
        "host_private_key": host_key.private,
        "host_public_key": host_key.public,
        "admin_user": ADMIN_USER,
        "suite_user": SUITE_USER,
        "mac": MAC,
        "address": f"{ADDRESS}/{PREFIX}",
        "gateway": GATEWAY,
        "nameserver": nameserver,
    }
    names = ("user-data", "meta-data", "network-config", "seed.sh")
    return {name: _render(TEMPLATES.get(name, name), values) for name in names}


def render_script(script: str) -> dict[str, str]:
    """The seed of a guest that only runs this shell script while it boots, as root, and lets nobody in."""
    nobody = KeyPair("", "")
    files = render(instance="script", hostname="script", client_key=nobody, host_key=nobody)
    cloud_config = f"#cloud-config\n{json.dumps({'bootcmd': [['sh', '-c', script]]})}\n"
    return files | {"user-data": cloud_config, "seed.sh": script}


def render_packages(names: Sequence[str]) -> str:
    """Cloud-config that makes cloud-init install packages, with any distribution's package manager."""
    return _render("packages.yaml", {"packages": list(names)})


def _render(template: str, values: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(  # noqa: S701 - YAML, whose values are quoted by `tojson`, and words of the lab's own in a script
        loader=jinja2.FileSystemLoader(find_definitions() / "cloud-init"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def write(path: Path, files: dict[str, str]) -> None:
    """Write the files into an ISO image with the volume label that NoCloud expects.

    Only the owner may read it, because it holds the guest's private host key. libvirt makes QEMU's user the
    owner when the machine starts.
    """
    path.unlink(missing_ok=True)
    path.touch(0o600)
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        content = text.encode()
        iso.add_fp(BytesIO(content), len(content), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
