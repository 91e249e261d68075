"""A folder that stands for a host in which remedies' scripts can be run, and stand-ins for its programs."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.catalog import remedies

KNOWN = remedies.load_remedies()
# The host's paths in the scripts; tests move them below a temporary folder.
PLACES = re.compile(r"/etc/|/var/lib/|/proc/|/sys/|/usr/share/|/usr/bin/bwrap|/dev/kvm|/tmp\b")

STATOVERRIDE = """#!/bin/sh
case $1 in
    --list) grep "$2" "$ROOT/overrides" ;;
    --remove) : >"$ROOT/overrides" ;;
    --add) shift && echo "$@" >>"$ROOT/overrides" ;;
esac
"""
STUBS = {
    "id": """#!/bin/sh
case $1 in
    -u) if [ $# = 1 ]; then echo "${TEST_UID:-0}"; else [ "$2" = tester ] && echo 1001; fi ;;
    -g) echo 1001 ;;
    -nG) cat "$ROOT/groups" ;;
    -Z) echo "unconfined_u:unconfined_r:${TEST_DOMAIN:-unconfined_t}:s0" ;;
esac
""",
    "usermod": """#!/bin/sh
echo "$(cat "$ROOT/groups") $3" >"$ROOT/groups"
""",
    "gpasswd": """#!/bin/sh
sed -i "s/ $3//" "$ROOT/groups"
""",
    # Every file belongs to tester and the group kvm.
    "stat": """#!/bin/sh
case $2 in %G) echo kvm ;; %u) echo 1001 ;; *) exec /usr/bin/stat "$@" ;; esac
""",
    "sysctl": """#!/usr/bin/env -S python3 -IS
import os, sys
from pathlib import Path
words = [word for word in sys.argv[1:] if not word.startswith("-")]
name, _, value = words[0].partition("=")
file = Path(os.environ["ROOT"], "proc/sys", name.replace(".", "/"))
if "-w" in sys.argv:
    file.write_text(value + chr(10))
elif file.exists():
    print(file.read_text().strip())
else:
    sys.exit(0 if "-e" in sys.argv else 1)
""",
    # The kernel's list: one line per profile.
    "apparmor_parser": """#!/usr/bin/env -S python3 -IS
import os, re, sys
from pathlib import Path
do, file = sys.argv[1], Path(sys.argv[2])
policy = Path(os.environ["ROOT"], "sys/kernel/security/apparmor")
listed = policy / "profiles"
if (file.parent / "disable" / file.name).exists() and do == "--replace":
    sys.exit(0)
lines = listed.read_text().splitlines()
for name, _, rest in re.findall(r"(?m)^profile (\\S+) ?(/\\S+|@\\S+)?(.*)[{]", file.read_text()):
    lines = [line for line in lines if line.split(" (")[0] != name]
    if do == "--replace":
        lines.append(name + (" (complain)" if "complain" in rest else " (enforce)"))
listed.write_text("".join(line + chr(10) for line in sorted(lines)))
""",
    "getenforce": """#!/bin/sh
case $(cat "$ROOT/sys/fs/selinux/enforce") in 1) echo Enforcing ;; 0) echo Permissive ;; esac
""",
    "setenforce": """#!/bin/sh
echo "$1" >"$ROOT/sys/fs/selinux/enforce"
""",
    # The policy's modules, one per line.
    "semodule": """#!/bin/sh
modules=$ROOT/var/lib/selinux/modules
case $1 in
    -l) cat "$modules" ;;
    -i) [ -s "$2" ] && basename "$2" .cil >>"$modules" ;;
    -r) sed -i "/^$2$/d" "$modules" ;;
esac
""",
    "getent": """#!/bin/sh
echo "$2:x:1001:1001::$ROOT/home/$2:/bin/sh"
""",
    # The mounts with their options, one per line; the last one above a file contains it.
    "findmnt": """#!/bin/sh
