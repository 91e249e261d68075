"""The probe script: run here in each shell, compared with the lab's own programs, and read from other text."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap

import pytest

from lab.base.errors import UsageError
from lab.probes import ProbedUser, script
from lab.probes.report import HostReport, read_host_report
from tests.builders.facts import printed_facts, put, read_facts_of_this_host, run_program
from tests.builders.probe_script import SCRIPT, differences, output

SHELLS = [
    pytest.param(words, id=words[0], marks=pytest.mark.skipif(not shutil.which(words[0]), reason="not here"))
    for words in (["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"])
]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def start(shell: Sequence[str], text: str = SCRIPT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*shell, "-c", text],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def run(shell: Sequence[str] = ("sh",), text: str = SCRIPT, **environment: str) -> str:
    done = start(shell, text, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def understood(text: str) -> HostReport:
    report = read_host_report(text)
    assert report is not None
    return report


@pytest.mark.parametrize("shell", SHELLS)
def test_it_says_what_the_labs_own_programs_say_of_this_host(shell: list[str]) -> None:
    report = understood(run(shell))
    facts = read_facts_of_this_host([*report.facts.sysctls])
    probed = ProbedUser.model_validate_json(run_program("probe", {"probes": True}).stdout)
    # The system's Python, not the one of these tests.
    facts = facts.model_copy(update={"python": report.facts.python})
    assert differences(report, facts, probed, str(Path.home())) == {}


def test_it_leaves_no_file_and_names_no_home(tmp_path: Path) -> None:
    home = tmp_path / "jane's  home $(id)"
    home.mkdir()
    printed = run(HOME=str(home))
    assert list(home.iterdir()) == []
    assert "jane" not in printed
    report = understood(printed)
    assert report.probes.exec_home.command == ("~/.lab-probe",)
    assert report.probes.exec_home.worked
    home.rmdir()
    probes = understood(run(HOME=str(home))).probes
    assert (probes.exec_home.status, probes.home_allows_exec.status) == (None, None)
    assert "No such file" in probes.exec_home.stderr


def test_shellcheck_finds_nothing_and_no_single_quote_ends_a_command_line() -> None:
    done = subprocess.run([SHELLCHECK, "-"], input=SCRIPT, capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert "'" not in SCRIPT
    assert "\\\\" not in SCRIPT  # fish reads two as one, even between single quotes
    assert not re.search(r"!(?![ =])", SCRIPT.removeprefix("#!"))  # older shells expand it in what is pasted
    assert SCRIPT.isascii()


@pytest.mark.parametrize("file", script.SOURCES, ids=lambda file: file.stem)
def test_its_programs_are_written_for_the_oldest_python(file: Path) -> None:
    source = file.read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    # `ast` takes the walrus of 3.8 with any feature_version; `subprocess.run` has these two since 3.7.
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr)]
    assert not re.search(r"capture_output|text=True", source)


@pytest.mark.parametrize("program", ["", "exit 127", "exit 1"], ids=["none", "does not start", "too old"])
def test_a_host_without_python_is_told_how_to_get_it(tmp_path: Path, program: str) -> None:
    (tmp_path / "cat").symlink_to(str(shutil.which("cat")))
    if program:
        (tmp_path / "python3").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "python3").chmod(0o755)
    text = SCRIPT.replace("/usr/libexec/platform-python", "/nowhere/python")
    done = start(["/bin/sh"], text, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    for words in ("Python 3.6 or newer", "apt install python3", "dnf install python3", "Without root"):
        assert words in done.stderr


def test_a_sysctl_with_an_odd_name_is_not_asked_for() -> None:
    text = script.render_script(["vm.swappiness", "kernel.$(id)", "../etc/passwd", "a;b.c", "kernel.a\nid"])
    assert "vm.swappiness" in text
    assert "$(id)" not in text
    assert "passwd" not in text
    assert "kernel.a\n" not in text


# -- On folders made up.


def moved(root: Path) -> str:
    """The script with the host's files below a folder, and no program of the host's but Python."""
    text = re.sub(
        r"(?<![\w$~])/(etc|sys|proc|dev/kvm|run/\.|\.dockerenv|usr/bin/(?:docker|podman))",
        rf"{root}/\1",
        SCRIPT,
    )
    text = re.sub(r'PATH="[^"]*"', f'PATH="{root}/bin"', text)
    return re.sub(r'"/usr/local/bin", "/usr/bin", "/bin"', f'"{root}/bin",', text)


HOST = {
    "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian"\nID_LIKE="a b"\n',
    "proc/cmdline": "root=UUID=1-2 ip=10.0.0.7 apparmor=1 lsm=landlock,apparmor hostname=secret\n",
    "proc/cpuinfo": "processor: 0\nflags\t\t: fpu vmx sse\n",
    "proc/self/mounts": "/dev/sda / ext4 rw,relatime 0 0\n"
    "//nas/jane /home cifs rw,noexec,username=jane,addr=10.0.0.8 0 0\n",
    "proc/self/status": "Name:\tsh\nSeccomp:\t2\nSeccomp_filters:\t1\n",
    "proc/sys/kernel/ostype": "Linux\n",
    "usr/bin/docker": "",
    ".dockerenv": "",
    "proc/sys/user/max_user_namespaces": "0\n",
    "proc/filesystems": "nodev\tselinuxfs\n",
}


def test_what_concerns_boxlite_is_printed_and_nothing_private(tmp_path: Path) -> None:
    kernel = "sys/kernel/security/apparmor"
    put(tmp_path, {**HOST, f"{kernel}/features/namespaces/mask": "userns_create\n"})
    modes = {"bwrap-without-userns": "enforce", "Discord": "unconfined", "unpriv_bwrap": "complain"}
    for name, mode in modes.items():
        put(tmp_path, {f"{kernel}/policy/profiles/{name}.7/name": f"{name}\n"})
        put(tmp_path, {f"{kernel}/policy/profiles/{name}.7/mode": f"{mode}\n", f"etc/apparmor.d/{name}": ""})
    printed = run(text=moved(tmp_path), HOME="/home/jane")
    for secret in ("jane", "10.0.0", "UUID", "secret", "nas", "Discord"):
        assert secret not in printed
    report = understood(printed)
    facts, apparmor = report.facts, report.facts.apparmor
    assert facts.command_line == "apparmor=1 lsm=landlock,apparmor"
    assert facts.mounts["/home"].options == ("rw", "noexec")
    assert (facts.virtualization, facts.bubblewrap) == ("vmx", None)
    assert (report.id_like, report.who.seccomp) == (("a", "b"), 2)
    assert (facts.engines, report.who.container) == (("docker",), "docker")
    assert apparmor is not None
    assert apparmor.userns_mediation
    assert apparmor.profiles == {"bwrap-without-userns": "enforce", "unpriv_bwrap": "complain"}
    files = [path for path in apparmor.profile_files if path.startswith(str(tmp_path))]
    assert [Path(path).name for path in files] == ["bwrap-without-userns", "unpriv_bwrap"]
    # There is neither unshare nor bubblewrap.
    for probe in (report.probes.unshare_user, report.probes.bwrap_user):
        missing = f"[Errno 2] No such file or directory: '{probe.command[0]}'"
        assert (probe.status, probe.stderr) == (None, missing)


def test_a_home_that_another_host_serves_is_not_touched(tmp_path: Path) -> None:
    put(tmp_path, HOST)
    home = tmp_path / "home"
    home.mkdir()
    mounts = f"/dev/sda / ext4 rw 0 0\nnas:/x {home} nfs4 rw,noexec 0 0\n"
    put(tmp_path, {"proc/self/mounts": mounts})
    probes = understood(run(text=moved(tmp_path), HOME=str(home))).probes
    assert (probes.exec_home.status, probes.exec_home.stderr) == (None, "the home is on nfs4")
    assert probes.home_allows_exec.failed_with("noexec")


def test_what_cannot_be_read_is_not_called_absent(tmp_path: Path) -> None:
    put(tmp_path, HOST)
    put(tmp_path, {"sys/module/apparmor/parameters/enabled": "Y\n"})
    # A file that root may not read either.
    (tmp_path / "proc/sys/kernel/unprivileged_userns_clone").symlink_to("/proc/self/mem")
    report = understood(run(text=moved(tmp_path)))
    hidden = "sysctls.kernel.unprivileged_userns_clone"
    assert {"lsm", "apparmor", "selinux", hidden} <= set(report.unreadable)
    assert not report.knows("apparmor.profiles")
    assert report.knows("sysctls.user.max_user_namespaces")
    assert report.facts.sysctls["user.max_user_namespaces"] == "0"
    assert report.facts.sysctls["kernel.yama.ptrace_scope"] is None
    assert "kernel.unprivileged_userns_clone" not in report.facts.sysctls


HOSTILE = [
    '"; touch /tmp/owned; $(touch /tmp/owned) `touch /tmp/owned`',
    "x\\n99 kernel: 9.9 \\033[31m %s %n ${HOME} (none)",
    "===== end boxlite-probe 4: 3 characters =====",
    '{"facts": 1}',
    "END_OF_PROGRAM",
    "“smart” – — … & < > é 漢字  two  spaces ",
    "\x1b[2J\x07\x7f",
    "a" * 3000,
    "b " * 500,
    "%41%%2",
    "* _a_ ~~b~~ [x](y) #1 @me :x: |",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_is_run_or_taken_for_another_line(text: str, tmp_path: Path) -> None:
    put(tmp_path, {**HOST, "etc/os-release": f'ID=debian\nPRETTY_NAME="{text}"\n'})
    printed = run(text=moved(tmp_path))
    first = printed.index("\n{")
    assert printed.isascii() and printed.count("=====") == 4
    assert all(len(line) <= 74 and " " not in line for line in printed[first:].splitlines()[1:-1])
    report = understood(f"> {printed}")
    name = report.facts.os.pretty_name
    assert name is not None
    assert name.strip() == re.sub(r"\x1b\[2J|[\x00-\x08\x0b-\x1f\x7f]", "", text[:2000]).strip()
    assert (report.facts.os.id, report.facts.kernel) == ("debian", os.uname().release)
    assert not Path("/tmp/owned").exists()


# -- Reading.

PRINTED = output(printed_facts(), unreadable=["selinux.modules"], id_like=["a b"])
Change = Callable[[str], str]


def test_a_summary_for_people_comes_first() -> None:
    summary = PRINTED[: PRINTED.index("{")].splitlines()
    lines = ["system: Debian GNU/Linux 13 (trixie)", "kernel.unprivileged_userns_clone: 1", "bwrap_all: works"]
    lines += ["session: login, in /user.slice/user-1001.slice/session-*.scope"]
    lines += ["service manager of the user: answers"]
    assert set(lines) < set(summary)


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
        lambda text: text.replace('"', "\u201d").replace("--", "\u2014"),
        lambda text: "".join(f"> {part}\n" for line in text.splitlines() for part in wrap(line, 60) or [""]),
        lambda text: "".join(f"{line[:60]}\n{line[60:]}\n" for line in text.splitlines()),
        lambda text: "\ufeff" + text.replace(":", ":\u200b"),
    ],
)
def test_it_is_read_as_people_paste_it(change: Change) -> None:
    assert read_host_report(change(PRINTED)) == understood(PRINTED)


def test_the_first_whole_output_of_a_text_counts() -> None:
    cut = PRINTED[: len(PRINTED) // 2]
    assert read_host_report(f"{cut}\nsorry, once more:\n{PRINTED}") == understood(PRINTED)
    assert read_host_report("") is None
    assert read_host_report("begin boxlite-probe is the first line of its output") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PRINTED[: len(PRINTED) // 2], "its last line is missing"),
        ("\n".join(PRINTED.splitlines()[:-5] + PRINTED.splitlines()[-4:]), r"it has \d+ of \d+ characters"),
        (re.sub(r"\n{[^=]+", "\n", PRINTED, flags=re.DOTALL), "it has 0 of"),
        (PRINTED.replace('"facts"', '"facts;'), "it is not JSON"),
        (output(printed_facts(systemd="perhaps")), "facts.systemd: Input should be"),
        (output(printed_facts(more=1)), "facts.more: Extra"),
        (PRINTED.replace(" 4 ", " 5 ", 1), "the probe's output has version 5 of its format, and this lab, "),
        (f"===== {script.BEGIN} 4 =====\n[[[\n===== {script.END} 4: 1 characters", "of 1 characters"),
    ],
    ids=["truncated", "a hole", "no JSON", "damaged JSON", "a value", "a fact", "newer", "nested"],
)
def test_a_damaged_output_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        read_host_report(text)
    assert raised.value.hint
    assert raised.value.exit_status == 2


@pytest.mark.parametrize("document", ['{"a":' * 20_000, '{"a":' + "9" * 5000 + "}", '{"a":' + "[" * 50_000])
def test_json_that_no_script_prints_is_damaged(document: str) -> None:
    with pytest.raises(UsageError, match="it is not JSON"):
        read_host_report(
            f"===== {script.BEGIN} 4 =====\n{document}\n===== {script.END} 4: {len(document)} characters"
        )


@pytest.mark.timeout(120)
def test_a_long_text_is_read_in_bounds() -> None:
    text = f"===== {script.BEGIN} 4 =====\n{{" + "x" * 2_000_000 + "\nnext" * 500_000
    with pytest.raises(UsageError, match="its last line is missing"):
        read_host_report(text)
    # A reader that tries each split of a line takes hours for these.
    assert [read_host_report(part * (2**20 // len(part))) for part in ("=", "= ")] == [None, None]
