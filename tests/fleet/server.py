"""The SSH server of a test's hosts: python -m tests.fleet.server FOLDER ADDRESS. It ends with its input."""

import sys
from pathlib import Path

from tests.builders import ssh
from tests.builders.ssh import User

if __name__ == "__main__":
    user = User(Path(sys.argv[1]))
    with ssh.paramiko_server(user, ssh.environment(user), sys.argv[2]) as port:
        print(port, flush=True)
        sys.stdin.read()
