"""The workflow before a release on a guest that plays a runner of GitHub's, with a real guest in its shard.

The runner is emulated, so what boots in it takes at least ten times as long as on a runner, with KVM or not.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import builds
from lab.base.activity import UNWATCHED
from lab.base.paths import Paths
from lab.images.store import BaseImage
from tests.builders.facts import facts
from tests.vm import host_guest, runner
from tests.vm.conftest import RELEASE
from tests.vm.play_runner import CLONE, PLAYED

pytestmark = [pytest.mark.runner, pytest.mark.timeout(4800)]

# Of the runner's own time: the rest is for its boot, and for what it is given.
PLAY_SECONDS = 4000


@pytest.fixture(scope="module")
def played(
    paths: Paths, image: BaseImage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the program in the runner wrote of the workflow, and what came after it.

    `run` is the record of the gate's run. `listed` is the action's step with a program for its build, `refused`
    and `allowed` a sandbox before and after it.
    """
    folder = tmp_path_factory.mktemp("runner")
    host_guest.download_wheels(folder / "wheels")
    runner.write_repository(folder / "repository", folder)
    release = builds.resolve_build(RELEASE).fetch(paths, facts(), UNWATCHED)
    [built] = [file for name, file in release.items() if name.startswith("boxlite-")]
    with host_guest.host(paths, runner.definition(), UNWATCHED) as host:
        runner.move_in(host, paths, image, folder / "wheels", folder / "repository", built)
        # As on a runner: KVM is there, and its user may not open it.
        assert host.run("test -w /dev/kvm", who="lab", check=False).returncode
        command = f"cd {CLONE} && timeout -s INT {PLAY_SECONDS} python3 -m tests.vm.play_runner {PLAYED}"
        ended = host.run(command, who="lab", seconds=PLAY_SECONDS / 10, check=False)
        printed = host.run(f"cat {PLAYED}/printed", check=False).stdout
        (folder / "printed").write_text(printed)
        assert ended.returncode == 0, ended.stdout + printed
        found = json.loads(host.run(f"cat {PLAYED}/results.json").stdout)
        assert found["artifacts"].get("run"), f"{found['jobs']}\n{printed}"
        found["run"] = json.loads(host.run(f"cat {found['artifacts']['run']}/results.json").stdout)
        found["printed"] = printed
        found["refused"] = runner.make_sandbox(host)
        found["listed"] = runner.list_program(host, runner.PLAYED_ACTION)
        found["allowed"] = runner.make_sandbox(host)
        yield found


def test_the_wheels_are_published_after_a_real_guest_ran_and_the_gate_passed(played: dict[str, Any]) -> None:
    assert played["jobs"] == {
        "build_wheels": "success",
        "compatibility/shard": "success",
        "compatibility/gate": "success",
        "compatibility": "success",
        "publish": "success",
    }, played["printed"]
    assert "# gate passed" in played["summaries"]
    [cell] = played["run"]["cells"]
    verdict = cell["verdict"]
    assert (verdict["status"], verdict["cause"]) == ("xfail", "kvm-denied")
    # The action gave its user KVM, and the cache its image.
    assert ["compatibility/shard-0", "Make KVM usable", "success"] in played["steps"]
    assert "Cache not found" not in played["printed"]


def test_a_program_under_test_gets_its_sandbox_where_user_namespaces_are_restricted(
    played: dict[str, Any],
) -> None:
    refused, listed, allowed = (played[name] for name in ("refused", "listed", "allowed"))
    assert refused.returncode
    assert "bwrap: " in refused.stdout
    assert listed.returncode == 0, listed.stdout
    # The lab says what it would run with the program, so it has its version.
    assert "bwrap-profile: " in listed.stdout
    assert "lab matrix -g debian-13 -v stock --build cli:/opt/boxlite" in listed.stdout
    assert allowed.returncode == 0, allowed.stdout
