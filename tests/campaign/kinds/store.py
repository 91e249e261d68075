"""What other programs do to the lab's store and to its records."""

import shutil
import time

from lab.record import RESULTS_FILE, RunResult
from tests.campaign.home import PLAN
from tests.campaign.kinds._base import DONE, INCOMPLETE, INTERRUPTED, Fault, Scene
from tests.campaign.kinds.lab_process import LabInterrupted

WRONG_USAGE = 2
SECOND_SECONDS = 500.0


class StoreRemoved(Fault):
    name = "store-removed"
    happens = "images, stored states and wheels are deleted under the lab"
    promise = (
        "Cells that cannot go on are `error` with the missing path; with the store back, `--resume` goes on."
    )

    def inject(self, scene: Scene) -> str:
        shutil.rmtree(scene.home.paths.cache, ignore_errors=True)
        return "deleted the cache"

    def mend(self, scene: Scene) -> None:
        scene.home.paths.cache.mkdir(exist_ok=True)
        scene.home.fill_cache()


class ResultsReplaced(LabInterrupted):
    name = "results-garbage"
    happens = "Ctrl-C, then garbage in results.json before `--resume`"
    promise = "`--resume` names the file and what is wrong, exit status 2, and changes nothing in the folder."
    statuses = frozenset({INTERRUPTED, DONE})
    garbage = (b"", b"{", b"[]", b'{"schema": 2}', b"\x00\xff" * 500, b'{"schema": 99, "run": {}, "cells": []}')

    def check(self, scene: Scene) -> list[str]:
        file = scene.home.run / RESULTS_FILE
        if not file.exists():
            return []
        whole, wrong = file.read_bytes(), scene.random.choice([*self.garbage, file.read_bytes()[:-200]])
        file.write_bytes(wrong)
        try:
            status, output = scene.run_lab("resume of garbage", "matrix", "--resume", str(scene.home.run))
            found = (
                [] if status == WRONG_USAGE else [f"resume of {wrong[:20]!r} ended with {status}, expected 2"]
            )
            if str(file) not in output:
                found.append(f"resume of {wrong[:20]!r} does not name the file: {output[-300:]}")
            return found + (["resume changed a file that it cannot read"] if file.read_bytes() != wrong else [])
        finally:
            file.write_bytes(whole)


class TwoLabs(Fault):
    name = "two-labs"
    happens = "a second lab runs the same plan on the same store"
    promise = "Both end with the same table; neither removes what the other uses."
    statuses = frozenset({DONE, INCOMPLETE})

    def inject(self, scene: Scene) -> str:
        self._second = scene.home.out / "second"
        began = time.monotonic()
        status, output = scene.run_lab("second lab", *PLAN, "-o", str(self._second), seconds=SECOND_SECONDS)
        self._wrong = [] if status == DONE else [f"the second lab ended with {status}: {output[-300:]}"]
        return f"ran a second lab for {time.monotonic() - began:.0f} s"

    def check(self, scene: Scene) -> list[str]:
        if not hasattr(self, "_second"):
            return []
        found = list(self._wrong)
        if not found:
            squares = {cell.variant: str(cell.status) for cell in RunResult.read(self._second).cells}
            found = [
                f"the second lab: {name} is {status}" for name, status in squares.items() if status != "xfail"
            ]
        return found
