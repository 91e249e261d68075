"""Building with a stand-in for mmdebstrap: how the lab calls it and handles its result."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lab import catalog
from lab.base import process
from lab.base.activity import UNWATCHED, CancelToken, Task
from lab.base.errors import ImageNotAvailable, LabError, UserCannotBuild
from lab.base.paths import Paths, find_definitions
from lab.catalog import DebianImage
from lab.catalog.debian_packages import UnitGroup, load_debian_packages
from lab.images import debian, store
from tests.builders.facts import executable
from tests.builders.guests import task_to

KNOWN = catalog.load_catalog()

WORKS = """
echo "$@ selinux=$LAB_SELINUX masked=$LAB_MASKED $(readlink /proc/self/ns/mnt)" >"$ASKED"
echo "I: running apt-get update..."
echo "I: downloading packages with apt..."
echo "done"
echo "I: running --customize-hook directly: debian.sh"
mkdir "$TMPDIR/made"
cd "$TMPDIR/made"
for file in disk.qcow2 vmlinuz initrd packages.tsv; do echo "$file of $LAB_DISK_SIZE" >"$file"; done
mkdir "$TMPDIR/mmdebstrap.abc"
"""
DISK_FULL = """
echo half >"$TMPDIR/disk.qcow2"
echo "cp: error writing '$TMPDIR/initrd': No space left on device" >&2
echo "E: run_customize failed" >&2
exit 25
"""
NO_MIRROR = """
echo "E: apt-get update failed: Temporary failure resolving the mirror" >&2
exit 2
"""
# Its child ignores that its parent is told to end, and says who it is.
HANGS = """
setsid sh -c 'trap "" TERM; echo $$ >"$ASKED"; while :; do sleep 1; done' &
wait
"""
NO_KEYS = """
echo "W: GPG error: trixie InRelease: signatures could not be verified: NO_PUBKEY 6ED0E7B82643E131" >&2
exit 100
"""
# Its words where the kernel was not told what runs programs of arm64 (binfmt_misc).
NO_EMULATION = """
echo "W: qemu-aarch64 is not a supported binfmt name" >&2
echo "E: arm64 can neither be executed natively nor via qemu user emulation with binfmt_misc" >&2
exit 1
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "ON_DISK", tmp_path)
    monkeypatch.setattr(debian, "IN_MEMORY", tmp_path / "no-memory")


