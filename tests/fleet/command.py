"""`lab matrix --hosts` as a process, as a user runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

from lab.base.wait import Deadline, wait_for
from tests.fleet.examples import ROOT, Fleet
from tests.unit.run_examples import KNOWN
from tests.unit.told import SECONDS

# The command with less patience for hosts that do not answer, and when these are lost, in seconds.
LOST = 10.0
IMPATIENT = f"""
import sys
from lab.fleet import engine
engine.LOST_SECONDS, engine.SILENT_SECONDS = {LOST}, 3.0
from lab.cli import main
sys.argv[0] = "lab"
main()
"""


class Command:
    """`lab matrix --hosts`, whose hosts are those of a fleet, which ends it with them.

    `within` are words before the command, and `host` is where it listens. `impatient`: a host that does not
    answer is lost after seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        *arguments: str,
        within: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        impatient: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        release = fleet.folder / "cache/wheels/boxlite-0.10.8-02e3de1a-cp313"
        release.mkdir(parents=True, exist_ok=True)
        fleet.put_images(KNOWN.guest(word) for option, word in pairwise(arguments) if option == "-g")
        self.out = fleet.folder / "out"
        program = ["-c", IMPATIENT] if impatient else ["-m", "lab"]
        command = [*within, sys.executable, *program, "matrix", *arguments, "--hosts", f"tls://{host}:{port}"]
        own = {"LAB_HOME": str(fleet.folder), "PYTHONPATH": str(ROOT), **(environment or {})}
        with self.out.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **own}, stdout=output, stderr=subprocess.STDOUT
            )
        fleet.commands.append(self.process)
        self.address = self.wait_for(r"hosts join with: lab worker (\S+)")

    def said(self) -> str:
        return self.out.read_text()

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """Wait until something was printed so often; return the last group of the pattern, or all of it."""

        def look() -> str | None:
            found = list(re.finditer(pattern, self.said()))
            assert len(found) >= times or self.process.poll() is None, self.said()
            return found[-1][found[-1].lastindex or 0] if len(found) >= times else None

        return wait_for(look, Deadline(SECONDS, pattern), interval=0.05)

    def ends(self) -> int:
        return self.process.wait(timeout=SECONDS)
