"""What the guest of `runner.py` runs, as its ordinary user: the workflow that builds wheels and asks the gate.

    python3 -m tests.vm.play_runner FOLDER

Writes two files into the folder: `results.json` has what became of each job and step, and the artifacts,
`printed` what the steps printed. The cache has an image and a release's wheels already, under the key that the
action finds.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.builders.workflows import Hub, WorkflowRun, read_yaml

# Where the guest has what it was given.
CLONE, WHEELS, REPOSITORY, CACHE, BUILT = (
    f"/opt/{name}" for name in ("boxlite-lab", "wheels", "repository", "cache", "built")
)
# Where it writes.
PLAYED = "/var/tmp/play"
# The one cell of the plan, and the inputs of the action that choose it. No box starts in it: its machine would
# be a third one within the other, and with that the kernel of the emulated runner panicked.
GUEST, VARIANT = "debian-13", "kvm-denied"
INPUTS = {"guests": GUEST, "variants": VARIANT, "remedies": "false", "arguments": "--no-experiment"}
# The artifact of the shard, the job that waits for it, and what a cell is that no guest decided.
SHARD, GATE = "shard-0", "compatibility/gate"
UNJUDGED = ("error", "not-run")


def find_key(folder: Path) -> str:
    """The key of the cache, from the action's own program."""
    output = folder / "key"
    environment = {
        **os.environ,
        "GITHUB_ACTION_PATH": CLONE,
        "GITHUB_WORKSPACE": str(folder),
        "GITHUB_OUTPUT": str(output),
        **{"LAB_SET": "quick", "LAB_SHARD": "1/1", "LAB_GUESTS": GUEST, "LAB_ARGUMENTS": INPUTS["arguments"]},
    }
    subprocess.run([f"{CLONE}/.ci/action", "key"], env=environment, check=True)
    return dict(line.split("=", 1) for line in output.read_text().splitlines())["key"]


def find_unjudged(run: WorkflowRun) -> str:
    """Why the shard's cell was not judged; empty if it was."""
    if not (shard := run.artifacts.get(SHARD)):
        return "it left no run"
    cells = json.loads((shard / "results.json").read_text())["cells"]
    unjudged = [cell["verdict"] for cell in cells if cell["verdict"]["status"] in UNJUDGED]
    return "; ".join(f"{verdict['status']}: {verdict['reason']}" for verdict in unjudged)


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    programs = folder / "programs"
    programs.mkdir(parents=True)
    make = programs / "make"
    make.write_text(f"#!/bin/sh\nmkdir wheelhouse\ncp {BUILT}/*.whl wheelhouse\n")
    make.chmod(0o755)
    # A runner's user has a session of systemd's. pip's cache saves the second job what the first compiled.
    kept = {name: os.environ[name] for name in ("XDG_RUNTIME_DIR", "USER") if name in os.environ}
    variables = {**kept, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIP_CACHE_DIR": str(folder / "pip")}
    hub = Hub(
        Path(REPOSITORY),
        Path(CLONE),
        folder / "machine",
        programs,
        variables=variables,
        caches={find_key(folder): Path(CACHE)},
    )
    run = WorkflowRun(hub)

    def end_without_shard(job: str) -> bool:
        # The gate would boot the guest again, and first build its image: its job has no cache, and there is no
        # network.
        if job == GATE and (problem := find_unjudged(run)):
            raise SystemExit(f"the shard judged no cell: {problem}")
        return False

    hub.loses = end_without_shard
    try:
        run.run_jobs(read_yaml(Path(REPOSITORY) / ".github" / "workflows" / "build-wheels.yml"))
    finally:
        # Also if its time is up.
        (folder / "printed").write_text(run.show())
    steps = [[step.job, step.name, step.result] for step in run.steps]
    artifacts = {name: str(path) for name, path in run.artifacts.items()}
    found = {"jobs": run.results, "steps": steps, "artifacts": artifacts, "summaries": run.summaries}
    (folder / "results.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
