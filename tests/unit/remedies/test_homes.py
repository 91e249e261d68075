"""Remedies in the home of a hostile user, run as root: no link that is put there leads to anything of root's.

The scripts and all programs but a few are real. A mount namespace keeps what they do from the host.
"""

import os
import subprocess
from pathlib import Path

import pytest

from lab.catalog import remedies
from tests.builders.processes import on_terminal

IN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-eu"]


def may_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run([*IN_NAMESPACE, "-c", "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="only root can give a namespace its own mounts")

# A host with an account: $home and the folder of boxlite's programs are mallory's. $root is root's, and has a
# folder by the same name.
HOST = """
for file in passwd group shadow; do mount --bind "$given/$file" "/etc/$file"; done
for folder in /home /opt /var/lib; do mount -t tmpfs tmpfs "$folder"; done
home=/home/mallory root=/var/lib/root stubs=/opt/stubs
as_mallory() { /usr/bin/setpriv --reuid=12345 --regid=12345 --clear-groups "$@"; }
export home root stubs
cp -r "$given/stubs" "$stubs"
mkdir -p "$root/runtimes"
echo job >"$root/runtimes/job"
mkdir "$home"
chown 12345:12345 "$home"
as_mallory mkdir -p "$home/.local/share/boxlite/runtimes/v1"
echo runs | as_mallory tee "$home/.local/share/boxlite/runtimes/v1/boxlite-shim" >/dev/null
as_mallory chmod 755 "$home/.local/share/boxlite/runtimes/v1/boxlite-shim"
# A folder that mallory may not enter.
mkdir -m 700 /var/lib/own
cd /var/lib/own
remedy() { PATH=$stubs:$PATH sh "$given/remedy.sh" "$@" --user mallory || echo "status $?"; }
"""
# What mallory does when root starts a program for the first time.
STAND_IN = """#!/bin/sh
if [ ! -e "$stubs/attacked" ] && [ -e "$stubs/attack" ]; then
    : >"$stubs/attacked"
    /usr/bin/setpriv --reuid=12345 --regid=12345 --clear-groups sh -c '{attack}'
fi
PATH=${{PATH#*:}} exec {program} "$@"
"""
LINK = 'mv "$home/.local/share/boxlite" "$home/moved" && ln -s "$root" "$home/.local/share/boxlite"'


class ImitatedHost:
    """What a script of a test does on the host above, with stand-ins for some programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "stubs").mkdir()
        for name, line in {
            "passwd": "mallory:x:12345:12345::/home/mallory:/bin/sh\n",
            "group": "mallory:x:12345:\n",
            "shadow": "mallory:*:20000:0:99999:7:::\n",
        }.items():
            (folder / name).write_text(f"{Path('/etc', name).read_text()}{line}")

    def put(self, program: str, text: str) -> None:
        stub = self.folder / "stubs" / program
        stub.write_text(text)
        stub.chmod(0o755)

    def attack_at(self, program: str, attack: str = LINK) -> None:
        self.put(program, STAND_IN.format(attack=attack, program=program))

    def command(self, name: str, steps: str) -> tuple[list[str], dict[str, str]]:
        (self.folder / "remedy.sh").write_text(remedies.load_remedies()[name].script())
        (self.folder / "steps.sh").write_text(HOST + steps)
        return [*IN_NAMESPACE, str(self.folder / "steps.sh")], {**os.environ, "given": str(self.folder)}

    def run(self, name: str, steps: str) -> str:
        command, environment = self.command(name, steps)
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def host(tmp_path: Path) -> ImitatedHost:
    return ImitatedHost(tmp_path)


# What is left of root's folder and of what is mounted there: as it was.
LOOK = """
echo "left:" $(cd "$root" && find . | sort) $(stat -c %U "$root/runtimes/job")
echo "mounts:" $(findmnt -rn -o TARGET,SOURCE | grep -F "$root" || true)
"""
UNTOUCHED = "left: . ./runtimes ./runtimes/job root\nmounts:\n"


@pytest.mark.parametrize("program", ["mkdir", "stat", "mount", "setsid", "cp"])
def test_memory_is_mounted_on_no_folder_but_the_user_s(host: ImitatedHost, program: str) -> None:
    host.attack_at(program)
    told = host.run("programs-in-memory", f': >"$stubs/attack"\nremedy --yes\n{LOOK}')
    assert told.endswith(UNTOUCHED)


@pytest.mark.parametrize("program", ["id", "head", "grep", "umount"])
def test_nothing_of_root_s_is_unmounted(host: ImitatedHost, program: str) -> None:
    host.attack_at(program)
    steps = """
remedy --yes
mount -t tmpfs root-s "$root/runtimes"
: >"$stubs/attack"
remedy --undo --yes
echo "mounts:" $(findmnt -rn -o TARGET,SOURCE | grep -E "^(/home|/var/lib/root)/" || true)
remedy --undo --yes
echo "mounts:" $(findmnt -rn -o TARGET,SOURCE | grep -E "^(/home|/var/lib/root)/" || true)
"""
    told = host.run("programs-in-memory", steps)
    assert [line for line in told.splitlines() if line.startswith("mounts:")][-1] == (
        "mounts: /var/lib/root/runtimes root-s"
    )


@pytest.mark.parametrize("todo", ["", "--undo"])
def test_nothing_of_root_s_is_moved_or_deleted(host: ImitatedHost, todo: str) -> None:
    for program in ("mkdir", "rm", "setsid"):
        host.attack_at(program)
    before = 'remedy --yes\nmkdir "$root/runtimes.before"\n' if todo else ""
    after = "rmdir /var/lib/root/runtimes.before\n" if todo else ""
    told = host.run("programs-renewed", f'{before}: >"$stubs/attack"\nremedy {todo} --yes\n{after}{LOOK}')
    assert told.endswith(UNTOUCHED)


NOT_CLONED = {
    "findmnt": "#!/bin/sh\necho btrfs\n",
    "lsattr": '#!/bin/sh\nshift\nfor path; do echo "------- $path"; done\n',
    "chattr": '#!/bin/sh\n[ -w "$2" ] && id -u >>/home/mallory/changed-by\n',
}


@pytest.mark.parametrize("program", ["cat", "setsid"])
def test_no_file_of_root_s_is_written_again(host: ImitatedHost, program: str) -> None:
    for name, text in NOT_CLONED.items():
        host.put(name, text)
    host.attack_at(program)
    steps = 'inode=$(stat -c %i "$root/runtimes/job"); : >"$stubs/attack"; remedy --yes'
    told = host.run("shim-not-cloned", f'{steps}\n[ "$inode" = "$(stat -c %i "$root/runtimes/job")" ]\n{LOOK}')
    assert told.endswith(UNTOUCHED)


def test_programs_are_written_again_by_their_user(host: ImitatedHost) -> None:
    for name, text in NOT_CLONED.items():
        host.put(name, text)
    look = 'sort -u "$home/changed-by"\nstat -c %U:%a "$home/.local/share/boxlite/runtimes/v1/"*'
    assert host.run("shim-not-cloned", f"remedy --yes\n{look}").endswith("12345\nmallory:755\n")


def test_programs_are_kept_in_memory_and_come_back(host: ImitatedHost) -> None:
    steps = """
look() { (cd "$home/.local/share/boxlite/runtimes" && stat -f -c %T . && stat -c %U:%a:%n . v1/*); }
mount -t tmpfs -o nosuid elsewhere /home/mallory/.local/share/boxlite/runtimes/v1
umount /home/mallory/.local/share/boxlite/runtimes/v1
look >/var/lib/own/before
remedy --yes | tail -n 1
look | diff /var/lib/own/before -
findmnt -n -o FSTYPE,SIZE "$home/.local/share/boxlite/runtimes"
remedy --yes
exec 8<"$home/.local/share/boxlite/runtimes/v1/boxlite-shim"
remedy --undo --yes
remedy --check
look | diff /var/lib/own/before -
"""
    assert host.run("programs-in-memory", steps).splitlines() == [
        "programs-in-memory: done; run it with --undo to undo it",
        "tmpfs  512M",
        "programs-in-memory: already in place: nothing was changed",
        "programs-in-memory: undone",
        "programs-in-memory: not in place",
        "status 1",
    ]


def test_a_folder_of_somebody_else_in_a_home_is_not_mounted_on(host: ImitatedHost) -> None:
    told = host.run("programs-in-memory", 'chown root "$home/.local/share/boxlite/runtimes"\nremedy --yes')
    assert told.endswith("does not belong to mallory, so nothing is mounted on it\nstatus 3\n")


# mallory's file system, such as one of FUSE, on mallory's home, which has a line in /etc/fstab.
OWN_HOME = """
mount -t tmpfs -o noexec,nodev,uid=12345 home-s "$home"
echo "home-s $home tmpfs defaults 0 0" >"$stubs/fstab"
mount --bind "$stubs/fstab" /etc/fstab
"""
FLAGS = 'echo "flags:" $(findmnt -rn -o SOURCE,VFS-OPTIONS "$home")\n'


@pytest.mark.parametrize(
    ("todo", "program"), [("", "mkdir"), ("", "mount"), ("--undo", "findmnt"), ("--undo", "mount")]
)
def test_a_file_system_that_a_user_mounts_keeps_its_restrictions(
    host: ImitatedHost, todo: str, program: str
) -> None:
    mount = 'PATH=${PATH#*:} mount -t tmpfs -o nosuid,nodev mallory-s "$home"'
    attack = f'[ ! -e "$stubs/attack" ] || {{ rm "$stubs/attack"; {mount}; }}'
    host.put(program, f'#!/bin/sh\n{attack}\nPATH=${{PATH#*:}} exec {program} "$@"\n')
    before = "remedy --yes\n" if todo else ""
    told = host.run("home-exec", f'{OWN_HOME}{before}: >"$stubs/attack"\nremedy {todo} --yes\n{FLAGS}')
    _, *words = told.splitlines()[-1].split()
    flags = dict(zip(words[::2], words[1::2], strict=True))["mallory-s"]
    assert {"nosuid", "nodev"} <= set(flags.split(","))


def test_a_home_on_a_file_system_of_its_own_keeps_all_flags_but_one(host: ImitatedHost) -> None:
    told = host.run("home-exec", f"{OWN_HOME}{FLAGS}remedy --yes\n{FLAGS}remedy --undo --yes\n{FLAGS}")
    assert [line for line in told.splitlines() if line.startswith("flags:")] == [
        "flags: home-s rw,nodev,noexec,relatime",
        "flags: home-s rw,nodev,relatime",
        "flags: home-s rw,nodev,noexec,relatime",
    ]


@pytest.mark.parametrize(
    ("name", "program"), [("programs-renewed", "mv"), ("nproc-raise", "awk"), ("nofile-raise", "awk")]
)
def test_what_runs_as_the_user_has_no_terminal(host: ImitatedHost, name: str, program: str) -> None:
    look = "echo $(id -u) $(for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done) >>/home/mallory/seen"
    terminal = "! (: </dev/tty) 2>/dev/null || echo terminal >>/home/mallory/seen"
    host.put(program, f'#!/bin/sh\n{look}\n{terminal}\nPATH=${{PATH#*:}} exec {program} "$@"\n')
    profile = "echo 'echo profile >>~/seen' >\"$home/.profile\"\n"
    command, environment = host.command(name, f'{profile}remedy --yes\ncat "$home/seen" >"$given/seen"\n')
    screen, _ = on_terminal(command, environment)
    seen = (host.folder / "seen").read_text()
    assert seen.startswith("12345 /dev/null pipe:"), screen
    assert [word for word in ("/dev/pts", "terminal", "profile") if word in seen] == []
