"""A worker whose children are stand-ins: python -m tests.fleet.host ADDRESS NAME CERTIFICATE CONTROL."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import Worker

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.fleet import certificates
from lab.fleet.address import Address
from lab.fleet.host_images import HostImages
from lab.fleet.task import Children
from lab.fleet.worker import Offer, serve
from lab.images import transfer

CHILD = Path(__file__).parent / "stand_in_child.py"


class CutOff(Children):
    """The children of a host whose first result lacks its end."""

    async def _send(self, worker: Worker, token: str, result: Path | None, said: dict[str, Any]) -> None:
        if result and self._sent == 0:
            result.write_bytes(result.read_bytes()[:-10])
        self._sent += 1
        await super()._send(worker, token, result, said)

    _sent = 0


def main(address: str, name: str, certificate: str, control: str) -> None:
    def command(part: Path, folder: Path) -> Sequence[str]:
        child = json.loads(Path(control).read_text()).get("child") or ["-SE", str(CHILD)]
        return [sys.executable, *child, str(part), str(folder), control, name]

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        wanted = json.loads(Path(control).read_text())
        if wanted.get("clock"):
            say(f"clock: {time.time()}")
        if wanted.get("ignore_room"):
            vars(transfer)["check_room"] = lambda *_arguments: None
        if wanted.get("any_date"):
            bundle = certificates.read(Path(certificate), missing="")
        else:
            bundle = certificates.load_worker(Paths.default(), Path(certificate))
        offer = Offer(wanted.get("called", name), lanes=wanted.get("lanes", 1), memory_mib=8192, kvm=False)
        kind = CutOff if wanted.get("cut_off") else Children
        children = kind(command, name, HostImages(Paths.default()), say)
        asyncio.run(serve(Address.parse(address, "ADDRESS"), bundle.security(), offer, children, say))
    except LabError as error:
        say(f"lab: {error}")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main(*sys.argv[1:])
