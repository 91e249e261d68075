"""setup.sh: what it would do on each host, by its dry run. Nothing is installed or started."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import catalog
from lab.base import host_table
from lab.base.paths import PACKAGE
from tests.builders.facts import executable

ROOT = PACKAGE.parent
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
# Programs that would change the host, and some that would ask what is installed there.
CHANGING = (
    "sudo",
    "apt-get",
    "dnf",
    "usermod",
    "systemctl",
    "virtlogd",
    "libvirtd",
    "virtqemud",
    "dpkg-query",
    "rpm",
)
RELEASES = {
    "debian-13": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n',
    "ubuntu-24.04": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
    "ubuntu-26.04": 'PRETTY_NAME="Ubuntu 26.04 LTS"\nVERSION_ID="26.04"\nID=ubuntu\nID_LIKE=debian\n',
    "fedora-43": 'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43 (Cloud Edition)"\n',
    "fedora-44": 'ID=fedora\nVERSION_ID=44\nPRETTY_NAME="Fedora Linux 44 (Cloud Edition)"\n',
}
COLUMNS = {column["host"]: column for column in host_table.columns()}


def packages_of(host: str, *kinds: str) -> str:
    """The packages of these kinds of rows, in the order in which setup.sh names them."""
    rows = COLUMNS[host].items()
    return " ".join(text for kind in kinds for what, text in rows if what.startswith(kind) and text)


APT_INSTALL = "env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends"
DNF_INSTALL = "dnf install -y --setopt=install_weak_deps=False"

each_host = pytest.mark.parametrize("host", list(RELEASES))


def dry_run(
    tmp_path: Path, release: str, *arguments: str, user: int | None = None, machine: str = "x86_64"
) -> subprocess.CompletedProcess[str]:
    """Run setup.sh dry for a host with this os-release, as root or as an ordinary user; nothing may be run."""
    file, folder = tmp_path / "os-release", tmp_path / "bin"
    file.write_text(release)
    folder.mkdir(exist_ok=True)
    for name in CHANGING:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/changed\nexit 1\n")
        program.chmod(0o755)
    executable(folder / "uname", f"#!/bin/sh\necho {machine}\n")
    identity = folder / "id"
    identity.write_text(f'#!/bin/sh\n[ "$1" = -un ] && echo someone || echo {0 if user is None else user}\n')
    identity.chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = ["sh", str(ROOT / "setup.sh"), f"--dry-run={file}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not (tmp_path / "changed").exists()
    return done


def commands(printed: str) -> list[str]:
    return [line.removeprefix("would run: ") for line in printed.splitlines() if line.startswith("would run: ")]


@each_host
def test_a_bare_host_gets_its_packages_its_libraries_and_its_daemons(tmp_path: Path, host: str) -> None:
    done = dry_run(tmp_path, RELEASES[host], "doctor", "--json")
    fedora = host.startswith("fedora")
    pip = ".venv/bin/python -m pip --disable-pip-version-check install --quiet"
    assert commands(done.stdout) == [
        *([] if fedora else ["apt-get -qq update"]),
        f"{DNF_INSTALL if fedora else APT_INSTALL} {packages_of(host, 'package.', 'amd64.')}",
        f"systemctl start {'virtlogd.socket virtqemud.socket' if fedora else 'libvirtd.service'}",
        "/usr/bin/python3 -m venv --clear .venv",
        f"{pip} --require-hashes -r requirements/build.txt",
        f"{pip} --require-hashes --no-compile --no-build-isolation -r requirements/lab.txt",
        f"{pip} --no-deps --no-build-isolation --editable .",
        ".venv/bin/lab doctor --json",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    name = f"{host.partition('-')[0].title()} {host.partition('-')[2]}"
    assert done.stdout.startswith(f"dry run for {name}, a bare one: nothing is changed\n")
    account = "account qemu, confined by selinux; UEFI firmware /usr/share/edk2/ovmf/OVMF_CODE_4M.qcow2"
    other = "account libvirt-qemu, confined by apparmor; UEFI firmware /usr/share/OVMF/OVMF_CODE_4M.fd"
    assert f"QEMU of the system daemon: {account if fedora else other}\n" in done.stdout


@each_host
@pytest.mark.parametrize("user", [None, 1000])
@pytest.mark.parametrize("words", ["merge a b -o c", "gate a --against b", "repro - --text-only"])
def test_who_reads_results_gets_no_machines(tmp_path: Path, host: str, user: int | None, words: str) -> None:
    told = commands(dry_run(tmp_path, RELEASES[host], *words.split(), user=user).stdout)
    packages = [word for line in told if " install " in line and "pip" not in line for word in line.split()]
    expected = packages_of(host, "package.venv", "package.trust").split()
    assert packages[-len(expected) :] == expected
    assert not {"qemu-utils", "qemu-img", "libvirt-clients", "libvirt-client"} & set(packages)
    assert not any(line.startswith(("systemctl", "sudo systemctl", "sudo usermod")) for line in told)
    assert any(line.endswith(" -r requirements/read.txt") for line in told)
    assert told[-1] == f".venv/bin/lab {words}"


def test_a_dry_run_may_come_before_python(tmp_path: Path) -> None:
    """As on a bare machine, which has none yet; tests/bare/ has such machines."""
    for name in ("images", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "lab/base").mkdir(parents=True)
    for name in ("lab/base/hosts.table", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = (ROOT / "setup.sh").read_text().replace("/usr/bin/python3", f"{tmp_path}/none/python3")
    (tmp_path / "setup.sh").write_text(text)
    command = ["sh", str(tmp_path / "setup.sh"), "--dry-run", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, commands(done.stdout)[-1:]) == (0, [".venv/bin/lab check"]), done.stderr


@each_host
def test_an_ordinary_user_gets_subordinate_ids_and_no_system_daemon(tmp_path: Path, host: str) -> None:
    told = commands(dry_run(tmp_path, RELEASES[host], "doctor", user=1000).stdout)
    assert any(line.startswith("sudo ") and line.endswith((" uidmap", " shadow-utils")) for line in told)
    assert "sudo usermod --add-subuids 100000-165535 someone" in told
    assert "sudo usermod --add-subgids 100000-165535 someone" in told
    assert not any("systemctl" in line for line in told)


@pytest.mark.parametrize(
    ("users", "groups", "expected"),
    [
        ("", None, "100000-165535"),
        ("a:100000:65536\n", "a:100000:65536\n", "165536-231071"),
        ("a:100000:65536\n", "b:165536:65536\n", "231072-296607"),
        ("b:231072:65536\na:100000:65536\n", "", "165536-231071"),
        ("a:100000:65536\nb:200000:65536\n", "", "265536-331071"),
        ("a:524288:65536\nb:x:\n\n", "a:90000:10001", "100001-165536"),
        ("a:100000:2500000000", "", "2500100000-2500165535"),
    ],
    ids=["none", "first", "of both files", "gap", "gap too small", "no range", "large"],
)
def test_subordinate_ids_are_free_ones(tmp_path: Path, users: str, groups: str | None, expected: str) -> None:
    files = tmp_path / "subuid", tmp_path / "subgid"
    for file, text in zip(files, (users, groups), strict=True):
        if text is not None:
            file.write_text(text)
    function = (ROOT / "setup.sh").read_text().partition("\nfree_range() {")[2].partition("\n}")[0]
    told = subprocess.run(["sh", "-euc", function, "sh", *files], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == (expected + "\n", "")


@pytest.mark.parametrize(
    ("host", "packages"),
    [
        ("debian-13", "gpg gpg-agent default-jre-headless chromium"),
        ("ubuntu-24.04", "gpg gpg-agent default-jre-headless"),
        ("ubuntu-26.04", "gpg gpg-agent default-jre-headless"),
        ("fedora-43", "gnupg2 java-25-openjdk-headless chromium"),
        ("fedora-44", "gnupg2 java-25-openjdk-headless chromium"),
    ],
)
def test_the_tests_need_more_packages_and_no_snap(tmp_path: Path, host: str, packages: str) -> None:
    done = dry_run(tmp_path, RELEASES[host], "test", "-m", "not vm")
    [install] = [line for line in commands(done.stdout) if line.endswith(f" {packages}")]
    assert commands(done.stdout)[-1] == ".venv/bin/python -m pytest -m not vm"
    assert " -r requirements/test.txt" in done.stdout
    assert " .venv/bin/deno install --quiet --frozen " in commands(done.stdout)[-2]
    assert ("the tests in a browser are skipped" in done.stderr) is ("ubuntu" in host)
    # Cargo is installed only if somebody asks for it.
    with_cargo = dry_run(tmp_path, RELEASES[host], "--with=cargo", "test")
    assert f"{install} cargo" in commands(with_cargo.stdout)


@pytest.mark.parametrize("host", ["debian-13", "fedora-44"])
def test_a_host_of_arm64_has_packages_of_its_own(tmp_path: Path, host: str) -> None:
    common = packages_of(host, "package.", "arm64.")
    both = f"{common} {packages_of(host, 'amd64.', 'programs.amd64')}"
    # The set has guests of x86-64 alone.
    for asked, packages in (["--with=arm64", "doctor"], common), (["matrix", "--set", "quick"], both):
        done = dry_run(tmp_path, RELEASES[host], *asked, machine="aarch64")
        [install] = [line for line in commands(done.stdout) if " install -y " in line]
        assert install.endswith(f" {packages}")
        assert f"UEFI firmware {COLUMNS[host]['firmware.arm64']}\n" in done.stdout


KNOWN = catalog.load_catalog()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_plan_with_guests_of_the_other_architecture_is_told_by_its_arguments(
    tmp_path: Path, machine: str
) -> None:
    shutil.copytree(ROOT / "images", tmp_path / "images")
    for number, guests in enumerate(
        [["debian-13", "debian-13-arm64"], ["debian-13-arm64@linux-image-rt-arm64"]]
    ):
        (tmp_path / f"images/sets/mine-{number}.toml").write_text(f"guests = {json.dumps(guests)}\n")
    every, arm = list(KNOWN.guests), "debian-13-arm64"
    plans = [
        *((f"matrix --set {name}", KNOWN.set(name).guests) for name in KNOWN.sets),
        *((f"matrix --build x.whl -g {name} -v stock", [name]) for name in every),
        ("matrix --set=mine-0", ["debian-13", arm]),
        ("matrix --set mine-1", [arm]),
        ("matrix --set=images/sets/mine-1.toml", [arm]),
        (f"matrix -g{arm}", [arm]),
        (f"shell {arm} stock", [arm]),
        (f"shell --run 20261130-120000 {arm}/stock", [arm]),
        (f"matrix -g debian-13 -g {arm}@linux-image-rt-arm64", ["debian-13", arm]),
        ("matrix", every),
        ("matrix --shard 1/4", every),
        ("matrix --help", []),
        ("matrix -h", []),
        # Whoever began it has what its guests need.
        ("matrix --resume 20261130-120000", []),
        ("doctor", []),
        ("report matrix", []),
        ("", []),
    ]
    function = (ROOT / "setup.sh").read_text().partition("\nhas_foreign() {")[2].partition("\n}")[0]
    script = f"foreign={'-l' if machine == 'x86_64' else '-L'}; has_foreign() {{ {function}\n}}; has_foreign $0"
    for arguments, guests in plans:
        done = subprocess.run(["sh", "-euc", script, arguments], cwd=tmp_path, check=False)
        is_needed = any(KNOWN.guest(name).arch != machine for name in guests)
        assert (done.returncode == 0) is is_needed, arguments


def test_a_plan_installs_what_its_guests_need(tmp_path: Path) -> None:
    told = commands(dry_run(tmp_path, RELEASES["debian-13"], "matrix", "-g", "debian-13-arm64").stdout)
    assert f"{APT_INSTALL} {packages_of('debian-13', 'package.', 'amd64.', 'arm64.', 'programs.arm64')}" in told


@pytest.mark.parametrize(
    ("arguments", "lock"),
    [
        (["host"], "hosts"),
        (["matrix", "--set", "quick", "--hosts", "hosts.toml"], "hosts"),
        (["matrix", "--hosts=hosts.toml"], "hosts"),
        (["matrix", "--set", "quick"], "lab"),
    ],
)
def test_dask_is_installed_only_for_several_hosts(tmp_path: Path, arguments: list[str], lock: str) -> None:
    done = dry_run(tmp_path, RELEASES["debian-13"], *arguments)
    locks = [word for word in done.stdout.split() if word.startswith("requirements/")]
    assert locks == ["requirements/build.txt", f"requirements/{lock}.txt"]


@pytest.mark.parametrize(
    ("release", "told", "taken_for"),
    [
        ('ID=fedora\nVERSION_ID=45\nPRETTY_NAME="Fedora Linux 45"\n', "Fedora Linux 45 is not in", "Fedora 44"),
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n', "forky/sid is not in", "Debian 13"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="23"\n', "linuxmint 23 is not in", "Ubuntu 26.04"),
        ('ID=almalinux\nID_LIKE="rhel centos fedora"\nVERSION_ID=10\n', "almalinux 10 is not in", "Fedora 44"),
    ],
    ids=["newer", "without version", "like Ubuntu", "like Fedora"],
)
def test_an_unknown_host_is_taken_for_like_one(tmp_path: Path, release: str, told: str, taken_for: str) -> None:
    done = dry_run(tmp_path, release, "doctor")
    assert told in done.stderr
    assert f"; it is treated as {taken_for}, which was not tried" in done.stderr
    assert done.stdout.startswith(f"dry run for {taken_for}, ")
    fields = dict(line.split("=") for line in release.replace('"', "").splitlines())
    chosen = host_table.choose(fields)
    assert chosen is not None
    assert chosen["name"] == taken_for


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ('ID=arch\nPRETTY_NAME="Arch Linux"\n', "Arch Linux is not in lab/base/hosts.table (ID=arch,"),
        ("", "this distribution is not in lab/base/hosts.table (ID=, ID_LIKE=)"),
        # It is read and not run.
        ("ID=$(touch TMP/changed)\n$(touch TMP/changed)=\n", "is not in lab/base/hosts.table"),
    ],
)
def test_a_host_unlike_all_known_ones_is_refused(tmp_path: Path, release: str, told: str) -> None:
    release = release.replace("TMP", str(tmp_path))
    done = dry_run(tmp_path, release, "doctor")
    assert (done.returncode, done.stdout) == (3, "")
    assert told in done.stderr
    assert "Debian 13, Ubuntu 24.04, Ubuntu 26.04, Fedora 43, Fedora 44" in done.stderr
    assert host_table.choose(dict(line.split("=") for line in release.splitlines())) is None


@each_host
def test_the_lab_reads_the_same_column(host: str) -> None:
    fields = dict(line.split("=", 1) for line in RELEASES[host].replace('"', "").splitlines())
    chosen = host_table.choose(fields)
    assert chosen is not None
    assert chosen["host"] == host
    assert chosen["daemons"].split() == ["virtlogd", "virtqemud" if "fedora" in host else "libvirtd"]


def test_every_line_of_the_table_has_a_value_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in host_table.TABLE.read_text().splitlines() if line and not line.startswith("#")]
    assert {line.count("|") for line in lines} == {len(RELEASES)}
    assert [column["host"] for column in host_table.columns()] == list(RELEASES)
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names))
    # Where the host is not known, what to install is told for each distribution.
    monkeypatch.setattr(host_table, "find_host_column", lambda: None)
    told = "install ovmf (Debian 13), ovmf (Ubuntu 26.04), edk2-ovmf (Fedora 44)"
    assert host_table.suggest_packages("amd64.uefi") == told
    assert (
        host_table.suggest_packages("clock")
        == "install libfaketime (Debian 13), libfaketime (Ubuntu 26.04), libfaketime (Fedora 44)"
    )


@pytest.mark.parametrize(
    "script",
    [ROOT / "setup.sh", ROOT / "lab/machine/rules.sh", ROOT / ".ci/run", ROOT / ".ci/try"],
    ids=["setup.sh", "rules.sh", "ci", "try"],
)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([SHELLCHECK, ROOT / script], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_ci_ends_each_daemon_that_it_started(tmp_path: Path) -> None:
    # Daemons end the number in their pidfile without a newline.
    for name, number in (("libvirtd", 4711), ("virtlogd", 4712)):
        (tmp_path / f"{name}.pid").write_text(str(number))
    lines = (ROOT / ".ci/run").read_text().replace("/run/", f"{tmp_path}/")
    function = lines[lines.index("pids()") : lines.index("before=")]
    done = subprocess.run(["sh", "-c", f"{function}\npids"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4711", "4712"]


@pytest.mark.parametrize(
    ("host", "arguments", "expected"),
    [
        ("fedora-43", ["--allow=consoles"], "add"),
        ("fedora-44", ["--forbid=consoles"], "remove"),
        ("fedora-43", [], None),
    ],
)
@pytest.mark.parametrize("user", [None, 1000])
def test_a_rule_is_added_or_removed_only_where_that_was_said(
    tmp_path: Path, host: str, arguments: list[str], expected: str | None, user: int | None
) -> None:
    done = dry_run(tmp_path, RELEASES[host], *arguments, "doctor", user=user)
    told = commands(done.stdout)
    install = f"{DNF_INSTALL} policycoreutils-python-utils"
    rule = f"sh lab/machine/rules.sh {expected} consoles /var/lib/boxlite-lab"
    lines = [f"sudo {line}" if user else line for line in (install, rule) if expected]
    assert [line for line in told if "rules.sh" in line or "policycoreutils" in line] == lines
    assert told[-1] == ".venv/bin/lab doctor"
    assert ("the SELinux label virt_log_t on /var/lib/boxlite-lab" in done.stderr) is bool(arguments)


@pytest.mark.parametrize(
    ("host", "option", "status", "told"),
    [
        ("debian-13", "--allow=everything", 3, "show, add or remove the one rule that there is: consoles"),
        ("ubuntu-24.04", "--allow=consoles", 3, "Ubuntu 24.04 is not confined by SELinux"),
        (
            "debian-13",
            "--with=rust",
            2,
            "setup: --with=rust: expected --with=cargo, --with=amd64 or --with=arm64\n",
        ),
    ],
)
def test_a_senseless_option_is_refused(tmp_path: Path, host: str, option: str, status: int, told: str) -> None:
    done = dry_run(tmp_path, RELEASES[host], option, "test")
    assert (done.returncode, told in done.stderr) == (status, True)
    assert not any("rules.sh" in line for line in commands(done.stdout))
