"""The probe script: run here in each shell, compared with the lab's own programs, and read from other text."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.base.errors import UsageError
from lab.probes import PROGRAMS, Facts, NotAsked, Probed, script
from lab.probes.report import HostReport, read
from tests.unit.probe_examples import SCRIPT, differences

SHELLS = [
    pytest.param(words, id=words[0], marks=pytest.mark.skipif(not shutil.which(words[0]), reason="not here"))
    for words in (["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"])
]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def run(shell: Sequence[str], text: str = SCRIPT, **environment: str) -> str:
    """What the script prints in a shell."""
    done = subprocess.run(
        [*shell, "-c", text],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def understood(text: str) -> HostReport:
    report = read(text)
    assert report is not None
    return report


def ours(program: str, argument: dict[str, object]) -> object:
    command = [sys.executable, "-I", "-S", str(PROGRAMS / f"{program}.py"), json.dumps(argument)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("shell", SHELLS)
def test_it_says_what_the_labs_own_programs_say_of_this_host(shell: list[str], tmp_path: Path) -> None:
    report = understood(run(shell))
    facts = Facts.model_validate(ours("facts", {"sysctls": list(dict(report.facts.sysctls.items()))}))
    probed = Probed.model_validate(ours("probe", {"probes": True}))
    # The system's Python, not the one of these tests. The script asks neither about btrfs nor about the
    # level of the processor.
    facts = facts.model_copy(update={"python": report.facts.python, "mkfs_btrfs": None, "cpu_level": None})
    assert differences(report, facts, probed, str(Path.home())) == {}


@pytest.mark.parametrize("shell", SHELLS)
def test_it_leaves_no_file_and_names_no_home(shell: list[str], tmp_path: Path) -> None:
    home = tmp_path / "jane's  home $(id)"
    home.mkdir()
    printed = run(shell, HOME=str(home))
    assert list(home.iterdir()) == []
    assert "jane" not in printed
    assert understood(printed).probes.exec_home.command == (f"~/{script.program('probe')['PROGRAM']}",)


def test_shellcheck_finds_nothing_and_no_single_quote_ends_a_command_line() -> None:
    done = subprocess.run([SHELLCHECK, "-"], input=SCRIPT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert "'" not in SCRIPT
    assert "\\\\" not in SCRIPT  # fish reads two as one, even between single quotes
    assert SCRIPT.isascii()


def test_it_asks_for_what_the_labs_programs_ask_for() -> None:
    facts, probe = script.program("facts"), script.program("probe")
    for words in probe["PROBES"].values():
        assert " ".join(words) in SCRIPT
    for name in facts["SYSCTLS"]:
        assert name in SCRIPT
    for path in [*facts["SEARCH_PATH"], *facts["PROFILES"], *facts["PAM_SYSTEMD"], str(facts["APPARMOR"])]:
        assert path in SCRIPT


def test_a_sysctl_with_an_odd_name_is_not_asked_for() -> None:
    text = script.text(["vm.swappiness", "kernel.$(id)", "../etc/passwd", "a;b.c", "kernel.a\nid"])
    assert "vm.swappiness" in text
    assert "$(id)" not in text
    assert "passwd" not in text
    assert "kernel.a\n" not in text


# ---- On folders made up.


def moved(root: Path, *, without: Sequence[str] = ()) -> str:
    """The script with the host's files below a folder, and only the programs of a folder of stand-ins."""
    text = re.sub(r"(?<![\w$])/(etc|sys|proc|dev/kvm|run/\.|usr/bin/podman)", rf"{root}/\1", SCRIPT)
    stubs = root / "bin"
    stubs.mkdir(exist_ok=True)
    for name in {"cat", "id", "stat", "uname", "tr", "ls", "chmod", "rm", "grep", "timeout", "true"} - set(
        without
    ):
        (stubs / name).symlink_to(str(shutil.which(name)))
    text = re.sub(r'PATH="[^"]*"', f'PATH="{stubs}"', text)
    return re.sub(r"/usr/local/bin|/usr/bin\b|(?<=[ \n])/bin\b", str(stubs), text)


