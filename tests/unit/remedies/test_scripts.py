"""Remedies' scripts on an imitated host: what they change, what they take back, and what they leave alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders.processes import on_terminal
from tests.builders.script_host import DENY_BWRAP, KNOWN, STATOVERRIDE, STUBS, Host

APPARMOR_PARSER = STUBS["apparmor_parser"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def blocked(host: Host) -> Host:
    """A host with Debian's sysctl at 0, a profile without the rule for bubblewrap, and SELinux enforcing."""
    host.sysctl("kernel.unprivileged_userns_clone", "0")
    host.sysctl("user.max_user_namespaces", "0")
    for kind, limit in {"mnt": 15000, "uts": 20000, "ipc": 0, "pid": 3}.items():
        host.sysctl(f"user.max_{kind}_namespaces", str(limit))
    host.sysctl("kernel.threads-max", "30000")
    policy = "sys/kernel/security/apparmor"
    host.put(f"{policy}/features/namespaces/mask", "userns_create\n")
    host.put(f"{policy}/profiles", "")
    bwrap = host.put("usr/bin/bwrap", "")
    for name, text in {
        "strict": f"# profile other {bwrap} {{\nprofile strict-bwrap {bwrap} {{\n  file,\n}}\n",
        "unprivileged_userns": "profile unprivileged_userns {\n  audit deny capability,\n}\n",
        "jail": f"profile jail {{\n{DENY_BWRAP}  audit deny {host.root}/dev/kvm rw,\n  deny /bin/su x,\n}}\n",
    }.items():
        file = host.put(f"etc/apparmor.d/{name}", text)
        subprocess.run(
            [host.root / "stubs/apparmor_parser", "--replace", file], env=host.environment(), check=True
        )
    host.put("etc/apparmor.d/abi/4.0", "")
    host.put("dev/kvm", "")
    host.put("proc/self/mounts", f"none {host.root}/dev/kvm none rw 0 0\n")
    host.put("tmp/bl-1001/box", "another user's")
    (host.root / "tmp").chmod(0o755)
    host.put("mounts", "/ rw,errors=remount-ro\n")
    host.put("home/tester/.local/share/boxlite/runtimes/v1/boxlite-shim", "runs")
    host.put("etc/security/limits.d/99-lab.conf", "tester - nproc 100\n")
    host.put("etc/ca-certificates/extracted/bundle.pem", "a certificate\n")
    for bundle in ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt"):
        host.put(bundle, "").unlink()
    (host.root / "etc/ssl/certs/ca-certificates.crt").symlink_to("../../ca-certificates/extracted/bundle.pem")
    # Nothing is at the end of this one, so boxlite does not mount it.
    (host.root / "etc/pki/tls/certs/ca-bundle.crt").symlink_to("nowhere")
    host.put("sys/fs/selinux/enforce", "1\n")
    host.put("etc/selinux/config", "# SELINUX= is the mode\nSELINUX=enforcing\nSELINUXTYPE=default\n")
    host.put("var/lib/selinux/modules", "base\nunconfined\n")
    return host


CHANGES = [
    "bwrap-deny-rules-off",
    "kvm-deny-rules-off",
    "userns-clone-on",
    "userns-limit-raise",
    "namespace-limit-raise",
    "bwrap-profile",
    "unprivileged-userns-complain",
    "kvm-group",
    "kvm-everyone",
    "selinux-permissive",
    "selinux-unconfined-permissive",
    "ca-bundle-file",
    "nproc-raise",
    "nofile-raise",
    "kvm-unmask",
    "tmp-mode",
    "socket-folder-aside",
    "programs-renewed",
    "programs-in-memory",
]
WHOSE = dict.fromkeys(
    [
        "kvm-group",
        "nproc-raise",
        "nofile-raise",
        "socket-folder-aside",
        "programs-renewed",
        "programs-in-memory",
    ],
    ("--user", "tester"),
)


