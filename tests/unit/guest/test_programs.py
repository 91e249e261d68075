"""Programs that run in guests, where Python is older and the lab's libraries are missing."""

import ast
import base64
import configparser
import errno
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lab import catalog
from lab.base.paths import PACKAGE
from lab.causes import evidence
from lab.guest import programs
from lab.guest.collect import EvidenceFolder
from tests.builders import evidence as evidence_examples
from tests.builders.facts import executable, put

# The suites that pytest runs, with the oldest Python that each may meet. Older than 3.10 is Debian 11's
# alone, for which boxlite has no wheel, and whose Node is too old.
SUITES = {"jailer": (3, 10), "npm": (3, 10), "cli": (3, 9)}
# The lab's own, and what runs upstream's tests.
PROGRAMS = [*programs.files().values(), programs.LOADER, *sorted((PACKAGE / "builds" / "remote").glob("*.py"))]
OLDEST_OF_GUESTS = (3, 9)


def _name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def files_of(name: str) -> list[Path]:
    """The programs that a suite has in a guest."""
    suite = catalog.load_suite(name)
    return [*sorted(suite.folder.glob("*.py")), *suite.shared_files.values()]


def imported(file: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("file", PROGRAMS, ids=_name)
def test_a_program_needs_the_oldest_python_and_its_standard_library_alone(file: Path) -> None:
    assert ast.parse(file.read_text(), feature_version=OLDEST_OF_GUESTS).body
    assert imported(file) <= sys.stdlib_module_names


@pytest.mark.parametrize(("name", "oldest"), SUITES.items())
def test_a_suite_is_written_for_the_oldest_python_that_it_meets(name: str, oldest: tuple[int, int]) -> None:
    for file in files_of(name):
        tree = ast.parse(file.read_text(), feature_version=oldest)
        # `X | None` of 3.10 parses everywhere; in annotations alone it is no harm if they are not evaluated.
        unions = any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) for node in ast.walk(tree))
        assert oldest >= (3, 10) or not unions or "from __future__ import annotations" in file.read_text()


@pytest.mark.parametrize("name", SUITES)
def test_suite_toml_names_exactly_what_the_suite_imports_and_what_pytest_collects(name: str) -> None:
    suite = catalog.load_suite(name)
    shared = {file.name for file in (PACKAGE / "suites" / "_shared").glob("*.py")}
    assert {f"{module}.py" for file in files_of(name) for module in imported(file)} & shared == set(
        suite.shared
    )
    ini = configparser.ConfigParser()
    ini.read(suite.folder / "pytest.ini")
    files, functions = (ini["pytest"][key].split() for key in ("python_files", "python_functions"))
    collected = [file.name for file in files_of(name) if any(fnmatch(file.name, pattern) for pattern in files)]
    assert collected == [f"{name}_suite.py"]
    tree = ast.parse((suite.folder / f"{name}_suite.py").read_text())
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [test for test in tests if any(fnmatch(test, pattern) for pattern in functions)] == tests
    assert list(suite.tests) == tests


def gathered(folder: Path, *, full: bool) -> dict[str, bytes]:
    """Gather evidence of a suite whose results are in `folder`/results; the lab's own files are stand-ins."""
    program = programs.read_sources()["collect"]
    own = 'everything = lambda request: [("kernel.log", b"the lab\'s")]\n'
    program = program.replace("request = json.loads", f"{own}request = json.loads", 1)
    places = {"results": str(folder / "results"), "homes": str(folder / "home")}
    request = {"mark": "begins", "since": 0.0, "full": full, **places}
    calls = json.dumps([["collect", base64.b64encode(program.encode()).decode(), json.dumps(request)]])
    command = [sys.executable, "-I", "-S", "-c", programs.read_loader(), "once", calls]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    into = folder / "into"
    shutil.rmtree(into, ignore_errors=True)
    answer = programs.ProgramReply([("collect", request)], EvidenceFolder(into).keep)
    assert any(answer.take(line) for line in done.stdout.splitlines())
    return {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()}