def put(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


HOST = {
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian"\n',
    "proc/cmdline": "root=UUID=1-2 ip=10.0.0.7 apparmor=1 lsm=landlock,apparmor hostname=secret\n",
    "proc/cpuinfo": "processor: 0\nflags\t\t: fpu vmx sse\n",
    "proc/self/mounts": "/dev/sda / ext4 rw,relatime 0 0\n"
    "//nas/jane /home cifs rw,noexec,username=jane,addr=10.0.0.8 0 0\n",
    "proc/self/status": "Name:\tsh\nSeccomp:\t2\nSeccomp_filters:\t1\n",
    "proc/sys/kernel/ostype": "Linux\n",
    "proc/sys/user/max_user_namespaces": "0\n",
    "proc/filesystems": "nodev\tselinuxfs\n",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_private_is_printed(shell: list[str], tmp_path: Path) -> None:
    put(tmp_path, HOST)
    printed = run(shell, moved(tmp_path), HOME="/home/jane")
    for secret in ("jane", "10.0.0", "UUID", "secret", "nas"):
        assert secret not in printed
    facts = understood(printed).facts
    assert facts.command_line == "apparmor=1 lsm=landlock,apparmor"
    assert facts.mounts["/home"].options == ("rw", "noexec")
    assert facts.virtualization == "vmx"


@pytest.mark.parametrize("shell", SHELLS)
def test_profiles_that_concern_boxlite_are_named_once_and_no_others(shell: list[str], tmp_path: Path) -> None:
    put(tmp_path, HOST)
    kernel = "sys/kernel/security/apparmor"
    for name, mode in (
        ("bwrap-without-userns", "enforce"),
        ("Discord", "unconfined"),
        ("unpriv_bwrap", "complain"),
    ):
        put(tmp_path, {f"{kernel}/policy/profiles/{name}.7/name": f"{name}\n"})
        put(tmp_path, {f"{kernel}/policy/profiles/{name}.7/mode": f"{mode}\n", f"etc/apparmor.d/{name}": ""})
    put(tmp_path, {f"{kernel}/features/namespaces/mask": "userns_create\n"})
    apparmor = understood(run(shell, moved(tmp_path))).facts.apparmor
    assert apparmor is not None
    assert apparmor.userns_mediation
    assert apparmor.profiles == {"bwrap-without-userns": "enforce", "unpriv_bwrap": "complain"}
    files = [Path(path).name for path in apparmor.profile_files]
    assert files == ["bwrap-without-userns", "unpriv_bwrap"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_home_that_another_host_serves_is_not_touched(shell: list[str], tmp_path: Path) -> None:
    put(tmp_path, HOST)
    home = tmp_path / "home"
    home.mkdir()
    mounts = f"/dev/sda / ext4 rw 0 0\nnas:/x {home} nfs4 rw,noexec 0 0\n"
    put(tmp_path, {"proc/self/mounts": mounts})
    home.chmod(0)
    probes = understood(run(shell, moved(tmp_path), HOME=str(home))).probes
    assert (probes.exec_home.status, probes.exec_home.stderr) == (None, "the home is on nfs4")
    assert probes.home_allows_exec.failed_with("noexec")


@pytest.mark.parametrize("shell", SHELLS)
def test_what_cannot_be_read_is_not_called_absent(shell: list[str], tmp_path: Path) -> None:
    put(tmp_path, HOST)
    put(tmp_path, {"sys/module/apparmor/parameters/enabled": "Y\n"})
    # A file that root may not read either.
    (tmp_path / "proc/sys/kernel/unprivileged_userns_clone").symlink_to("/proc/self/mem")
    report = understood(run(shell, moved(tmp_path)))
    hidden = "sysctls.kernel.unprivileged_userns_clone"
    assert {"lsm", "apparmor", "selinux", hidden} <= set(report.unreadable)
    assert not report.knows("apparmor.profiles")
    assert report.knows("sysctls.user.max_user_namespaces")
    assert report.facts.sysctls["user.max_user_namespaces"] == "0"
    assert report.facts.sysctls["kernel.yama.ptrace_scope"] is None
    with pytest.raises(NotAsked):
        report.facts.sysctls["kernel.unprivileged_userns_clone"]


@pytest.mark.parametrize("shell", SHELLS)
def test_it_works_without_timeout_unshare_bubblewrap_python_and_more(shell: list[str], tmp_path: Path) -> None:
    put(tmp_path, HOST)
    report = understood(run(shell, moved(tmp_path, without=["timeout", "stat", "grep"])))
    assert (report.facts.python, report.facts.glibc, report.facts.bubblewrap) == ("", "", None)
    for name in ("unshare_user", "bwrap_user"):
        probe = report.probes.by_name()[name]
        assert probe.status is None
        assert probe.stderr == f"[Errno 2] No such file or directory: '{probe.command[0]}'"
    assert (report.probes.unshare_nothing.status, report.probes.unshare_nothing.stderr) == (
        None,
        "no program unshare",
    )


HOSTILE = [
    '"; touch /tmp/owned; $(touch /tmp/owned) `touch /tmp/owned`',
    "x\\n99 kernel: 9.9 \\033[31m %s %n ${HOME} (none)",
    "(none)",
    "===== end boxlite-probe 1: 3 lines =====",
    "“smart” – — … & < > é 漢字  two  spaces ",
    "\x1b[2J\x07\x7f",
    "a" * 3000,
    "b " * 500,
    "%41%%2",
    "* _a_ ~~b~~ [x](y) #1 @me :x: |",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_is_run_or_taken_for_another_line(shell: list[str], text: str, tmp_path: Path) -> None:
    put(tmp_path, {**HOST, "etc/os-release": f'ID=debian\nPRETTY_NAME="{text}"\n'})
    printed = run(shell, moved(tmp_path))
    assert all(
        len(line) <= script.WIDTH and line.isascii() and line == line.strip() for line in printed.splitlines()
    )
    report = understood(f"> {printed}")
    expected = text.encode()[:2000].decode(errors="replace").strip()
    got = report.facts.os.pretty_name
    assert got is not None
    assert got.strip() == re.sub(r"\x1b\[2J|[\x00-\x08\x0b-\x1f\x7f]", "", expected)
    assert (report.facts.os.id, report.facts.kernel) == ("debian", os.uname().release)
    assert not Path("/tmp/owned").exists()


# ---- Reading.

PRINTED = run(["sh"])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f"Hello,\n\nthis is what it prints:\n\n```text\n{text}```\n\nThanks!",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: re.sub(r"(?m)^", "> > ", text),
        lambda text: re.sub(r"(?m)^", "    ", text),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace("_", "\\_"),
        lambda text: "".join(f"> {each}\n" for line in text.splitlines() for each in _folded(line)),
        lambda text: "\ufeff" + text.replace(": ", ":\u200b "),
    ],
    ids=["fences", "crlf", "quoted", "indented", "double-spaced", "nbsp", "backslashes", "folded", "invisible"],
)
def test_it_is_read_as_people_paste_it(change: object) -> None:
    assert callable(change)
    assert read(change(PRINTED)) == understood(PRINTED)


def _folded(line: str) -> list[str]:
    """A line folded as mail programs do: at the last space before a width."""
    if len(line) <= 40 or " " not in line[10:40]:
        return [line]
    at = line.rindex(" ", 0, 40)
    return [line[:at], *_folded(line[at + 1 :])]


def test_a_text_without_an_output_has_none() -> None:
    assert read("") is None
    assert read("begin boxlite-probe is the first line of its output") is None


def test_the_first_whole_output_counts() -> None:
    cut = PRINTED[: len(PRINTED) // 2]
    assert read(f"{cut}\nsorry, once more:\n{PRINTED}") == understood(PRINTED)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:20], "it ends after line 19, without its last line; no line"),
        (lambda lines: lines[:5] + lines[8:], "lines 5 to 7 are missing; .*no line os.id_like"),
        (lambda lines: lines[:-2] + lines[-1:], r"line \d+ is missing; no line probes.home_allows_exec"),
        (
            lambda lines: [each.replace("seccomp: ", "seccomp: x") for each in lines],
            "who.seccomp: Input should be",
        ),
        (
            lambda lines: [lines[0].replace(" 1 ", " 2 "), *lines[1:]],
            "has form 2, and this lab reads forms up to 1",
        ),
    ],
    ids=["truncated", "a hole", "no last fact", "a wrong value", "a newer form"],
)
def test_a_damaged_output_says_what_is_wrong(change: object, says: str) -> None:
    assert callable(change)
    with pytest.raises(UsageError, match=says) as raised:
        read("\n".join(change(PRINTED.splitlines())))
    assert raised.value.hint
    assert raised.value.exit_status == 2


def test_a_long_text_is_read_in_bounds() -> None:
    text = f"===== {script.BEGIN} 1 =====\n1 os.id: " + "x" * 2_000_000 + "\nnext" * 500_000
    with pytest.raises(UsageError, match="it ends after line 1"):
        read(text)
