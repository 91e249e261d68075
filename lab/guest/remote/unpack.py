"""Unpack the tar at the beginning of a disk into a folder, as the user who owns what is in it. Runs as root.

Argument: {"disk": its device, "size": bytes of the tar, "folder": made if it is not there, "owner": a user}.
"""

import fcntl
import json
import mmap
import os
import pwd
import subprocess
import sys

MIB = 2**20
# Of Linux; Python has its name from 3.10 on.
SET_PIPE_SIZE = 1031

asked = json.loads(sys.argv[1])
owner = pwd.getpwnam(asked["owner"])
os.umask(0o022)
os.makedirs(asked["folder"], exist_ok=True)
os.chown(asked["folder"], owner.pw_uid, owner.pw_gid)
# Read past the page cache: what is cached would be part of every checkpoint. That needs aligned memory.
disk = os.open(asked["disk"], os.O_RDONLY | os.O_DIRECT)
block = memoryview(mmap.mmap(-1, MIB))
tar = subprocess.Popen(
    ["tar", "--blocking-factor", str(MIB // 512), "-xf", "-", "-C", asked["folder"]],
    stdin=subprocess.PIPE,
    user=owner.pw_uid,
    group=owner.pw_gid,
)
# Switching between the two at every 64 KiB took an emulated guest as long as all the rest.
fcntl.fcntl(tar.stdin, SET_PIPE_SIZE, MIB)
left = asked["size"]
while left > 0:
    count = min(os.readv(disk, [block]), left)
    if count == 0:
        raise SystemExit("the disk ends %d bytes before its tar" % left)
    tar.stdin.write(block[:count])
    left -= count
tar.stdin.close()
if tar.wait():
    raise SystemExit("tar ended with status %d" % tar.returncode)
print(json.dumps({"unpacked": True}))