def test_what_the_suite_wrote_has_a_folder_of_its_own_whatever_its_names(tmp_path: Path) -> None:
    results, logs = tmp_path / "results", tmp_path / "home" / "box-a" / "logs"
    for folder in (results, logs):
        folder.mkdir(parents=True)
    (results / "suite.log").write_text("said")
    (results / "kernel.log").write_text("the suite's")
    (results / "audit.log").write_text(evidence_examples.DENIED_CREATE)
    (results / "link").symlink_to("/etc/passwd")
    (results / "folder").mkdir()
    os.mkfifo(results / "pipe")
    (tmp_path / "home" / "box-b").mkdir()
    (tmp_path / "home" / "box-b" / "logs").symlink_to(tmp_path / "of-root")
    (tmp_path / "of-root").mkdir()
    (tmp_path / "of-root" / "key").write_text("secret")
    (results / "junit.xml").write_bytes(b"x" * 3_000_000)
    (logs / "boxlite.log").write_text("log")
    (logs / "program").write_bytes(b"x" * 3_000_000)
    files = gathered(tmp_path, full=True)
    assert len(files.pop("suite/junit.xml")) == 2_000_000
    assert files == {
        "suite/suite.log": b"said",
        "suite/kernel.log": b"the suite's",
        "suite/audit.log": evidence_examples.DENIED_CREATE.encode(),
        "kernel.log": b"the lab's",
        "modes.txt": b"",
        "boxlite/box-a/logs/boxlite.log": b"log",
    }
    assert evidence.read_evidence(tmp_path / "into").audit == []
    of_a_suite_that_passed = gathered(tmp_path, full=False)
    names = ("audit.log", "junit.xml", "kernel.log", "suite.log")
    assert of_a_suite_that_passed.keys() == {f"suite/{name}" for name in names}


