"""In place of `lab part`: decides each cell of a part at once, as its control file says.

`seconds`: how long each cell takes. `until`: a file that it waits for before it does anything. `refuse`: why
the part is refused. `status`: the exit status; `after`: how many cells are decided before that. `bulk`: how
large the evidence of a cell is, in bytes. `trials`: every suite fails, and it takes so many seconds to try a
remedy after it; with `dies`, it is killed at the first trial of the first part. `prepares`: the inputs and
the base of the image that it prepares for a part with a disk that is not prepared; on each host it is another
one. Ended by SIGINT, it keeps what it decided. It imports nothing of the lab, so that it starts quickly.
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


class Interrupted(Exception):
    """As by Ctrl-C."""


def interrupt(*_arguments: object) -> None:
    raise Interrupted


def tell(kind: str, lane: str = "", text: str = "", **more: Any) -> None:
    print(json.dumps({"kind": kind, "lane": lane, "text": text, **more}), flush=True)


def main(control_file: str, to: str) -> int:
    host = os.environ["LAB_HOST_NAME"]
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    control, folder = json.loads(Path(control_file).read_text()), Path(to)
    part = json.loads(sys.stdin.read())
    results: list[dict[str, Any]] = []
    interrupted = False
    try:
        if "until" in control:
            wait_for(Path(control["until"]), part["record"]["cells"][0]["guest"])
        if "refuse" in control:
            print(f"error: {control['refuse']}", file=sys.stderr)
            return 2
        if not has_image(part):
            print("the image of the part is not in the store", file=sys.stderr)
            return 3
        if "prepares" in control and not part["image"]["base"]:
            part["image"] = prepare(part["image"]["guest"], host, **control["prepares"])
            folder_there = Path(os.environ["LAB_HOME"], "cache", "images", prepared(part["image"]))
            tell("prepared", folder=str(folder_there), image=part["image"])
        for number, cell in enumerate(part["record"]["cells"]):
            what = f"{cell['variant']}: suite"
            tell("lane", cell["guest"], what, activity="suite", name=what)
            time.sleep(control.get("seconds", 0.0))
            if "status" in control and number == control.get("after", 0):
                break
            failed = "trials" in control
            results.append(decide(folder, cell, host, control.get("bulk", 0), failed=failed))
            if results[-1].get("unfinished"):
                tell("lane", cell["guest"], f"{cell['variant']}: trying a remedy")
                if control.get("dies") and part["number"] == 1:
                    write(folder, part, results, interrupted=False, finished=False)
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(control.get("trials", 0.0))
                results[-1] = with_remedy(folder, results[-1], host)
            tell("lane", cell["guest"], f"decided {cell['variant']}: {results[-1]['status']}")
    except Interrupted:
        interrupted = True
    write(folder, part, results, interrupted=interrupted)
    return int(control.get("status", 130 if interrupted else 0))


def has_image(part: dict[str, Any]) -> bool:
    """Whether all files of the part's image are together in the store of this host."""
    files = {name: file["sha256"] for name, file in part["image"]["files"].items()}
    store = Path(os.environ["LAB_HOME"], "cache", "images")
    return any(files.items() <= digests(file.parent).items() for file in store.glob("[!.]*/manifest.json"))


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def prepared(image: dict[str, Any]) -> str:
    return f"prepared-{image['guest']}-{image['inputs'][:16]}"


def prepare(guest: str, host: str, inputs: str, base: str) -> dict[str, Any]:
    """Store an image as the lab does that has prepared it, and return its manifest."""
    folder = Path(os.environ["LAB_HOME"], "cache", "images", prepared({"guest": guest, "inputs": inputs}))
    if not folder.exists():
        folder.mkdir()
        disk = folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
        with disk.open("ab") as stream:
            stream.write(host.encode())
        files = {
            file.name: {
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "size": file.stat().st_size,
                "modified_ns": file.stat().st_mtime_ns,
            }
            for file in [disk]
        }
        own = {"guest": guest, "inputs": inputs, "base": base, "built": NOW, "seconds": 1.0, "files": files}
        whole = {**own, "disk_sha256": files[disk.name]["sha256"], "source": f"prepared on {host}"}
        (folder / "manifest.json").write_text(json.dumps(whole))
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def wait_for(file: Path, lane: str) -> None:
    tell("lane", lane, "waiting")
    while not file.exists():
        time.sleep(0.02)


def name(cell: dict[str, Any]) -> str:
    return f"{cell['guest']}/{cell['variant']}/{cell['build']}"


def decide(folder: Path, cell: dict[str, Any], host: str, bulk: int, *, failed: bool) -> dict[str, Any]:
    evidence = folder / "cells" / name(cell) / "kernel.log"
    evidence.parent.mkdir(parents=True)
    evidence.write_text(f"{name(cell)} on {host}\n" + " " * bulk)
    made = {**row(cell, "fail" if failed else "pass", ""), "lane": cell["guest"]}
    return {**made, "unfinished": True} if failed else made


def with_remedy(folder: Path, result: dict[str, Any], host: str) -> dict[str, Any]:
    log = folder / "cells" / name(result) / "remedies" / "a" / "a.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"tried on {host}\n")
    made = {"remedies": [{"name": "a", "result": "verified", "price": ""}], "unfinished": False}
    return {**result, **made}


def row(cell: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    own = {key: cell[key] for key in ("guest", "variant", "build")}
    return {**own, "status": status, "expected": {"status": "pass"}, "reason": reason}


def write(
    folder: Path,
    part: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    interrupted: bool,
    finished: bool = True,
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
    (folder / "results.json").write_text(json.dumps({"schema": 2, "run": info, "cells": results + left}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[-1]))
