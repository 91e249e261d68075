"""In place of `lab part`: decides each cell of a part at once, as its control file says.

`seconds`: how long each cell takes. `refuse`: why the part is refused. `status`: the exit status; `after`: how
many cells are decided before that. `bulk`: how large the evidence of a cell is, in bytes. `trials`: every suite
fails, and a remedy is verified after it; with `dies`, it is killed at the first trial of the first part.
`prepares`: the inputs and the base of the image that it prepares for a part with a disk that is not prepared;
on each host it is another one. Ended by a signal, it keeps what it decided. It imports nothing of the lab, so
that it starts quickly.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NOW = "2026-11-27T08:00:00Z"
STORE = Path(os.environ["LAB_HOME"], "cache", "images")


class Interrupted(Exception):
    """As by Ctrl-C."""


def interrupt(*_arguments: object) -> None:
    raise Interrupted


def tell(kind: str, **more: Any) -> None:
    print(json.dumps({"kind": kind, **more}), flush=True)


def main(control_file: str, to: str) -> int:
    host = os.environ["LAB_HOST_NAME"]
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    control, folder = json.loads(Path(control_file).read_text()), Path(to)
    part = json.loads(sys.stdin.read())
    results: list[dict[str, Any]] = []
    interrupted = False
    try:
        if "refuse" in control:
            print(f"error: {control['refuse']}", file=sys.stderr)
            return 2
        if not has_image(part):
            print("the image of the part is not in the store", file=sys.stderr)
            return 3
        if "prepares" in control and not part["image"]["base"]:
            stored, part["image"] = prepare(part["image"]["guest"], host, **control["prepares"])
            tell("prepared", folder=str(stored), image=part["image"])
        for number, cell in enumerate(part["record"]["cells"]):
            what = f"{cell['variant']}: suite"
            tell("lane", lane=cell["guest"], text=what, activity="suite", name=what)
            time.sleep(control.get("seconds", 0.0))
            if "status" in control and number == control.get("after", 0):
                break
            failed = control.get("trials", False)
            results.append(decide(folder, cell, host, control.get("bulk", 0), failed=failed))
            if failed:
                tell("lane", lane=cell["guest"], text=f"{cell['variant']}: trying a remedy")
                if control.get("dies") and part["number"] == 1:
                    write(folder, part, results, interrupted=False, finished=False)
                    os.kill(os.getpid(), signal.SIGKILL)
                results[-1] = with_remedy(folder, results[-1], host)
            tell(
                "lane",
                lane=cell["guest"],
                text=f"decided {cell['variant']}: {results[-1]['verdict']['status']}",
            )
    except Interrupted:
        interrupted = True
    write(folder, part, results, interrupted=interrupted)
    return int(control.get("status", 130 if interrupted else 0))


def has_image(part: dict[str, Any]) -> bool:
    """Whether the disk of the part's image is in the store of this host."""
    disk = part["image"]["files"]["disk.qcow2"]["sha256"]
    return any(digest(file) == disk for file in STORE.glob("[!.]*/disk.qcow2"))


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def prepare(guest: str, host: str, inputs: str, base: str) -> tuple[Path, dict[str, Any]]:
    """Store an image as the lab does that has prepared it; its folder and its manifest."""
    folder = STORE / f"prepared-{guest}-{inputs[:16]}"
    if not folder.exists():
        folder.mkdir()
        disk = folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
        with disk.open("ab") as stream:
            stream.write(host.encode())
        state = disk.stat()
        file = {"sha256": digest(disk), "size": state.st_size, "modified_ns": state.st_mtime_ns}
        made = {
            **{"guest": guest, "inputs": inputs, "base": base, "built": NOW, "seconds": 1.0},
            **{"disk_sha256": file["sha256"], "source": f"prepared on {host}", "files": {disk.name: file}},
        }
        (folder / "manifest.json").write_text(json.dumps(made))
    return folder, json.loads((folder / "manifest.json").read_text())


def name(cell: dict[str, Any]) -> str:
    return f"{cell['guest']}/{cell['variant']}/{cell['build']}"


def decide(folder: Path, cell: dict[str, Any], host: str, bulk: int, *, failed: bool) -> dict[str, Any]:
    evidence = folder / "cells" / name(cell) / "kernel.log"
    evidence.parent.mkdir(parents=True)
    evidence.write_text(f"{name(cell)} on {host}\n" + " " * bulk)
    history = {"lane": cell["guest"], "unfinished": failed}
    return row(cell, "fail" if failed else "pass", "") | {"history": history}


def with_remedy(folder: Path, result: dict[str, Any], host: str) -> dict[str, Any]:
    log = folder / "cells" / name(result) / "remedies" / "a" / "a.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"tried on {host}\n")
    trials = {"remedies": [{"name": "a", "result": "verified", "price": ""}]}
    return result | {"trials": trials, "history": result["history"] | {"unfinished": False}}


def row(cell: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    own = {key: cell[key] for key in ("guest", "variant", "build")}
    return {**own, "verdict": {"status": status, "reason": reason}, "expected": {"status": "pass"}}


def write(
    folder: Path, part: dict[str, Any], results: list[Any], *, interrupted: bool, finished: bool = True
) -> None:
    reason = "interrupted" if interrupted else "not reached yet"
    left = [row(cell, "not-run", reason) for cell in part["record"]["cells"][len(results) :]]
    guest, image = part["record"]["cells"][0]["guest"], part["image"]["files"]["disk.qcow2"]["sha256"]
    info = {
        **part["record"]["run"],
        "finished": NOW if finished else None,
        "interrupted": interrupted,
        "lanes": [{"guest": guest, "label": guest, "image": image, "fork": "memory", "seconds": {}}],
    }
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"schema": 3, "run": info, "cells": results + left}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[-1]))