def install(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called mmdebstrap on the PATH, before the real one."""
    executable(tmp_path / "bin/mmdebstrap", f"#!/bin/sh\n{program}")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))


def image_of(guest: str) -> DebianImage:
    image = KNOWN.guest(guest).image
    assert isinstance(image, DebianImage)
    return image


def test_a_build_says_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(WORKS, tmp_path, monkeypatch)
    out = tmp_path / "out"
    out.mkdir()
    stages: list[str] = []
    debian.build_image(image_of("debian-13"), out, task_to(stages), timeout=60)
    assert stages == ["fetching package lists", "downloading packages", "making the disk"]
    assert {file.name for file in out.iterdir()} == set(debian.FILES)
    assert (out / "vmlinuz").read_text() == "vmlinuz of 6G\n"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], Path]:
    """Gives the host a folder in memory with so many free GiB and such flags, and so many GiB in all."""

    def give(room: int, flags: int, free: int) -> Path:
        folder = tmp_path / "memory"
        folder.mkdir()
        place = SimpleNamespace(f_flag=flags, f_bavail=room, f_frsize=2**30)
        monkeypatch.setattr(debian, "IN_MEMORY", folder)
        monkeypatch.setattr(debian, "start_with_own_mounts", lambda: ["env"])
        monkeypatch.setattr(os, "statvfs", lambda _: place)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free * 2**30))
        return folder

    return give


@pytest.mark.parametrize(
    ("room", "flags", "free", "is_used"),
    [(4, 0, 12, True), (3, 0, 12, False), (4, 0, 11, False), (4, os.ST_NOEXEC, 12, False)],
)
def test_a_guest_is_built_in_memory_if_there_is_room(
    room: int,
    flags: int,
    free: int,
    is_used: bool,
    memory: Callable[[int, int, int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, out = memory(room, flags, free), tmp_path / "out"
    out.mkdir()
    install(f'echo "$TMPDIR" >"$ASKED.place"\n{WORKS}', tmp_path, monkeypatch)
    debian.build_image(image_of("debian-13"), out, UNWATCHED, timeout=60)
    assert (Path((tmp_path / "asked.place").read_text().strip()).parent == folder) is is_used
    assert {file.name for file in out.iterdir()} == set(debian.FILES)
    assert list(folder.iterdir()) == []


def test_a_folder_in_memory_that_this_user_may_not_write_to_is_not_used(
    memory: Callable[[int, int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, closed = memory(4, 0, 12), set[Path]()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.W_OK | os.X_OK and path not in closed)
    assert debian.has_memory()
    closed.add(folder)
    assert not debian.has_memory()


def test_two_guests_at_a_time_are_built_in_memory(
    memory: Callable[[int, int, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = memory(4, 0, 12)
    all_begun = 'until [ "$(wc -l <"$ASKED.places")" -ge 4 ]; do sleep 0.05; done'
    install(f'echo "$TMPDIR" >>"$ASKED.places"; {all_begun}\n{WORKS}', tmp_path, monkeypatch)

    def build(name: str) -> None:
        (tmp_path / name).mkdir()
        debian.build_image(image_of("debian-13"), tmp_path / name, UNWATCHED, timeout=60)

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, "abcd"))
    build("e")  # Their places are free again.
    places = [Path(line).parent == folder for line in (tmp_path / "asked.places").read_text().split()]
    assert (places[:4].count(True), places[4:]) == (2, [True])


@pytest.mark.parametrize("meets", ['rm -r "$TMPDIR"/recipes; exit 25', DISK_FULL], ids=["logout", "full"])
def test_a_build_in_memory_that_lost_its_files_or_its_room_begins_again_on_disk(
    meets: str, memory: Callable[[int, int, int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd removes a user's files when the last session ends, and others may fill the memory."""
    folder, out = memory(4, 0, 12), tmp_path / "out"
    out.mkdir()
    install(f'case "$TMPDIR" in {folder}/*) {meets} ;; esac\n{WORKS}', tmp_path, monkeypatch)
    debian.build_image(image_of("debian-13"), out, UNWATCHED, timeout=60)
    assert {file.name for file in out.iterdir()} == set(debian.FILES)
    install(f"echo run >>$ASKED; {NO_MIRROR}", tmp_path, monkeypatch)
    (tmp_path / "asked").unlink()
    with pytest.raises(LabError, match="apt-get update failed"):
        debian.build_image(image_of("debian-13"), out, UNWATCHED, timeout=60)
    assert (tmp_path / "asked").read_text() == "run\n"


def test_root_without_mounts_of_its_own_builds_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel opens none of the devices that mmdebstrap would make in memory."""
    monkeypatch.setattr(debian, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(debian, "ROOM", 0)
    monkeypatch.setattr(debian, "start_with_own_mounts", list)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not debian.has_memory()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert debian.has_memory()


def test_a_build_that_is_not_wanted_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(WORKS, tmp_path, monkeypatch)
    out, token = tmp_path / "out", CancelToken()
    out.mkdir()
    token.cancel()
    with pytest.raises(LabError, match=r"^interrupted$"):
        debian.build_image(image_of("debian-13"), out, Task(check=token.check), timeout=60)
    assert list(out.iterdir()) == []


def test_a_recipe_in_a_closed_home_is_run_by_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user's mmdebstrap is a subordinate user, and the homes of new users are closed to others."""
    home = tmp_path / "home"
    shutil.copytree(find_definitions() / "images" / "recipes", home / "recipes")
    for path in (*home.rglob("*"), home):
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.setattr(debian, "find_recipes", lambda: home / "recipes")
    # What another user may do with each file on the way to the hook's recipe.
    install(f'(cd "$TMPDIR" && stat -c "%n %A" recipes/*) >"$ASKED.modes"; {WORKS}', tmp_path, monkeypatch)
    out = tmp_path / "out"
    out.mkdir()
    debian.build_image(image_of("debian-13"), out, UNWATCHED, timeout=60)
    modes = dict(line.split() for line in (tmp_path / "asked.modes").read_text().splitlines())
    assert {modes[f"recipes/{name}"][-3:] for name in (debian.RECIPE, debian.KERNEL_RECIPE, "apparmor")} == {
        "r-x"
    }
    assert str(home) not in (tmp_path / "asked").read_text()


def call_for(guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """How mmdebstrap is called for a guest: its arguments, the policy to label by, its namespace of mounts."""
    install(WORKS, tmp_path, monkeypatch)
    debian.build_image(
        image_of(guest), tmp_path, UNWATCHED, timeout=60, architecture=KNOWN.guest(guest).architecture
    )
    return (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("guest", "present", "absent"),
    [
        ("debian-12", [" bookworm ", ",bubblewrap,"], []),
        # No other package of forky and newer needs `mount`, and without it systemd mounts nothing.
        ("debian-sid", [" sid ", ",mount,", "--aptopt=Acquire::Check-Valid-Until false"], []),
        ("debian-13-backports", [" trixie ", ",linux-image-cloud-amd64/trixie-backports,"], []),
        # A stable suite is built from all archives.
        ("debian-13", ["--mode=root ", " trixie ", " selinux= "], ["security", "Valid-Until"]),
        ("debian-13-selinux", [" selinux=default "], []),
        ("debian-13-arm64", ["--architectures=arm64 ", ",linux-image-cloud-arm64,"], ["amd64"]),
    ],
)
def test_the_suite_and_the_packages_are_those_of_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest: str, present: list[str], absent: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    call = call_for(guest, tmp_path, monkeypatch)
    assert [words for words in present if words not in call] == []
    assert [words for words in absent if words in call] == []


def test_packages_and_masked_units_of_the_table_reach_mmdebstrap_and_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load_debian_packages()
    call = call_for("debian-13", tmp_path, monkeypatch)
    included = call.partition("--include=")[2].split()[0].split(",")
    assert set(included) == {*table.list_installed("trixie"), "linux-image-cloud-amd64"}
    assert "libpam-systemd" in included and "rsyslog" not in included
    assert f" masked={' '.join(table.list_masked())} " in call
    image = image_of("debian-13")
    inputs = debian.collect_debian_inputs(image)
    masked = [*table.masked, UnitGroup(units=["cron.service"], reason="a test")]
    monkeypatch.setattr(debian, "load_debian_packages", lambda: table.model_copy(update={"masked": masked}))
    assert debian.collect_debian_inputs(image) != inputs


def test_mmdebstrap_is_told_debian_s_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.gpg"
    monkeypatch.setattr(debian, "KEYRING", keys)
    # It refuses to start with a keyring that does not exist.
    assert "--keyring" not in call_for("debian-13", tmp_path, monkeypatch)
    keys.touch()
    assert f"--keyring={keys}" in call_for("debian-13", tmp_path, monkeypatch)


def test_a_suite_may_lack_its_security_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = call_for("debian-11", tmp_path, monkeypatch).partition("--setup-hook=")[2].partition(" --")[0]
    sources = tmp_path / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(
        "deb mirror bullseye main\ndeb mirror bullseye-updates main\ndeb other bullseye-security main\n"
    )
    subprocess.run(["sh", "-c", hook, "sh", tmp_path], check=True)
    assert sources.read_text() == "deb mirror bullseye main\ndeb mirror bullseye-updates main\n"


@pytest.mark.parametrize("may_unshare", [True, False])
def test_mounts_are_the_build_s_own_where_that_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_unshare: bool
) -> None:
    if may_unshare:
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            pytest.skip("this user may not make a namespace of mounts")
    else:
        executable(tmp_path / "bin/unshare", "#!/bin/sh\necho not permitted >&2\nexit 1\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    own = f" {Path('/proc/self/ns/mnt').readlink()}\n"
    assert call_for("debian-13", tmp_path, monkeypatch).endswith(own) != may_unshare


def test_only_root_sets_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(WORKS, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserCannotBuild, match="only root can set SELinux labels") as error:
        debian.build_image(image_of("debian-13-selinux"), tmp_path, UNWATCHED, timeout=60)
    assert "as root" in (error.value.hint or "")
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("program", "message", "hint"),
    [
        (DISK_FULL, "the disk filled up while building trixie; the partial image", "free some disk space"),
        (NO_KEYS, "NO_PUBKEY 6ED0E7B82643E131", "debian-archive-keyring"),
        (NO_MIRROR, "Temporary failure resolving the mirror", "mirror reachable?"),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str, hint: str
) -> None:
    install(program, tmp_path, monkeypatch)
    with pytest.raises(LabError) as error:
        store.ensure_image(paths, KNOWN.guest("debian-13"), UNWATCHED)
    assert message in str(error.value)
    assert hint in (error.value.hint or "")
    assert [entry for entry in paths.images.iterdir() if entry.is_dir()] == []


def test_a_host_that_runs_no_programs_of_the_guest_s_architecture_is_told_what_does(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(NO_EMULATION, tmp_path, monkeypatch)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(ImageNotAvailable, match="this host runs no programs of arm64, so") as error:
        store.ensure_image(paths, KNOWN.guest("debian-12-arm64"), UNWATCHED)
    assert "./setup.sh --with=arm64 doctor" in (error.value.hint or "")
    assert [entry for entry in paths.images.iterdir() if entry.is_dir()] == []


def test_a_build_s_processes_end_before_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(HANGS, tmp_path, monkeypatch)
    monkeypatch.setattr(process, "GRACE_SECONDS", 1.0)
    removed: list[str] = []

    def remove(_workspace: Path) -> None:
        try:
            removed.append(psutil.Process(int((tmp_path / "asked").read_text())).status())
        except psutil.NoSuchProcess:
            removed.append("ended")

    monkeypatch.setattr(debian, "remove_workspace", remove)
    with pytest.raises(LabError, match="stopped after 3 s"):
        debian.build_image(image_of("debian-13"), tmp_path, UNWATCHED, timeout=3)
    assert removed in (["ended"], [psutil.STATUS_ZOMBIE])


@pytest.mark.parametrize("is_there", [False, True])
def test_the_recipe_s_files_are_secret(is_there: bool, tmp_path: Path) -> None:
    script = '#!/bin/sh\necho made >"$(dirname "$1")/disk.qcow2"; cat "$1/tree"\n'
    executable(tmp_path / "workspace" / debian.RECIPES / debian.RECIPE, script)
    [hook] = [word for word in map(str, debian.build_command(image_of("debian-13"))) if "customize" in word]
    tree = tmp_path / "workspace" / "mmdebstrap.abc"
    tree.mkdir()
    (tree / "tree").write_text("the guest's")
    made = tree.parent / "made"
    if is_there:  # Another user of the host was there first.
        made.mkdir()
    ran = subprocess.run(
        ["sh", "-c", hook.partition("=")[2], "hook", tree], capture_output=True, text=True, check=False
    )
    assert (ran.returncode == 0, ran.stdout) == ((False, "") if is_there else (True, "the guest's"))
    if not is_there:
        assert made.stat().st_mode & 0o777 == 0o755
        assert (made / "disk.qcow2").read_text() == "made\n"


def test_files_of_subordinate_users_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in /var/tmp, where only a folder's owner may remove it.
    install('shift; "$@"; test -d "$WORKSPACE" || exit 25', tmp_path, monkeypatch)
    workspace = tmp_path / "workspace"
    monkeypatch.setenv("WORKSPACE", str(workspace))
    (workspace / "of-the-subordinate").mkdir(parents=True)
    (workspace / "of-the-subordinate" / "file").touch()
    really = shutil.rmtree

    def only_what_is_ours(folder: Path, *, ignore_errors: bool = False) -> None:
        if (workspace / "of-the-subordinate").exists():
            assert ignore_errors
        else:
            really(folder)

    monkeypatch.setattr(shutil, "rmtree", only_what_is_ours)
    debian.remove_workspace(workspace)
    assert not workspace.exists()


def test_recipe_and_mediation_are_part_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(find_definitions() / "images" / "recipes", tmp_path / "recipes")
    recipe = tmp_path / "recipes" / "debian.sh"
    monkeypatch.setattr(debian, "find_recipes", lambda: recipe.parent)
    image = image_of("debian-13")
    seen = {debian.collect_debian_inputs(image)}
    recipe.write_text("#!/bin/sh\n# better\n")
    seen.add(debian.collect_debian_inputs(image))
    mediated = sorted((tmp_path / "recipes" / "apparmor").iterdir())
    for file in mediated:
        text = file.read_text()
        # As apparmor_parser reads it: what is mediated, nested in braces.
        assert text.startswith("capability {0xffffff\n")
        assert text.count("{") == text.count("}")
        file.write_text(text.replace("0xffffff", "0x0"))
        seen.add(debian.collect_debian_inputs(image))
    assert len(seen) == 2 + len(mediated)
