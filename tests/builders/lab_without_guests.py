"""`lab` on a runner without guests and without a network, as the workflows' tests start it with `python -m`.

Each cell does what is expected of it, but for those that $STAND_IN_FAILS names: GUEST/VARIANT. A guest's image
is a small file, made if the store lacks it; that of guests in $STAND_IN_LARGE would need 3 GiB. $HOME is that
of the runner's user.
"""

import os
import sys
from pathlib import Path
from unittest.mock import patch

from packaging.version import Version

from lab import cli
from lab.base.activity import Task
from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.builds import wheels
from lab.builds.kinds.wheel import Wheel
from lab.catalog import CloudImage, Guest, find_pins_file
from lab.cli import options
from lab.images import cloud, download, store
from lab.plan import Cell
from lab.record import CellResult, CellVerdict, Status, SuiteResult

# A pin of the lab's that is not the newest, as the server of this made-up week says.
RENEWED, NEW_BUILD = "ubuntu-24.04", "release-20991231"


def judge_as_expected(cell: Cell) -> CellResult:
    cause = cell.expected.cause
    verdict = CellVerdict(status=Status.XFAIL if cause else Status.PASS, cause=cause)
    if f"{cell.guest.name}/{cell.variant.name}" in os.environ.get("STAND_IN_FAILS", "").split():
        verdict = CellVerdict(status=Status.FAIL, cause="unknown", reason="it fails in this test")
    return cell.judged_result(SuiteResult(), verdict)


def bring_image(paths: Paths, guest: Guest) -> None:
    """Make a guest's image, unless the store has it whole."""
    if image := store.find_image(paths, guest):
        store.check_image(image)
        return
    inputs = store.compute_inputs_digest(guest)
    folder = paths.make(paths.images) / f"{guest.name}-{inputs[:16]}"

    if guest.name in os.environ.get("STAND_IN_LARGE", "").split():
        download.check_room(paths.images, 3 * 2**30, f"the image of {guest.name}")

    def fill(partial: Path) -> None:
        (partial / store.DISK).write_text(f"the disk of {guest.name}\n")

    store.place_image(folder, guest.name, inputs, "made for a test", fill)
    print(f"made the image of {guest.name}")


def renew_pin(guest: Guest, _image: CloudImage, _task: Task) -> Guest:
    file = find_pins_file()
    lines = file.read_text().splitlines(keepends=True)
    if guest.name == RENEWED:
        lines[lines.index(f'["{RENEWED}"]\n') + 1] = f'build = "{NEW_BUILD}"\n'
        file.write_text("".join(lines))
    return guest


def main() -> None:
    home = Path(os.environ["HOME"])
    paths = Paths(cache=home / ".cache/boxlite-lab", state=home / ".local/state/boxlite-lab")
    for owner, name, stand_in in (
        (Paths, "default", lambda: paths),
        (options.Lab, "sweep", lambda _lab: ([], [], [])),
        (wheels, "list_releases", lambda *_: [Version("0.10.7"), Version("0.10.8")]),
        (Wheel, "check", lambda *_: None),
        (download, "find_unreachable_hosts", lambda _urls: {}),
        (cloud, "move_pin", renew_pin),
    ):
        patch.object(owner, name, stand_in).start()

    def decide(cell: Cell) -> CellResult:
        try:
            bring_image(paths, cell.guest)
        except LabError as error:
            return cell.result(Status.NOT_RUN, reason=str(error))
        return judge_as_expected(cell)

    if "matrix" in sys.argv:
        # No other command needs what runs cells.
        import pytest

        from tests.builders.processes import decide_at_once

        decide_at_once(pytest.MonkeyPatch(), decide)
    cli.main()


if __name__ == "__main__":
    sys.argv[0] = "lab"
    main()
