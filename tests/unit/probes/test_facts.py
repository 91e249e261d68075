"""The programs that say what a guest is, run on this host and on folders made up."""

import ctypes
import errno
import gzip
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from packaging.version import Version
from pydantic import BaseModel

from lab import probes
from lab.builds.elf import ElfNeeds, find_unmet_need
from lab.catalog.knobs import Bubblewrap
from lab.probes import PROGRAMS, ProbedUser, SuiteUser
from lab.probes.facts import UserSession, parse_label
from tests.builders.facts import executable, put, read_facts_of_this_host, run_program
from tests.builders.facts import facts as a_facts


def printed(program: str, argument: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run_program(program, argument).stdout)
    return answer


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAMS / "facts.py"))


def test_any_linux_host_has_facts_and_the_sysctls_that_are_asked_for() -> None:
    # The kernel has none of the others: the third is below a file, the fourth is a folder.
    names = ["kernel.ostype", "kernel.no_such_thing", "kernel.ostype.below", "kernel.random"]
    facts = read_facts_of_this_host(names)
    assert facts.kernel == os.uname().release
    assert facts.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert facts.os.id
    assert (facts.sysctls["user.max_user_namespaces"] or "").isdigit()
    assert facts.mounts.keys() == {"/home", "/tmp"}
    assert [facts.sysctls[name] for name in names] == ["Linux", None, None, None]
    assert "kernel.osrelease" not in facts.sysctls


def test_a_slash_in_a_sysctl_is_a_dot(program: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, *_: str) -> str:
        return str(path)

    monkeypatch.setattr(Path, "read_text", read)
    assert program["sysctl"]("net.ipv4.conf.eth0/1.forwarding") == "/proc/sys/net/ipv4/conf/eth0.1/forwarding"


def test_a_guest_in_which_root_cannot_read_a_fact_is_an_error() -> None:
    # The kernel lets nobody read this one, root included.
    done = run_program("facts", {"sysctls": ["vm.compact_memory"]})
    assert (done.returncode, "root cannot read sysctls.vm.compact_memory" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "odd", ["", "beta", "4.1.0~beta1", "2.41-custom", "9" * 5000, "9." * 5000, "\u0664.\u0661"]
)
def test_a_version_that_no_release_has_is_compared_as_far_as_it_has_numbers(odd: str) -> None:
    told = a_facts(glibc=odd, bubblewrap={"version": odd})
    assert bool(find_unmet_need([ElfNeeds("program", glibc=Version("3.0"))], told)) is odd.startswith("2")
    assert Bubblewrap(state="setuid").why_not(told) is None