def test_the_modes_of_boxlites_programs_are_gathered_as_unpacked_and_as_copied(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    unpacked, box = tmp_path / "home/.local/share/boxlite/runtimes/v1", tmp_path / "home/box-a/boxes/B0X"
    for path, mode in (
        (unpacked / "boxlite-shim", 0o755),
        (unpacked / "boxlite-guest", 0o4711),
        (box / "bin/boxlite-shim", 0o664),
        (box / "disk.qcow2", 0o600),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.chmod(mode)
    (box / "bin" / "folder").mkdir()
    (box / "bin" / "link").symlink_to("/etc/passwd")
    assert gathered(tmp_path, full=True)["modes.txt"].decode().splitlines() == [
        "4711 .local/share/boxlite/runtimes/v1/boxlite-guest",
        "0755 .local/share/boxlite/runtimes/v1/boxlite-shim",
        "0664 box-a/boxes/B0X/bin/boxlite-shim",
    ]


def test_files_without_an_end_are_not_gathered(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for number in range(2_010):
        (tmp_path / "results" / f"{number:04}").touch()
    assert len(gathered(tmp_path, full=False)) == 2_000


def remedy(folder: Path, script: str, *, undo: bool = False) -> tuple[list[tuple[int, str]], list[str]]:
    """Run the program that puts remedies in place, on a folder that it watches: its steps, and changes."""
    program = programs.read_sources()["run_script"]
    watched = f"FOLDERS = ({str(folder / 'etc')!r},)\n"
    program = re.sub(r"(?m)^FOLDERS = .*\n", watched, program)
    (folder / "etc").mkdir()
    about = {"script": script, "arguments": ["--user", "me"], "undo": undo, "seconds": 300}
    request = {"file": str(folder / "remedy.sh"), **about}
    command = [sys.executable, "-c", program, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    printed = json.loads(done.stdout)
    return [(step["status"], step["output"]) for step in printed["runs"]], printed["changed"]


REMEDY = """
echo "$*"
case $1 in
    --check) [ -e etc/done ] ;;
    --yes) {yes} ;;
esac
"""


@pytest.mark.parametrize(
    ("script", "undo", "steps", "changed"),
    [
        # It is looked for, put in place, and put in place again.
        (
            REMEDY.format(yes="[ -e etc/done ] || : >etc/done"),
            False,
            [(1, "--check --user me\n"), (0, "--yes --user me\n"), (0, "--yes --user me\n")],
            [],
        ),
        # What the second run changes is told even where it is the same again.
        (
            REMEDY.format(yes="echo same >etc/done"),
            False,
            [(1, "--check --user me\n"), (0, "--yes --user me\n"), (0, "--yes --user me\n")],
            ["etc/done"],
        ),
        (REMEDY.format(yes="exit 3"), False, [(1, "--check --user me\n"), (3, "--yes --user me\n")], []),
        (REMEDY.format(yes="exit 1"), False, [(1, "--check --user me\n"), (1, "--yes --user me\n")], []),
        ("exit 0", False, [(0, "")], []),
        ('echo "$*"', True, [(0, "--undo --yes --user me\n")], []),
    ],
    ids=["twice", "changes", "cannot", "fails", "in place", "undo"],
)
def test_a_remedy_is_put_in_place_or_taken_back(
    tmp_path: Path, script: str, undo: bool, steps: list[tuple[int, str]], changed: list[str]
) -> None:
    assert remedy(tmp_path, script, undo=undo) == (steps, [str(tmp_path / name) for name in changed])


# Runs a command as whoever runs this.
SUDO = 'shift; exec "$@"'


def knob(
    folder: Path, name: str, argument: dict[str, object], stubs: dict[str, str], *, user: str = "tester"
) -> dict[str, str]:
    """Put a setting on below a folder, with stand-ins for programs. Gives the environment."""
    program = programs.read_sources()["knobs"]
    places = [
        "nix/store",
        "srv",
        "usr/local/bin",
        "etc/cron.d",
        "etc/pam.d",
        "etc/sudoers.d",
        "etc/systemd/system",
    ]
    places += ["sys/fs/cgroup/init.scope", "sys/fs/selinux", "usr/sbin"]
    program = re.sub(rf"/({'|'.join(places)})\b", f"{folder}/\\1", program)
    program = program.replace("/usr/share/docker.io", str(folder)).replace('"tester"', repr(user))
    for place in places:
        (folder / place).mkdir(parents=True, exist_ok=True)
    for stub, text in stubs.items():
        executable(folder / "stubs" / stub, f"#!/bin/sh\n{text}\n")
    environment = {
        **os.environ,
        "PATH": f"{folder}/stubs:{os.environ['PATH']}",
        "FOLDER": str(folder),
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "-c", program, json.dumps({name: argument})]
    subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    return environment


@pytest.mark.parametrize(
    ("engine", "kind", "option"),
    [
        ("podman", "no-namespaces", "--security-opt=seccomp={}/srv/lab-container.json"),
        ("podman", "unconfined", "--security-opt=unmask=ALL"),
        ("podman", "privileged", "--privileged"),
        ("docker", "unconfined", "--security-opt=systempaths=unconfined"),
        ("docker", "privileged", "--privileged"),
    ],
)
def test_a_command_is_handed_to_a_container_word_for_word(
    tmp_path: Path, engine: str, kind: str, option: str
) -> None:
    stubs = {"mount": 'echo "$@" >>"$FOLDER/mounted"', "sudo": "printf '%s\\n' \"$@\""}
    stubs |= {"id": "case $1 in -un) echo tester ;; -G) echo 7 8 ;; *) echo 7 ;; esac"}
    stubs |= {"mountpoint": '[ "$2" = /home ]', "docker": 'echo "$@" >>"$FOLDER/imported"'}
    settings = {"engine": engine, "kind": kind, "kvm": False, "rootless": False}
    environment = knob(tmp_path, "container", settings, stubs)
    root, user = f"--rootfs\n{tmp_path}/srv/lab-container", "tester"
    if engine == "docker":
        root, user = "lab-container", "7:7\n--group-add=7\n--group-add=8"
        assert (tmp_path / "imported").read_text() == "import - lab-container\n"
        assert (tmp_path / "usr/sbin/docker-init").is_symlink()
    else:
        assert (tmp_path / "mounted").read_text() == f"--bind / {tmp_path}/srv/lab-container\n"
    words = ["python3", "-c", "print('a  b')\n$HOME", "--privileged"]
    command = [str(tmp_path / "usr/local/bin/lab-container"), *words]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    given, _, inside = done.stdout.partition(f"\n{root}\n")
    assert given.startswith(f"-n\n/usr/bin/{engine}\nrun\n--rm\n")
    assert given.endswith(f"--user\n{user}\n--workdir\n{tmp_path}")
    assert "--device" not in given
    assert option.format(tmp_path) in given.splitlines()
    assert "--tty" not in given
    assert "--volume=/home:/home\n" in given
    assert ("--volume=/tmp:/tmp\n" in given) == (engine == "docker")
    assert inside == "\n".join(words) + "\n"


def test_a_daemon_of_the_suites_user_starts_a_container_without_root(tmp_path: Path) -> None:
    script = tmp_path / "contrib/dockerd-rootless.sh"
    executable(script, "")
    told = 'echo "$(basename "$0") $*" >>"$FOLDER/told"'
    stubs = {"loginctl": told, "systemctl": told, "runuser": told, "id": "echo 7"}
    settings: dict[str, object] = {"engine": "docker", "kind": "default", "kvm": True, "rootless": True}
    me = pwd.getpwuid(os.getuid())
    knob(tmp_path, "container", settings, stubs, user=me.pw_name)
    command = (tmp_path / "usr/local/bin/lab-container").read_text()
    assert "DOCKER_HOST=unix:///run/user/$(id -u)/docker.sock" in command
    assert "--env=HOME" in command
    assert "sudo" not in command
    assert not (tmp_path / "etc/sudoers.d/lab-container").exists()
    told_lines = (tmp_path / "told").read_text().splitlines()
    assert told_lines[:2] == [
        f"loginctl enable-linger {me.pw_name}",
        f"systemctl start user@{me.pw_uid}.service",
    ]
    assert told_lines[2].endswith(str(script))
    daemon = f"docker --host=unix:///run/user/{me.pw_uid}/docker.sock"
    assert told_lines[3].endswith(f"{daemon} import - lab-container")
    script.unlink()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        knob(tmp_path, "container", settings, stubs, user=me.pw_name)
    assert "to start Docker's daemon without root" in failed.value.stderr


def test_a_command_is_handed_to_a_service_word_for_word(tmp_path: Path) -> None:
    # It runs what is after its options, in which it replaces variables: $$ is one dollar.
    sudo = r"""shift 2
printf '%s\n' "$@" >"$FOLDER/given"
while [ "$1" != -- ]; do shift; done
shift
for word do set -- "$@" "$(printf '%s' "$word" | sed 's/\$\$/$/g')"; shift; done
exec "$@"
"""
    settings: dict[str, object] = {"NoNewPrivileges": "yes", "RestrictNamespaces": "user mnt"}
    environment = knob(tmp_path, "service", settings, {"sudo": sudo})
    program = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
    words = [sys.executable, "-c", program, "a  b\n$HOME ${HOME}", "--uid=0"]
    done = subprocess.run(
        [str(tmp_path / "usr/local/bin/lab-service"), *words],
        env=environment,
        input="typed",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "['a  b\\n$HOME ${HOME}', '--uid=0'] typed\n")
    given = (tmp_path / "given").read_text().splitlines()
    options = given[: given.index("--")]
    assert {"--wait", "--pipe", f"--uid={os.getuid()}", f"--working-directory={tmp_path}"} < set(options)
    assert {"--property=NoNewPrivileges=yes", "--property=RestrictNamespaces=user mnt"} < set(options)
    killed = [str(tmp_path / "usr/local/bin/lab-service"), "sh", "-c", "kill -KILL $$"]
    ended = subprocess.run(killed, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 128 + signal.SIGKILL


def test_a_command_is_handed_to_a_unit_of_the_users_service_manager(tmp_path: Path) -> None:
    given = "printf '%s\\n' \"$@\""
    environment = knob(tmp_path, "session", {"kind": "user-unit"}, {"systemd-run": given})
    done = subprocess.run(
        [str(tmp_path / "usr/local/bin/lab-session"), "echo", "$HOME"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *("--user", "--quiet", "--collect", "--wait", "--pipe", f"--working-directory={tmp_path}", "--"),
        *("/bin/sh", "-c", '"$$@"; exit $$?', "sh", "echo", "$$HOME"),
    ]


def test_a_command_runs_in_the_next_job_of_cron_with_the_files_of_its_caller(tmp_path: Path) -> None:
    # As cron starts, it runs the job that the table has.
    starts_job = """[ "$1" = daemon-reload ] && exit
echo "$@" >>"$FOLDER/started"
read -r when user command <"$FOLDER/etc/cron.d/lab"
echo "$when $user" >>"$FOLDER/started"
cd / && "$command" </dev/null >/dev/null 2>&1 &
"""
    environment = knob(tmp_path, "session", {"kind": "cron"}, {"systemctl": starts_job, "sudo": SUDO})
    [drop_in] = tmp_path.glob("etc/systemd/system/cron*.service.d/lab.conf")
    assert "ExecStartPre=/bin/rm -f /run/crond.reboot " in drop_in.read_text()
    assert "[Unit]\nStartLimitIntervalSec=0\n" in drop_in.read_text()
    program = "import os, sys; print(sys.argv[1:], sys.stdin.read(), os.getcwd()); sys.exit(7)"
    command = [str(tmp_path / "usr/local/bin/lab-session"), sys.executable, "-c"]
    done = subprocess.run(
        [*command, program, "a  b\n$HOME"],
        env=environment,
        input="typed",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"['a  b\\n$HOME'] typed {tmp_path}\n"
    assert re.fullmatch(r"restart crond?\.service\n@reboot tester\n", (tmp_path / "started").read_text())
    killed = [*command, "import os; os.kill(os.getpid(), 9)"]
    ended = subprocess.run(killed, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert ended.returncode == 128 + signal.SIGKILL


def test_a_command_is_started_in_the_control_group_of_systemd(tmp_path: Path) -> None:
    environment = knob(tmp_path, "session", {"kind": "init-scope"}, {"sudo": SUDO})
    command = [str(tmp_path / "usr/local/bin/lab-session"), "sh", "-c", "echo $$ $XDG_SESSION_ID"]
    started = subprocess.run(
        command, env=environment | {"XDG_SESSION_ID": "7"}, capture_output=True, text=True, check=True
    )
    # Without the number of the login's session.
    assert started.stdout == (tmp_path / "sys/fs/cgroup/init.scope/cgroup.procs").read_text()


def test_root_is_asked_for_a_view_of_the_store_with_what_the_callers_session_told(tmp_path: Path) -> None:
    given = 'printf "%s\\n" "$@" >"$FOLDER/given"'
    environment = knob(tmp_path, "programs", {"folder": "/nix/store"}, {"sudo": given, "mount": given})
    assert (tmp_path / "given").read_text() == f"--bind\n/usr\n{tmp_path}/nix/store/lab-system\n"
    command = str(tmp_path / "usr/local/bin/lab-nix-store")
    told = {"PATH": environment["PATH"], "FOLDER": str(tmp_path), "HOME": "/home/a b", "OTHER": "1"}
    subprocess.run([command, "echo", "$HOME", "--"], env=told, cwd=tmp_path, check=True)
    assert (tmp_path / "given").read_text().splitlines() == [
        *("-n", command, "--as", str(os.getuid()), str(tmp_path), "HOME=/home/a b", "--"),
        *("echo", "$HOME", "--"),
    ]
    rule = (tmp_path / "etc/sudoers.d/lab-nix-store").read_text()
    assert rule == f"ALL ALL=(root) NOPASSWD: {command} *\n"


def test_logins_get_no_session_of_logind(tmp_path: Path) -> None:
    put(
        tmp_path,
        {"etc/pam.d/common-session": "session required pam_unix.so\n-session optional pam_systemd.so\n"},
    )
    knob(tmp_path, "session", {"kind": "none"}, {"systemctl": 'echo "$@" >"$FOLDER/asked"'})
    text = (tmp_path / "etc/pam.d/common-session").read_text()
    assert text == "session required pam_unix.so\n#-session optional pam_systemd.so\n"
    assert (tmp_path / "asked").read_text() == "stop user@*.service\n"


def test_the_filter_refuses_user_namespaces_and_nothing_else_of_clone(tmp_path: Path) -> None:
    settings = {"engine": "podman", "kind": "no-namespaces", "kvm": True, "rootless": False}
    knob(tmp_path, "container", settings, {"mount": ""})
    profile = json.loads((tmp_path / "srv/lab-container.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    refused = {name: rule for rule in profile["syscalls"] for name in rule["names"]}
    assert {"unshare", "setns", "clone", "clone3"} == set(refused)
    assert (refused["unshare"]["errnoRet"], refused["clone3"]["errnoRet"]) == (errno.EPERM, errno.ENOSYS)
    [flag] = refused["clone"]["args"]
    # CLONE_NEWUSER of clone(2).
    assert (flag["index"], flag["value"], flag["valueTwo"]) == (0, 0x10000000, 0x10000000)


@pytest.mark.parametrize(
    ("mode", "module", "enforce"), [("enforcing", "(deny a b (c (d)))", "1"), ("permissive", None, "0")]
)
def test_selinux_gets_its_module_first(tmp_path: Path, mode: str, module: str | None, enforce: str) -> None:
    stubs = {"semodule": 'cp "$2" "$FOLDER/"; [ "$(cat "$FOLDER/sys/fs/selinux/enforce")" = 0 ]'}
    knob(tmp_path, "selinux", {"mode": mode, "module": module}, stubs)
    assert [file.read_text() for file in tmp_path.glob("lab.cil")] == ([module] if module else [])
    assert (tmp_path / "sys/fs/selinux/enforce").read_text() == enforce


@pytest.mark.parametrize(
    ("mode", "before", "after", "arguments"),
    [
        ("enforce", "profile a flags=(m,complain) {", "profile a flags=(m) {", ""),
        ("enforce", "profile a /x flags=(unconfined) {", "profile a /x {", ""),
        ("complain", "profile a /x flags=(unconfined) {", "profile a /x {", " --complain"),
        ("unconfined", "profile a /{usr/,}x {", "profile a /{usr/,}x flags=(unconfined) {", ""),
        ("unconfined", "a flags=(complain) {", "a flags=(unconfined) {", ""),
        ("unconfined", '"a" /x flags=(m, complain) {', '"a" /x flags=(m, unconfined) {', ""),
        ("unconfined", "profile ab /x {", "profile ab /x {", ""),
    ],
)
def test_a_profile_s_mode_is_loaded(tmp_path: Path, mode: str, before: str, after: str, arguments: str) -> None:
    file = tmp_path / "profile"
    file.write_text(f"{before}\n  file,\n}}\n")
    profile = {"name": "a", "mode": mode, "text": None, "shipped": str(file)}
    stubs = {"apparmor_parser": 'echo "$@" >"$FOLDER/parsed"'}
    knob(tmp_path, "apparmor", {"profiles": [profile], "removed": []}, stubs)
    assert file.read_text() == f"{after}\n  file,\n}}\n"
    assert (tmp_path / "parsed").read_text() == f"--replace{arguments} {file}\n"


def test_a_file_and_a_folder_are_moved_to_where_the_symlink_leads(tmp_path: Path) -> None:
    def moved(links: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(programs.files()["knobs"]), json.dumps({"files": links})]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/bundle.crt").write_text("a certificate")
    (tmp_path / "home/me").mkdir(parents=True)
    links = {
        str(tmp_path / "certs/bundle.crt"): "../extracted/bundle.pem",
        str(tmp_path / "home"): str(tmp_path / "data/home"),
    }
    assert json.loads(moved(links).stdout) == {"applied": True}
    assert (tmp_path / "extracted/bundle.pem").read_text() == "a certificate"
    assert (tmp_path / "data/home/me").is_dir()
    assert {path: str(Path(path).readlink()) for path in links} == links
    assert (tmp_path / "certs/bundle.crt").read_text() == "a certificate"
    # There is none where nothing was before.
    done = moved({str(tmp_path / "none"): "elsewhere"})
    assert (done.returncode, (tmp_path / "none").is_symlink()) == (1, False)
    assert done.stderr == f"there is no {tmp_path}/none to move to {tmp_path}/elsewhere\n"
