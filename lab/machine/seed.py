"""The NoCloud seed: a small ISO image from which cloud-init in the guest reads its configuration.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from io import BytesIO
from pathlib import Path

import jinja2
import pycdlib

from lab.machine.keys import KeyPair
from lab.paths import definitions

# One lane has one network of its own, so that every lane can have the same addresses. The values are
# those of QEMU's user networking, which passt is told to follow.
MAC = "52:54:00:1a:b0:01"
ADDRESS = "10.0.2.15"
PREFIX = 24
GATEWAY = "10.0.2.2"

ADMIN_USER = "lab"
SUITE_USER = "tester"


def render(*, instance: str, hostname: str, client_key: KeyPair, host_key: KeyPair) -> dict[str, str]:
    """The seed's three files, from the templates in `cloud-init/`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(definitions() / "cloud-init"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    values = {
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
    }
    names = {"user-data": "user-data.yaml", "meta-data": "meta-data", "network-config": "network-config"}
    return {name: environment.get_template(template).render(values) for name, template in names.items()}


def write(path: Path, files: dict[str, str]) -> None:
    """Write the files into an ISO image with the label that NoCloud looks for."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        content = text.encode()
        iso.add_fp(BytesIO(content), len(content), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