def test_the_suites_user_is_seen_from_inside_with_its_limits_and_where_links_lead(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "dangling").symlink_to("elsewhere")
    paths = [str(tmp_path / name) for name in ("link", "dangling", "none")]
    user = SuiteUser.model_validate(printed("probe", {"probes": False, "links": paths}))
    assert (user.uid, sorted(user.groups)) == (os.getuid(), sorted(os.getgroups()))
    assert [(user.links[path].target, user.links[path].error) for path in paths] == [
        ("/etc", ""),
        ("elsewhere", "No such file or directory"),
        (None, "No such file or directory"),
    ]
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    assert user.context.limits.nproc == (None if soft == resource.RLIM_INFINITY else soft)
    limits = user.context.limits.nofile, user.context.limits.nofile_hard
    assert limits == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_as_many_processes_as_a_box_needs_are_started_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    start = runpy.run_path(str(PROGRAMS / "probe.py"))["start_processes"]
    children: list[int] = []

    def fork(most: int = 99) -> int:
        if len(children) == most:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        children.append(os_fork())
        return children[-1]

    os_fork = os.fork
    monkeypatch.setattr(os, "fork", fork)
    count = start.__globals__["PROCESSES"]
    assert start() == {"command": ["fork", f"{count} at once"], "status": 0, "stderr": ""}
    assert len(children) == count
    children.clear()
    monkeypatch.setattr(os, "fork", lambda: fork(most=3))
    refused = start()
    assert (refused["status"], refused["stderr"]) == (errno.EAGAIN, "Resource temporarily unavailable")
    assert len(children) == 3
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_the_label_of_bubblewrap_is_read_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"probes": False, "links": []}
    # Waits for its arguments, as bubblewrap does.
    waits = f'#!/bin/bash\necho "$@" >{tmp_path}/began\ncat <&"$2" >/dev/null\n'
    program = executable(tmp_path / "bwrap", waits)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    own = SuiteUser.model_validate(printed("probe", request))
    # This program is confined like the one that started it.
    assert own.bubblewrap == own.context.apparmor
    assert (tmp_path / "began").read_text().startswith("--args ")
    # Until it has read something, its label may still be that of the program that started it.
    program.write_text("#!/bin/bash\nsleep 0.2\n")
    assert SuiteUser.model_validate(printed("probe", request)).bubblewrap is None
    program.chmod(0o644)
    (tmp_path / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SuiteUser.model_validate(printed("probe", request)).bubblewrap is None


def test_a_missing_program_is_not_a_forbidden_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(command: list[str], **_: object) -> None:
        # As the kernel says if a folder of PATH may not be entered.
        raise PermissionError(errno.EACCES, "Permission denied", command[0])

    monkeypatch.setattr(subprocess, "run", refused)
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    attempt = runpy.run_path(str(PROGRAMS / "probe.py"))["attempt"]
    assert attempt(["bwrap"])["stderr"] == "[Errno 2] No such file or directory: 'bwrap'"
    (tmp_path / "bwrap").touch(mode=0o644)
    assert attempt(["bwrap"])["stderr"] == "[Errno 13] Permission denied: 'bwrap'"


def test_every_probe_says_what_was_tried_and_what_came_of_it() -> None:
    probes = ProbedUser.model_validate(printed("probe", {"probes": True})).probes
    for probe in probes.by_name().values():
        assert probe.command
        assert probe.stderr == "" or not probe.worked


MODELS = [
    kind for kind in vars(probes.facts).values() if isinstance(kind, type) and issubclass(kind, BaseModel)
]


@pytest.mark.parametrize("model", MODELS)
def test_every_field_says_what_it_is_and_what_none_means(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        if name != "root":
            assert field.is_required()
            assert field.description and field.description.endswith(".")
            assert ("None: " in field.description) == (type(None) in get_args(field.annotation))


def test_selinux_is_read_from_the_kernel_and_its_policy_from_where_it_came(
    program: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selinux = program["selinux"]
    read = selinux.__globals__
    kernel = put(tmp_path, {"enforce": "1", "class/user_namespace/index": "67"})
    files = {
        "/etc/selinux/config": "# SELINUX=disabled\nSELINUX=permissive\nSELINUXTYPE=default\n",
        "/var/lib/selinux/default/active/modules/400": ["lab"],
        "/etc/selinux/default/policy": ["policy.9", "policy.33", "policy.34.old"],
    }
    text, names = read["text"], read["names"]
    monkeypatch.setitem(read, "SELINUX", kernel)
    monkeypatch.setitem(read, "text", lambda path: files.get(str(path)) or text(path))
    monkeypatch.setitem(read, "names", lambda path: files.get(str(path)) or names(path))
    assert selinux() == {
        "mode": "enforcing",
        "policy": "default",
        "policy_version": 33,
        "user_namespace_class": True,
        "modules": ["lab"],
    }
    (kernel / "enforce").write_text("0")
    assert selinux()["mode"] == "permissive"
    (kernel / "enforce").unlink()
    assert selinux() is None


def test_apparmor_is_read_with_the_feature_that_decides(
    program: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apparmor = program["apparmor"]
    read = apparmor.__globals__
    security = put(
        tmp_path,
        {
            # The last one is of debian-14: its image viewer has a policy namespace.
            "profiles": "unprivileged_userns (complain)\nplasmashell//QtWebEngineProcess (unconfined)\n"
            ":glycin:bwrap (enforce)\n",
            "features/namespaces/mask": "userns_create",
        },
    )
    monkeypatch.setitem(read, "APPARMOR", security)
    monkeypatch.setitem(read, "output", lambda *command: "AppArmor parser version 4.1.0\nCopyright")
    facts = apparmor()
    assert (facts["version"], facts["userns_mediation"]) == ("4.1.0", True)
    assert facts["profiles"] == {
        "plasmashell//QtWebEngineProcess": "unconfined",
        "unprivileged_userns": "complain",
    }
    (security / "features/namespaces/mask").unlink()
    assert apparmor()["userns_mediation"] is False


def test_apparmor_is_absent_only_if_the_kernel_says_so(
    program: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apparmor = program["apparmor"]
    monkeypatch.setitem(apparmor.__globals__, "APPARMOR", tmp_path / "not-mounted")
    enabled = tmp_path / "enabled"
    monkeypatch.setitem(apparmor.__globals__, "APPARMOR_ENABLED", enabled)
    assert apparmor() is None
    enabled.write_text("N\n")
    assert apparmor() is None
    enabled.write_text("Y\n")
    program["UNREADABLE"].clear()
    assert apparmor() is None
    assert program["UNREADABLE"] == ["apparmor"]


@pytest.mark.parametrize(
    ("version", "capabilities"),
    [
        (12, {"IRQCHIP": True, "USER_MEMORY": True, "IRQFD": False, "IOEVENTFD": True, "SET_TSS_ADDR": True}),
        (11, None),
        (None, None),
    ],
)
def test_kvm_is_asked_for_its_capabilities_and_another_device_for_none(
    program: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int | None,
    capabilities: dict[str, bool] | None,
) -> None:
    device = put(tmp_path, {"kvm": ""}) / "kvm"
    ask = program["kvm_capabilities"]

    def ioctl(_device: int, request: int, argument: int) -> int:
        if version is None:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        # KVM_CAP_IRQFD is 32.
        return version if request == 0xAE00 else int(argument != 32)

    monkeypatch.setattr("fcntl.ioctl", ioctl)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    monkeypatch.setitem(ask.__globals__, "KVM", device)
    program["UNREADABLE"].clear()
    assert ask() == capabilities
    assert program["UNREADABLE"] == []


@pytest.mark.parametrize(
    ("error", "unreadable"),
    [(errno.EACCES, ["kvm.capabilities"]), (errno.EPERM, ["kvm.capabilities"]), (errno.ENXIO, [])],
)
def test_a_kvm_that_the_user_may_not_open_has_capabilities_that_nobody_knows(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: int, unreadable: list[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, "refused")

    monkeypatch.setattr(os, "open", refuse)
    program["UNREADABLE"].clear()
    assert program["kvm_capabilities"]() is None
    assert program["UNREADABLE"] == unreadable


@pytest.mark.parametrize(
    ("answer", "version", "unreadable"),
    [
        (6, 6, []),
        (-errno.ENOSYS, None, []),
        (-errno.EOPNOTSUPP, None, []),
        (-errno.EPERM, None, ["landlock"]),
        # As a service with SystemCallFilter=@system-service does.
        (None, None, ["landlock"]),
    ],
)
def test_the_kernel_tells_landlocks_version_and_a_filter_does_not(
    program: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    answer: int | None,
    version: int | None,
    unreadable: list[str],
) -> None:
    class Libc:
        def syscall(self, number: int, *_: object) -> int:
            if answer is None or number != 444:
                os.kill(os.getpid(), signal.SIGSYS)
                return -1
            ctypes.set_errno(max(-answer, 0))
            return max(answer, -1)

    monkeypatch.setattr(ctypes, "CDLL", lambda _name, use_errno: Libc())
    program["UNREADABLE"].clear()
    assert (program["landlock"](), program["UNREADABLE"]) == (version, unreadable)


def test_the_kernels_options_are_read_from_the_first_file_that_tells_them(
    program: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = program["kernel_options"]
    # As the kernel's own scripts write it: a longer name, and one that is not set.
    lines = "\nCONFIG_USER_NS=y\nCONFIG_VSOCKETS=m\nCONFIG_TUN_VNET_CROSS_LE=y\n# CONFIG_TUN is not set\n"
    files = (f"{tmp_path}/config.gz", f"{tmp_path}/config-{{}}")
    monkeypatch.setitem(read.__globals__, "CONFIGURATIONS", files)
    program["UNREADABLE"].clear()
    assert read() is None
    assert program["UNREADABLE"] == ["kernel_options"]
    put(tmp_path, {f"config-{os.uname().release}": lines, "config.gz": "no gzip"})
    told = read()
    assert {name: told[name] for name in ("USER_NS", "VSOCKETS", "TUN", "PID_NS")} == {
        "USER_NS": "y",
        "VSOCKETS": "m",
        "TUN": None,
        "PID_NS": None,
    }
    (tmp_path / "config.gz").write_bytes(gzip.compress(b"\nCONFIG_TUN=y\n"))
    assert read()["TUN"] == "y"


@pytest.mark.parametrize(
    ("path", "on", "options"),
    [
        ("/home", "/home", ["rw", "noexec"]),  # the later of two mounts on one point hides the other
        ("/home/user", "/home", ["rw", "noexec"]),
        ("/homes", "/", ["rw"]),
        ("/tmp", "/tmp", ["rw", "nosuid"]),
    ],
)
def test_a_path_has_its_mount_options(program: dict[str, Any], path: str, on: str, options: list[str]) -> None:
    table = ["/dev/vda / ext4 rw", "/dev/vdc /home ext4 rw", "tmpfs /tmp tmpfs rw,nosuid"]
    lines = [line.split() for line in [*table, "/dev/vdc /home ext4 rw,noexec"]]
    mount = program["mount_of"](path, lines)
    assert (mount["on"], mount["options"]) == (on, options)


@pytest.mark.parametrize(
    ("text", "profiles", "mode", "confines"),
    [
        ("a (enforce)", ("a",), "enforce", True),
        ("a//&unconfined (enforce)", ("a",), "enforce", True),
        ("unconfined//&a (complain)", ("a",), "complain", True),
        ("a//&b (mixed)", ("a", "b"), "mixed", True),
        ("a//child//&unconfined (enforce)", ("a//child",), "enforce", True),
        ("a (unconfined)", ("a",), "unconfined", False),
        ("unconfined", (), None, False),
        (None, (), None, False),
    ],
)
def test_a_label_is_read_as_its_profiles_without_the_unconfined_one(
    text: str | None, profiles: tuple[str, ...], mode: str | None, confines: bool
) -> None:
    label = parse_label(text)
    assert (label.profiles, label.mode, label.confines) == (profiles, mode, confines)


USER_MANAGER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("cgroup", "asked"),
    [
        ("0::/system.slice/run-u5.service\n", "show {} -- run-u5.service"),
        ("4:pids:/a.service\n1:name=systemd:/system.slice/b.service\n0::/c.service\n", "show {} -- b.service"),
        ("0::/system.slice/runner.service/job-1\n", "show {} -- runner.service"),
        (f"0::{USER_MANAGER}/app.slice/serve.service\n", "--user show {} -- serve.service"),
        (f"0::{USER_MANAGER}/app.slice/terminal.scope\n", "show {} -- user@1000.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/\n", None),
        (None, None),
    ],
)
def test_a_service_is_known_by_its_control_group_and_systemd_tells_what_restricts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str | None, asked: str | None
) -> None:
    probe = runpy.run_path(str(PROGRAMS / "probe.py"))
    service, unrestricted = probe["service"], probe["service_unrestricted"]
    monkeypatch.setitem(service.__globals__, "text", lambda _path: cgroup)
    shown = "ProcSubset=all\nRestrictNamespaces=ipc user\nPrivateDevices=yes\nBindPaths=/home/me:/srv:rbind"
    shown += "\nSystemCallFilter=read unshare clone"
    systemctl = tmp_path / "systemctl"
    executable(systemctl, f'#!/bin/sh\necho "$*" >{tmp_path}/asked\necho "{shown}"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = service()
    if asked is None:
        assert (settings, unrestricted(settings)["status"], (tmp_path / "asked").exists()) == ({}, 0, False)
        return
    names = ",".join(probe["SERVICE"])
    assert (tmp_path / "asked").read_text() == f"{asked.format(f'--property={names}')}\n"
    assert settings["RestrictNamespaces"] == "ipc user"
    restricting = "PrivateDevices=yes; RestrictNamespaces=ipc user; "
    restricting += "SystemCallFilter=mount pivot_root seccomp umount2"
    assert unrestricted(settings) == {
        "command": ["systemctl", "show"],
        "status": 1,
        "stderr": restricting,
        "settings": dict(setting.split("=") for setting in restricting.split("; ")),
    }
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    assert (service(), unrestricted(service())["status"]) == (None, None)


@pytest.mark.parametrize(
    ("group", "kind", "shown"),
    [
        ("/user.slice/user-1000.slice/session-7.scope", "login", "/user.slice/user-1000.slice/session-*.scope"),
        (f"{USER_MANAGER}/app.slice/run-r1.scope", "user unit", f"{USER_MANAGER}/app.slice/*.scope"),
        ("/system.slice/ssh.service", "system service", "/system.slice/ssh.service"),
        ("/acme.slice/acme-jobs.service/job-1", "system service", "/*.slice/*.service/*"),
        ("/init.scope", "init.scope", "/init.scope"),
        ("/", "other", "/"),
        ("/machine.slice/docker-0a1b.scope", "other", "/*.slice/*.scope"),
    ],
)
def test_a_session_is_known_by_its_control_group_without_what_is_private(
    monkeypatch: pytest.MonkeyPatch, group: str, kind: str, shown: str
) -> None:
    session = runpy.run_path(str(PROGRAMS / "probe.py"))["session"]
    files = {"/proc/self/cgroup": f"0::{group}\n", "/run/systemd/sessions/7": "UID=1000\nCLASS=background\n"}
    monkeypatch.setitem(session.__globals__, "text", files.get)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/runtime-jane")
    described = UserSession.model_validate(session())
    assert (described.kind, described.cgroup, described.manager) == (kind, shown, False)
    assert described.login_class == ("background" if kind == "login" else None)
    assert described.runtime_dir == "*"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert session()["runtime_dir"] == "/run/user/1000"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert session()["runtime_dir"] is None


@pytest.mark.parametrize(("answer", "answers"), [(b"OK 01\r\n", True), (b"REJECTED\r\n", False), (b"", False)])
def test_a_service_manager_that_listens_has_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, answers: bool
) -> None:
    (tmp_path / "systemd").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    lines = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "systemd/private"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                lines.append(connection.recv(100))
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        assert runpy.run_path(str(PROGRAMS / "probe.py"))["manager_answers"]() is answers
        thread.join()
    assert lines == [b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n"]


@pytest.mark.parametrize("writable", [True, False])
def test_a_process_is_moved_to_a_control_group_of_its_own_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    own_cgroup = runpy.run_path(str(PROGRAMS / "probe.py"))["own_cgroup"]
    put(tmp_path, {"cgroup.controllers": "cpu"})
    monkeypatch.setitem(own_cgroup.__globals__, "CGROUPS", str(tmp_path))
    monkeypatch.setitem(own_cgroup.__globals__, "USER_MANAGER", "/nowhere")
    mkdir, rmdir, os_fork = os.mkdir, os.rmdir, os.fork
    moved: list[str] = []
    children: list[int] = []

    def fork() -> int:
        children.append(os_fork())
        return children[-1]

    def make_group(path: str) -> None:
        mkdir(path)
        # The kernel makes this file in each control group. A folder cannot be opened for writing.
        file = Path(path) / "cgroup.procs"
        if writable:
            file.touch()
        else:
            mkdir(file)

    def remove_group(path: str) -> None:
        file = Path(path) / "cgroup.procs"
        if writable:
            moved.append(file.read_text())
            file.unlink()
        else:
            rmdir(file)
        rmdir(path)

    monkeypatch.setattr(os, "mkdir", make_group)
    monkeypatch.setattr(os, "rmdir", remove_group)
    monkeypatch.setattr(os, "fork", fork)
    done = own_cgroup()
    assert done["command"] == ["move a process to", f"{tmp_path}/.lab-probe"]
    if writable:
        assert (done["status"], done["stderr"]) == (0, "")
    else:
        refusal = f"[Errno 21] Is a directory: '{tmp_path}/.lab-probe'"
        assert (done["status"], done["stderr"]) == (errno.EISDIR, refusal)
    assert bool(moved) is writable
    assert [file.name for file in tmp_path.iterdir()] == ["cgroup.controllers"]
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)
    assert len(children) == 1
    (tmp_path / "cgroup.controllers").unlink()
    assert own_cgroup()["status"] is None


@pytest.mark.parametrize(
    ("calls", "denied"),
    [
        ("~", ""),
        ("accept clone mount pivot_root seccomp umount2 unshare", ""),
        ("accept clone unshare", "mount pivot_root seccomp umount2"),
        ("~reboot swapon", ""),
        ("~chroot pivot_root:EPERM mount", "mount pivot_root"),
    ],
)
def test_a_list_of_system_calls_tells_what_the_jailer_lacks(calls: str, denied: str) -> None:
    told = runpy.run_path(str(PROGRAMS / "probe.py"))["service_unrestricted"]({"SystemCallFilter": calls})
    assert told["stderr"] == (f"SystemCallFilter={denied}" if denied else "")
    assert told["status"] == int(bool(denied))


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (0, 0, ""),
        (errno.EINVAL, 0, ""),
        (errno.EPERM, errno.EPERM, "Operation not permitted"),
        (-signal.SIGSYS, -signal.SIGSYS, "killed by SIGSYS"),
    ],
)
def test_a_system_call_that_only_a_filter_can_refuse_is_made_in_a_child(
    monkeypatch: pytest.MonkeyPatch, error: int, status: int, text: str
) -> None:
    class Libc:
        def unshare(self, _flags: int) -> int:
            if error < 0:
                os.kill(os.getpid(), -error)
            ctypes.set_errno(error)
            return -1 if error else 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _name, use_errno: Libc())
    call = runpy.run_path(str(PROGRAMS / "probe.py"))["call"]
    done = call("unshare(1)", "unshare", 1, expected=errno.EINVAL)
    assert done == {"command": ["unshare(1)"], "status": status, "stderr": text}