@pytest.mark.parametrize("name", CHANGES)
def test_a_remedy_is_put_in_place_once_and_taken_back(blocked: Host, name: str) -> None:
    whose = WHOSE.get(name, ())
    before = blocked.files()
    assert blocked.run(name, "--check", *whose) == (1, f"{name}: not in place\n")
    assert blocked.files() == before
    status, output = blocked.run(name, "--yes", *whose)
    assert (status, output.splitlines()[-1]) == (0, f"{name}: done; run it with --undo to undo it")
    assert "What this costs:" in output
    changed = blocked.files()
    assert changed != before
    assert blocked.run(name, "--check", *whose) == (0, f"{name}: in place\n")
    assert blocked.run(name, "--yes", *whose) == (0, f"{name}: already in place: nothing was changed\n")
    assert blocked.files() == changed
    assert blocked.run(name, "--undo", "--yes", *whose) == (0, f"{name}: undone\n")
    assert blocked.run(name, "--check", *whose) == (1, f"{name}: not in place\n")
    assert blocked.files() == before
    nothing = f"{name}: nothing to undo: it has changed nothing on this host\n"
    assert blocked.run(name, "--undo", "--yes", *whose) == (0, nothing)


@pytest.mark.parametrize("todo", [[], ["--undo"]], ids=["do", "undo"])
def test_nothing_is_changed_without_an_answer(blocked: Host, todo: list[str]) -> None:
    if todo:
        assert blocked.run("bwrap-profile", "--yes")[0] == 0
    before = blocked.files()
    status, output = blocked.run("bwrap-profile", *todo)
    assert (status, "cannot ask without a terminal: give --yes" in output) == (2, True)
    assert blocked.files() == before


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("yes", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_it_asks(blocked: Host, answer: str, status: int) -> None:
    command = ["sh", str(blocked.script("userns-clone-on"))]
    screen, ended = on_terminal(command, blocked.environment(), keys=f"{answer}\n".encode())
    assert (ended, "Apply it? [y/N] " in screen) == (status, True)
    assert blocked.sysctl("kernel.unprivileged_userns_clone") == ("1" if status == 0 else "0")


APPARMOR = "sys/kernel/security/apparmor"


@pytest.mark.parametrize(
    ("name", "lacks", "domain", "why"),
    [
        ("apparmor-restrict-off", "", "", "the kernel has no kernel.apparmor_restrict_unprivileged_userns"),
        ("bwrap-userns-restrict", "", "", "there is no {root}/usr/share/apparmor/extra-profiles/bwrap-userns-"),
        ("bundled-bwrap-profile", "", "", "boxlite uses {root}/stubs/bwrap instead of its bundled bubblewrap"),
        ("kvm-group", "dev/kvm", "", "there is no {root}/dev/kvm"),
        ("kvm-everyone", "dev/kvm", "", "there is no {root}/dev/kvm"),
        # AppArmor's programs are older than the kernel, the kernel knows no user namespaces, or it is off.
        ("bwrap-profile", "etc/apparmor.d/abi/4.0", "", "AppArmor's programs are too old"),
        ("bwrap-profile", f"{APPARMOR}/features/namespaces/mask", "", "does not mediate user namespaces"),
        ("bwrap-userns-restrict", APPARMOR, "", "AppArmor is off, or"),
        ("bundled-bwrap-profile", APPARMOR, "", "AppArmor is off, or"),
        # Only the domain of unconfined logins is let go.
        ("selinux-unconfined-permissive", "", "unconfined_tt", "in a domain other than unconfined_t"),
    ],
)
def test_where_it_can_do_nothing_it_says_why_and_does_nothing(
    blocked: Host, name: str, lacks: str, domain: str, why: str
) -> None:
    missing = blocked.root / (lacks or "none")
    if missing.is_dir():
        shutil.rmtree(missing)
    else:
        missing.unlink(missing_ok=True)
    if name == "bundled-bwrap-profile" and not lacks:
        blocked.put("stubs/bwrap", "#!/bin/sh\n").chmod(0o755)
    (blocked.root / "home/tester").mkdir(parents=True, exist_ok=True)
    change = KNOWN[name].host
    whose = ("--user", "tester") if change and change.about_user else ()
    environment = {"TEST_DOMAIN": domain} if domain else {}
    before = blocked.files()
    assert blocked.run(name, "--check", *whose, **environment) == (1, f"{name}: not in place\n")
    status, output = blocked.run(name, "--yes", *whose, **environment)
    assert (status, blocked.files()) == (3, before)
    assert output.startswith(f"{name}: nothing can be done on this host: ")
    assert why.format(root=blocked.root) in output


def test_what_is_wrong_usage_is_said_and_only_root_can_change_a_host(blocked: Host) -> None:
    before = blocked.files()
    as_root = "userns-clone-on: run this as root: it changes this host\n"
    assert blocked.run("userns-clone-on", "--yes", TEST_UID="1000") == (2, as_root)
    assert blocked.run("userns-clone-on", "--check", TEST_UID="1000")[0] == 1
    assert blocked.files() == before
    assert blocked.run("userns-clone-on", "--force")[0] == 2
    assert blocked.run("kvm-group", "--yes") == (
        2,
        "kvm-group: no such account: none given; give --user NAME\n",
    )
    assert blocked.run("kvm-group", "--check", SUDO_USER="tester") == (1, "kvm-group: not in place\n")


@pytest.mark.parametrize("name", ["-n", "two words", "tester\nroot"])
def test_what_is_no_name_of_an_account_reaches_no_program(blocked: Host, name: str) -> None:
    # As `id -u -n`, which succeeds.
    blocked.put("stubs/id", "#!/bin/sh\necho 0\n")
    before = blocked.files()
    assert blocked.run("nproc-raise", "--yes", "--user", name) == (
        2,
        f"nproc-raise: no such account: {name}; give --user NAME\n",
    )
    assert blocked.files() == before


def test_root_moves_nothing_in_a_folder_where_others_rename_root_s_files(blocked: Host) -> None:
    (blocked.root / "tmp").chmod(0o777)
    before = blocked.files()
    status, output = blocked.run("socket-folder-aside", "--yes", "--user", "tester")
    assert (status, blocked.files()) == (3, before)
    assert "other users may rename root's files in " in output
    assert "apply the remedy tmp-mode first" in output
    (blocked.root / "tmp").chmod(0o1777)
    assert blocked.run("socket-folder-aside", "--yes", "--user", "tester")[0] == 0


@pytest.mark.parametrize("name", ["programs-renewed", "shim-not-cloned"])
def test_what_was_not_begun_can_be_undone(on_btrfs: Host, name: str) -> None:
    works = STUBS["setpriv"]
    on_btrfs.put("stubs/setpriv", "#!/bin/sh\necho 'no such program' >&2\nexit 127\n").chmod(0o755)
    status, output = on_btrfs.run(name, "--yes", "--user", "tester")
    assert (status, "no such program\n" in output) == (1, True)
    on_btrfs.put("stubs/setpriv", works).chmod(0o755)
    assert on_btrfs.run(name, "--undo", "--yes") == (0, f"{name}: undone\n")


def test_what_does_not_take_effect_is_no_success(blocked: Host) -> None:
    # As if another program reset the value.
    blocked.put("stubs/sysctl", STUBS["sysctl"].replace("file.write_text(value + chr(10))", "pass")).chmod(
        0o755
    )
    status, output = blocked.run("userns-clone-on", "--yes")
    assert status == 1
    assert "applied, but still not in place; run it with --undo" in output
    assert blocked.run("userns-clone-on", "--undo", "--yes")[0] == 0


def test_a_command_that_fails_ends_the_script_and_can_be_taken_back(blocked: Host) -> None:
    before = blocked.files()
    # Any status: the script's own statuses have fixed meanings.
    failing = APPARMOR_PARSER.replace(
        "do, file =", "sys.exit(3) if 'boxlite-bwrap' in sys.argv[2] else 0\ndo, file ="
    )
    blocked.put("stubs/apparmor_parser", failing).chmod(0o755)
    status, output = blocked.run("bwrap-profile", "--yes")
    assert status == 1
    assert "bwrap-profile: failed; run it with --undo" in output.splitlines()[-1]
    blocked.put("stubs/apparmor_parser", APPARMOR_PARSER).chmod(0o755)
    assert blocked.run("bwrap-profile", "--undo", "--yes")[0] == 0
    assert blocked.files() == before


def test_each_account_that_was_put_into_a_group_is_taken_out(blocked: Host) -> None:
    # The stand-in knows one account; with several, the file's name says whose groups were requested.
    blocked.put(
        "stubs/id", STUBS["id"].replace('"$ROOT/groups"', '"$ROOT/groups-of-$2"').replace("tester", "$2")
    )
    for program in ("usermod", "gpasswd"):
        whose = "$4" if program == "usermod" else "$2"
        blocked.put(f"stubs/{program}", STUBS[program].replace('"$ROOT/groups"', f'"$ROOT/groups-of-{whose}"'))
    for name in ("alice", "bob", "carol"):
        blocked.put(f"groups-of-{name}", f"{name}\n")
        assert blocked.run("kvm-group", "--yes", "--user", name)[0] == 0
    # Somebody else removed one of them from the group.
    blocked.put("groups-of-carol", "carol\n")
    assert blocked.run("kvm-group", "--undo", "--yes") == (0, "kvm-group: undone\n")
    for name in ("alice", "bob", "carol"):
        assert (blocked.root / f"groups-of-{name}").read_text() == f"{name}\n"


def test_a_bit_that_dpkg_would_set_again_is_taken_from_it_until_it_is_taken_back(blocked: Host) -> None:
    bwrap = blocked.put("usr/bin/bwrap", "")
    bwrap.chmod(0o4755)
    overrides = blocked.put("overrides", f"root root 4755 {bwrap}\n")
    blocked.put("stubs/dpkg-statoverride", STATOVERRIDE).chmod(0o755)
    assert blocked.run("bwrap-setuid-off", "--yes")[0] == 0
    assert (bwrap.stat().st_mode & 0o7777, overrides.read_text()) == (0o755, "")
    assert blocked.run("bwrap-setuid-off", "--undo", "--yes")[0] == 0
    assert (bwrap.stat().st_mode & 0o7777, overrides.read_text()) == (0o4755, f"root root 4755 {bwrap}\n")


@pytest.mark.parametrize("mounted", ["/", "/home/", "/home/tester/"])
def test_a_home_is_found_wherever_it_is_mounted(tmp_path: Path, mounted: str) -> None:
    host = Host(tmp_path)
    (tmp_path / "home" / "tester").mkdir(parents=True)
    mounts = host.put("mounts", f"/ rw\n{mounted} rw,nosuid,noexec\n")
    before = mounts.read_text()
    status, output = host.run("home-exec", "--check", "--user", "tester")
    assert (status, output) == (1, "home-exec: not in place\n")
    assert host.run("home-exec", "--yes", "--user", "tester")[0] == 0
    assert mounts.read_text().splitlines()[-1] == f"{mounted} rw,nosuid,exec"
    assert host.run("home-exec", "--yes", "--user", "tester")[1].startswith("home-exec: already in place")
    assert host.run("home-exec", "--undo", "--yes", "--user", "tester")[0] == 0
    assert mounts.read_text().splitlines()[-1] == before.splitlines()[-1]
    # One that is not there is not called in place.
    (tmp_path / "home" / "tester").rmdir()
    status, output = host.run("home-exec", "--yes", "--user", "tester")
    assert (status, "the home directory of tester, " in output) == (3, True)


def test_the_mode_of_a_tmp_that_is_read_only_is_no_cure_and_it_says_why(blocked: Host) -> None:
    blocked.put("mounts", "/ rw,relatime\n/tmp ro,relatime\n")
    (blocked.root / "tmp").chmod(0o1777)
    assert blocked.run("tmp-mode", "--check") == (1, "tmp-mode: not in place\n")
    status, output = blocked.run("tmp-mode", "--yes")
    assert (status, "/tmp is read-only, whatever its mode is" in output) == (3, True)


PROGRAMS = "home/tester/.local/share/boxlite/runtimes"


@pytest.fixture
def on_btrfs(host: Host) -> Host:
    """A host with boxlite's programs on btrfs."""
    for name, text in (("filesystem", "btrfs\n"), ("mounts", "/ rw\n"), ("attributes", "")):
        host.put(name, text)
    host.put(f"{PROGRAMS}/v1/boxlite-shim", "runs").chmod(0o755)
    host.put(f"{PROGRAMS}/v1/.complete", "").chmod(0o644)
    return host


def programs(host: Host) -> dict[str, tuple[int, str]]:
    """The mode and the content of each file of boxlite's."""
    files = [file for file in (host.root / PROGRAMS).rglob("*") if file.is_file()]
    return {file.name: (file.stat().st_mode & 0o7777, file.read_text()) for file in files}


def test_boxlites_programs_are_written_again_as_files_that_are_not_cloned(on_btrfs: Host) -> None:
    name, whose = "shim-not-cloned", ("--user", "tester")
    assert on_btrfs.run(name, "--check", *whose) == (1, f"{name}: not in place\n")
    assert on_btrfs.run(name, "--yes", *whose)[0] == 0
    # Two folders and two files, with the modes that they had.
    attributes = on_btrfs.root / "attributes"
    shim = on_btrfs.root / PROGRAMS / "v1" / "boxlite-shim"
    assert str(shim.stat().st_ino) in attributes.read_text().splitlines()
    assert programs(on_btrfs) == {"boxlite-shim": (0o755, "runs"), ".complete": (0o644, "")}
    assert on_btrfs.run(name, "--check", *whose)[0] == 0
    # One of a later release, unpacked into a folder that was there before.
    later = on_btrfs.put(f"{PROGRAMS}/v1/later", "runs too")
    assert on_btrfs.run(name, "--check", *whose)[0] == 1
    assert on_btrfs.run(name, "--yes", *whose)[0] == 0
    assert on_btrfs.run(name, "--yes", *whose)[1].endswith("already in place: nothing was changed\n")
    assert on_btrfs.run(name, "--undo", "--yes") == (0, f"{name}: undone\n")
    left = attributes.read_text().splitlines()
    assert [file for file in (shim, later, shim.parent) if str(file.stat().st_ino) in left] == []
    assert programs(on_btrfs)["boxlite-shim"] == (0o755, "runs")


def test_a_line_break_in_a_name_leads_root_to_no_file_of_somebody_else(on_btrfs: Host) -> None:
    other = on_btrfs.put("other", "somebody else's")
    on_btrfs.put(f"{PROGRAMS}/x\nz {other}", "")
    before = other.stat().st_ino
    assert on_btrfs.run("shim-not-cloned", "--yes", "--user", "tester")[0] == 0
    assert other.stat().st_ino == before


def test_where_programs_cannot_be_kept_from_being_cloned_it_says_why(on_btrfs: Host) -> None:
    on_btrfs.put("filesystem", "xfs\n")
    status, output = on_btrfs.run("shim-not-cloned", "--yes", "--user", "tester")
    assert (status, "is not on btrfs; only btrfs has files that are not cloned" in output) == (3, True)
    (on_btrfs.root / PROGRAMS).rename(on_btrfs.root / "elsewhere")
    status, output = on_btrfs.run("shim-not-cloned", "--yes", "--user", "tester")
    assert (status, "boxlite has not run as tester yet: there is no " in output) == (3, True)


def test_nothing_is_mounted_where_a_user_s_link_leads(blocked: Host) -> None:
    folder = blocked.root / PROGRAMS
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(blocked.root / "etc")
    status, output = blocked.run("programs-in-memory", "--yes", "--user", "tester")
    assert (status, "is a link to another place" in output) == (3, True)


def test_a_profile_by_the_name_of_the_allow_list_s_is_not_the_allow_list(blocked: Host) -> None:
    bwrap = blocked.root / "usr/bin/bwrap"
    (blocked.root / "etc/apparmor.d/strict").rename(blocked.root / "etc/apparmor.d/bwrap")
    blocked.put("etc/apparmor.d/bwrap", f"profile bwrap {bwrap} {{\n  file,\n}}\n")
    loaded = blocked.root / "sys/kernel/security/apparmor/profiles"
    loaded.write_text("bwrap (enforce)\n")
    blocked.put(
        "usr/share/apparmor/extra-profiles/bwrap-userns-restrict",
        f"profile bwrap {bwrap} {{\n  userns,\n}}\nprofile unpriv_bwrap {{\n}}\n",
    )
    assert blocked.run("bwrap-userns-restrict", "--check")[0] == 1
    assert blocked.run("bwrap-userns-restrict", "--yes")[0] == 0
    assert loaded.read_text().splitlines() == ["bwrap (enforce)", "unpriv_bwrap (enforce)"]
    assert blocked.run("bwrap-profile", "--yes")[0] == 3
    assert blocked.run("bwrap-userns-restrict", "--undo", "--yes")[0] == 0
    assert loaded.read_text().splitlines() == ["bwrap (enforce)"]
    # Another profile called bwrap does not prevent this one.
    assert blocked.run("bwrap-profile", "--yes")[0] == 0


def test_what_is_not_loaded_and_old_copies_are_in_nobody_s_way(blocked: Host) -> None:
    bwrap = blocked.root / "usr/bin/bwrap"
    loaded = blocked.root / "sys/kernel/security/apparmor/profiles"
    assert "strict-bwrap (enforce)" in loaded.read_text()
    refuses = APPARMOR_PARSER.replace(
        "lines = listed", "if do == '--remove' and 'unloaded' in sys.argv[2]: sys.exit(254)\nlines = listed"
    )
    blocked.put("stubs/apparmor_parser", refuses).chmod(0o755)
    for name in ("unloaded", "strict.dpkg-old"):
        blocked.put(f"etc/apparmor.d/{name}", f"profile {name} {bwrap} {{\n  file,\n}}\n")
    assert blocked.run("bwrap-profile", "--yes")[0] == 0
    disabled = blocked.root / "etc/apparmor.d/disable"
    assert sorted(file.name for file in disabled.iterdir()) == ["strict", "unloaded"]
    assert "strict-bwrap" not in loaded.read_text()


def test_remedies_on_top_of_each_other_are_taken_back_in_any_order(blocked: Host) -> None:
    bwrap = blocked.root / "usr/bin/bwrap"
    before = (blocked.root / "sys/kernel/security/apparmor/profiles").read_text()
    blocked.put(
        "usr/share/apparmor/extra-profiles/bwrap-userns-restrict",
        f"profile bwrap {bwrap} {{\n  userns,\n}}\nprofile unpriv_bwrap {{\n}}\n",
    )
    for name in ("bwrap-profile", "bwrap-userns-restrict"):
        assert blocked.run(name, "--yes")[0] == 0
    for name in ("bwrap-profile", "bwrap-userns-restrict"):
        assert blocked.run(name, "--undo", "--yes")[0] == 0
    assert (blocked.root / "sys/kernel/security/apparmor/profiles").read_text() == before
    assert list((blocked.root / "etc/apparmor.d/disable").iterdir()) == []


@pytest.mark.parametrize(
    ("header", "is_for_bwrap"),
    [
        ("profile x {bwrap} flags=(attach_disconnected, complain) {{", True),
        ('profile x "{bwrap}" {{', True),
        ("profile {bwrap} {{", True),
        ("{bwrap} {{", True),
        ("profile x @{{bin}}/bwrap {{", True),
        ("profile x /{{,usr/}}bin/bwrap xattrs=(user.a=b) {{", True),
        ("# profile x {bwrap} {{", False),
        ("profile x {bwrap}-helper {{", False),
        ("profile bwrap {{", False),
        ("profile x /usr/bin/flatpak {{\n  profile bwrap {bwrap} {{", False),
        ("profile x /usr/bin/flatpak {{\n  {bwrap} ix,", False),
    ],
)
def test_a_header_tells_bubblewrap_s_profile(blocked: Host, header: str, is_for_bwrap: bool) -> None:
    (blocked.root / "etc/apparmor.d/strict").unlink()
    text = header.format(bwrap=blocked.root / "usr/bin/bwrap")
    blocked.put("etc/apparmor.d/other", f"abi <abi/4.0>,\n{text}\n  file,\n}}\n")
    assert blocked.run("bwrap-profile", "--yes")[0] == 0
    # One of bubblewrap's is not loaded at the next boot either.
    assert (blocked.root / "etc/apparmor.d/disable/other").exists() is is_for_bwrap


@pytest.mark.parametrize(
    ("rule", "denies"),
    [
        ("deny /usr/bin/bwrap x,", True),
        ("  audit deny file @{bin}/bwrap mrwlkx,", True),
        ('deny "/{usr/,}bin/bwrap" x,', True),
        ("deny /usr/bin/bwrap w,", False),
        ("deny /usr/bin/bwrap-helper x,", False),
        ("# deny /usr/bin/bwrap x,", False),
        ("/usr/bin/bwrap x,", False),
        ("deny /home/** x, # not /usr/bin/bwrap x,", False),
    ],
)
def test_only_rules_that_deny_bubblewrap_become_comments(blocked: Host, rule: str, denies: bool) -> None:
    name = "bwrap-deny-rules-off"
    text = "profile jail {{\n  file,\n{}\n  deny /bin/su x,\n}}\n"
    file = blocked.put("etc/apparmor.d/jail", text.format(rule))
    status, output = blocked.run(name, "--yes")
    assert status == (0 if denies else 3), output
    assert file.read_text() == text.format(f"# {name}: {rule}" if denies else rule)


def test_rules_in_profiles_that_are_not_loaded_are_left_alone(blocked: Host) -> None:
    jail = blocked.root / "etc/apparmor.d/jail"
    blocked.put("etc/apparmor.d/jail.dpkg-old", jail.read_text())
    blocked.put("etc/apparmor.d/disable/jail", "")
    status, output = blocked.run("bwrap-deny-rules-off", "--yes")
    assert (status, "has a rule that denies executing bubblewrap" in output) == (3, True)


def test_the_first_value_is_the_one_that_is_put_back(blocked: Host) -> None:
    name = "kernel.unprivileged_userns_clone"
    assert blocked.run("userns-clone-on", "--yes")[0] == 0
    blocked.sysctl(name, "2")
    assert blocked.run("userns-clone-on", "--yes")[0] == 0
    assert blocked.sysctl(name) == "1"
    assert blocked.run("userns-clone-on", "--undo", "--yes")[0] == 0
    assert blocked.sysctl(name) == "0"


def test_limits_that_are_too_low_are_raised_to_what_the_kernel_starts_with(blocked: Host) -> None:
    assert blocked.run("userns-limit-raise", "--yes")[0] == 0
    assert blocked.sysctl("user.max_user_namespaces") == "15000"
    file = blocked.root / "etc/sysctl.d/zz-boxlite-userns-limit-raise.conf"
    assert file.read_text() == "user.max_user_namespaces = 15000\n"
    assert blocked.run("namespace-limit-raise", "--yes")[0] == 0
    limits = [blocked.sysctl(f"user.max_{kind}_namespaces") for kind in ("mnt", "uts", "ipc", "pid")]
    assert limits == ["15000", "20000", "15000", "15000"]
    file = blocked.root / "etc/sysctl.d/zz-boxlite-namespace-limit-raise.conf"
    assert file.read_text() == "user.max_ipc_namespaces = 15000\nuser.max_pid_namespaces = 15000\n"


def test_a_symlink_to_the_certificates_is_replaced_by_a_copy_and_put_back(blocked: Host) -> None:
    bundle = blocked.root / "etc/ssl/certs/ca-certificates.crt"
    other = blocked.root / "etc/pki/tls/certs/ca-bundle.crt"
    target = str(bundle.readlink())
    assert blocked.run("ca-bundle-file", "--yes")[0] == 0
    assert (bundle.is_symlink(), bundle.read_text()) == (False, "a certificate\n")
    assert str(other.readlink()) == "nowhere"
    assert blocked.run("ca-bundle-file", "--undo", "--yes")[0] == 0
    assert (str(bundle.readlink()), bundle.read_text()) == (target, "a certificate\n")
    assert str(other.readlink()) == "nowhere"
    bundle.unlink()
    status, output = blocked.run("ca-bundle-file", "--yes")
    assert (status, output) == (0, "ca-bundle-file: already in place: nothing was changed\n")


def test_selinux_stays_permissive_after_a_boot(blocked: Host) -> None:
    assert blocked.run("selinux-permissive", "--yes")[0] == 0
    config = (blocked.root / "etc/selinux/config").read_text()
    assert config == "# SELINUX= is the mode\nSELINUX=permissive\nSELINUXTYPE=default\n"