[ "$5" != --source ] || { sed -n "s/^$6 \\([^ ]*\\) .*/87 \\1/p" "$ROOT/proc/self/mounts"; exit; }
[ -e "$5" ] || exit 1
[ "$4" = --target ] || { grep -q " $5 tmpfs " "$ROOT/proc/self/mounts" && echo tmpfs; exit; }
while read -r target options; do
    case $5/ in "$ROOT$target"*) found=$target shown=$options ;; esac
done <"$ROOT/mounts"
case $3 in TARGET) echo "$ROOT$found" ;; *OPTIONS) echo "$shown" ;; FSTYPE) cat "$ROOT/filesystem" ;; esac
""",
    # The attribute C alone, by the numbers of the inodes that have it.
    "chattr": """#!/bin/sh
inode=$(ls -di "$2" | awk '{ print $1 }')
sed -i "/^$inode$/d" "$ROOT/attributes"
[ "$1" = -C ] || echo "$inode" >>"$ROOT/attributes"
""",
    "lsattr": """#!/bin/sh
shift
for path; do
    inode=$(ls -di "$path" | awk '{ print $1 }')
    if grep -qx "$inode" "$ROOT/attributes"; then echo "----C-- $path"; else echo "------- $path"; fi
done
""",
    # Options in `mounts`; what is mounted on another file, in the kernel's own list. The folder that a file
    # system in memory hides is moved away, as it seems to a program that is in it.
    "mount": """#!/bin/sh
case "$1 $2" in
    --bind*) echo "none $3 none rw 0 0" >>"$ROOT/proc/self/mounts" ;;
    *-t)
        mkdir -p "$ROOT/hidden" "$ROOT/proc/self/fdinfo"
        echo "$6 $PWD tmpfs $5 0 0" >>"$ROOT/proc/self/mounts"
        echo "mnt_id: 87" >"$ROOT/proc/self/fdinfo/9"
        mv "$PWD" "$ROOT/hidden/" && mkdir "$PWD"
        ;;
    *) sed -i "s#^${PWD#"$ROOT"}/ .*#${PWD#"$ROOT"}/ ${3#remount,bind,}#" "$ROOT/mounts" ;;
esac
""",
    "umount": """#!/bin/sh
folder=$1
if [ "$folder" = --lazy ]; then
    folder=$(readlink /proc/self/fd/9)
    rm -r "$folder" "$ROOT/proc/self/fdinfo" && mv "$ROOT/hidden/runtimes" "$folder"
fi
sed -i "\\\\# $folder #d" "$ROOT/proc/self/mounts"
""",
    "setpriv": """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
""",
    # What a login of a user gets: the last line of the files that PAM reads.
    "su": """#!/bin/sh
cat "$ROOT"/etc/security/limits.d/*.conf | awk '{ limit = $4 } END { print limit }'
""",
}


DENY_BWRAP = "  deny /**/bwrap x,\n"


class Host:
    """A folder that represents a host and in which scripts can be run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name, text in STUBS.items():
            self.put(f"stubs/{name}", text).chmod(0o755)
        self.put("groups", "tester\n")
        self.put("etc/sysctl.d/99-sysctl.conf", "")

    def put(self, name: str, text: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def sysctl(self, name: str, value: str | None = None) -> str:
        file = self.root / "proc/sys" / name.replace(".", "/")
        if value is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")
        return file.read_text().strip()

    def script(self, name: str) -> Path:
        text = PLACES.sub(lambda place: f"{self.root}{place[0]}", KNOWN[name].script())
        return self.put(f"{name}.sh", text)

    def environment(self, **more: str) -> Mapping[str, str]:
        path = f"{self.root}/stubs:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "ROOT": str(self.root), **more}

    def run(self, name: str, *arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", self.script(name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(**environment),
            check=False,
        )
        return done.returncode, done.stdout

    def files(self) -> dict[str, str]:
        """The files that a script could have changed."""
        tops = [self.root / top for top in ("etc", "var", "proc", "sys", "dev", "tmp", "groups")]
        files = [file for top in tops for file in [top, *top.rglob("*")] if file.is_file()]
        return {
            str(file.relative_to(self.root)): str(file.readlink()) if file.is_symlink() else file.read_text()
            for file in files
        }
