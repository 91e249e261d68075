"""A guest that plays a runner of GitHub's, with a real guest in one of the jobs that run there.

It is the guest of `host_guest.py` with what a runner has: systemd, an ordinary user with sudo, and AppArmor
with Ubuntu's restriction of user namespaces, imitated. In it `play_runner.py` runs the workflow before a
release, from the build to the publish. Nothing comes from a network.

The twin of Ubuntu 24.04 plays one, too, with the packages of Ubuntu's column in `hosts.table`: see
`test_runner_twin.py`.
"""

import json
import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lab import builds, catalog, plan
from lab.base.activity import UNWATCHED
from lab.base.architecture import X86_64
from lab.base.paths import Paths
from lab.catalog import Guest
from lab.catalog.knobs import AppArmor
from lab.gate import baseline
from lab.images.store import BaseImage
from lab.machine.domain import list_usual_arguments
from lab.record import RunResult
from lab.run import start
from tests.builders.facts import facts
from tests.builders.lab_without_guests import judge_as_expected
from tests.builders.runs import RELEASE
from tests.builders.workflows import render_build_workflow
from tests.vm import cloud_disk, host_guest, twins
from tests.vm.cloud_disk import Recipe
from tests.vm.host_guest import ROOT, Host
from tests.vm.play_runner import BUILT, CACHE, CLONE, GUEST, INPUTS, PLAYED, REPOSITORY, VARIANT, WHEELS

# What the program needs that runs workflows, and what the steps of a workflow call.
PROGRAMS = ("apparmor", "git", "python3-ruamel.yaml")
# What setup.sh chooses its packages by; the codename is what cloud-init reads.
SYSTEM = "ubuntu-24.04"
OS_RELEASE = """\
PRETTY_NAME="Ubuntu 24.04 LTS (its twin, of Debian's packages)"
NAME="Ubuntu"
ID=ubuntu
ID_LIKE=debian
VERSION_ID="24.04"
VERSION_CODENAME=noble"""
# As of KVM; emulated, it is at least ten times that.
STEP_SECONDS = 100.0
# What steps of the action write their outputs to.
OUTPUT = "/var/tmp/output"
# The folder of the action in the shard's job, with the libraries that setup.sh installed there.
PLAYED_ACTION = f"{PLAYED}/kept-1-action"
# Of the catalogue: Ubuntu's restriction of user namespaces, imitated for bubblewrap and unshare.
RESTRICTION = "apparmor-userns-nocaps"
EIGHT = '["1/8", "2/8", "3/8", "4/8", "5/8", "6/8", "7/8", "8/8"]'


def recipe() -> Recipe:
    """The twin's disk, for a guest that plays a runner.

    Its kernel is told what the kernels of all guests are: without that its machine ended both times that a
    guest ran under its KVM.
    """
    noble = twins.NOBLE.recipe
    packages = {*noble.packages, *host_guest.list_packages(SYSTEM), *PROGRAMS}
    settings = {
        **noble.settings,
        "TWIN_OS_RELEASE": OS_RELEASE,
        "TWIN_ARGUMENTS": " ".join(("panic=-1", *list_usual_arguments(X86_64))),
    }
    return replace(noble, packages=tuple(sorted(packages)), settings=settings)


def definition() -> Guest:
    host = host_guest.definition()
    assert isinstance(host.image, catalog.DebianImage)
    image = host.image.model_copy(update={"packages": sorted({*host.image.packages, *PROGRAMS})})
    return host.model_copy(
        update={"name": "runner", "title": "A runner of GitHub's, as a guest", "image": image}
    )


def define_twin() -> Guest:
    ubuntu = catalog.load_catalog().guest(SYSTEM)
    return ubuntu.model_copy(
        update={
            "name": "runner-twin",
            "title": "A twin of Ubuntu 24.04 that plays a runner of GitHub's",
            "image": ubuntu.image.model_copy(update={"disk_gib": host_guest.DISK_GIB}),
            "cpus": host_guest.PROCESSORS,
            "memory_mib": host_guest.MEMORY_MIB,
        }
    )


def ensure_twin(paths: Paths) -> BaseImage:
    """The twin's disk, built where the cache has none."""
    return cloud_disk.ensure(paths, recipe()).as_image("runner-twin", recipe().digest)


def write_repository(folder: Path, scratch: Path) -> None:
    """Upstream's repository with the workflow before a release, for one cell, and the baseline of its gate."""
    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)
    text = (ROOT / "docs" / "examples" / "before-a-release.yml").read_text()
    assert EIGHT in text
    lines = [f"          {key}: {json.dumps(value)}\n" for key, value in INPUTS.items()]
    assert "          set: ci\n" in text
    text = text.replace(EIGHT, '["1/1"]').replace("          set: ci\n", "".join(lines))
    (workflows / "before-a-release.yml").write_text(text)
    (workflows / "build-wheels.yml").write_text(render_build_workflow("wheels-linux"))
    made = folder / "compatibility"
    made.mkdir()
    (made / "expected.toml").write_text("")
    cells = plan.choose_cells(catalog.load_catalog(), guests=[GUEST], variants=[VARIANT]).cells([RELEASE])
    begun = start.begin_run(scratch / "run", cells, command="lab matrix", options=plan.DEFAULT_OPTIONS)
    (scratch / "run").mkdir()
    RunResult(run=begun.info, cells=[judge_as_expected(cell) for cell in cells]).write(scratch / "run")
    baseline.write_baseline(baseline.read_side(scratch, "run"), made / "baseline.toml")


def move_in(host: Host, paths: Paths, image: BaseImage, wheels: Path, repository: Path, built: Path) -> None:
    """Give the guest the lab with its libraries, upstream's repository, an image and a release's wheel.

    What a guest in it needs beside that wheel is fetched first, because nothing can be fetched there.
    """
    builds.resolve_build(str(built)).fetch(paths, facts(), UNWATCHED)

    def cache(archive: tarfile.TarFile) -> None:
        archive.add(image.folder, f"0/{image.folder.name}")
        for folder in (paths.cache / "wheels").iterdir():
            if folder.is_dir():
                archive.add(folder, f"1/{folder.name}")

    bring_lab(host, wheels)
    host.put(lambda archive: archive.add(repository, "."), REPOSITORY)
    host.put(lambda archive: archive.add(built, built.name), BUILT)
    host.put(cache, CACHE)


def bring_lab(host: Host, wheels: Path) -> None:
    """Give the guest the lab with its libraries, and restrict user namespaces."""

    def clone(archive: tarfile.TarFile) -> None:
        for name in host_guest.list_clone():
            archive.add(ROOT / name, name)

    host.put(clone, CLONE)
    restrict(host)
    host.put(lambda archive: archive.add(wheels, "."), WHEELS)


def restrict(host: Host) -> None:
    """Load the profiles that imitate Ubuntu's restriction of user namespaces, as the lab does in its guests."""
    restriction = catalog.load_catalog().variant(RESTRICTION).knobs["apparmor"]
    assert isinstance(restriction, AppArmor)
    for profile in restriction.profiles:
        host.run(f"apparmor_parser -r <<'END'\n{profile.text}\nEND")


def make_sandbox(host: Host) -> subprocess.CompletedProcess[str]:
    """Start bubblewrap as the runner's user."""
    return host.run("bwrap --unshare-user --ro-bind / / true", who="lab", check=False)


def run_step(host: Host, action: str, step: str, inputs: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program of the action's as a step of a job does, as the runner's user; `action` is its folder."""
    names = re.findall(r"\bLAB_[A-Z_]+(?=: \$)", (ROOT / "action.yml").read_text())
    given = {**dict.fromkeys(names, ""), **inputs}
    given |= {"GITHUB_ACTION_PATH": action, "GITHUB_WORKSPACE": "/var/tmp", "RUNNER_TEMP": "/var/tmp"}
    given |= {"GITHUB_OUTPUT": OUTPUT, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
    words = shlex.join(["env", *(f"{name}={value}" for name, value in given.items())])
    return host.run(f"{words} {action}/.ci/action {step}", who="lab", seconds=STEP_SECONDS, check=False)


def list_program(host: Host, action: str) -> subprocess.CompletedProcess[str]:
    """The action's step that runs cells, as a job with a program for its build has it, but only lists them.

    The program is asked for its version, and prints one.
    """
    program = "#!/bin/sh\necho boxlite 0.10.8\n"
    host.run(f"install -m 755 /dev/stdin /opt/boxlite <<'END'\n{program}END")
    inputs = {
        "LAB_BUILD": "cli:/opt/boxlite",
        "LAB_GUESTS": GUEST,
        "LAB_VARIANTS": "stock",
        "LAB_ARGUMENTS": "--list",
    }
    return run_step(host, action, "run", inputs)
