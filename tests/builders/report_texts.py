# ruff: noqa: E501
"""Bug reports as people write them, and what tests ask of one that was read.

The hosts are real ones; the words are the tests' own.
"""

from lab.probes import Probe
from lab.repro.reading import read
from lab.repro.report import Statement
from tests.builders import probe_script
from tests.builders.facts import printed_facts

# A page's text: flattened, with its quotes escaped, and a second time with its code left out and lines stuck together.
TWICE = r"""
What happens
Both isolation tests panic on my machine:
jailer::jailer_enabled_box_starts_and_executes
jailer::jailer_creates_isolated_mount_namespace
with
Config(\"Sandbox preflight failed: bwrap cannot create user namespaces.
failed to run bwrap: Permission denied (os error 13)\")
and the kernel logs this on Ubuntu 24.04:
audit: type=1400 apparmor=\"DENIED\" operation=\"capable\"
profile=\"unprivileged_userns\" capability=21 capname=\"sys_admin\"
How to see it
# new Ubuntu 24.04 instance (kernel 7.0.0-1004-aws)
git clone https://github.com/boxlite-ai/boxlite
make setup
make test:integration:rust FILTER=jailer_enabled_box
Setting:
kernel.unprivileged_userns_clone=1
kernel.apparmor_restrict_unprivileged_userns=0
apparmor_parser -R /etc/apparmor.d/unprivileged_userns
does not unblock it here. I have no other idea.
What happens
Both isolation tests panic on my machine:jailer::jailer_enabled_box_starts_and_executesjailer::jailer_creates_isolated_mount_namespacewith
Setting:
kernel.unprivileged_userns_clone=1kernel.apparmor_restrict_unprivileged_userns=0apparmor_parser -R /etc/apparmor.d/unprivileged_usernsdoes not unblock it here. I have no other idea.
"""

# boxlite's own seccomp filter, on a distribution that derives from Ubuntu.
KILLED = """\
# No box survives its start, status 159

- Distribution: Pop!_OS (Ubuntu-based), Linux 6.17.9-76061709-generic x86_64
- boxlite SDK: 0.5.13 (0.5.12 too)
- Python: 3.14.2

```
RuntimeError: engine reported an error: Box 01ABCDEFGHJKMNPQRSTVWXYZ00 failed to start

Exit code: 159 (unknown signal)
```

The log:

```
2026-02-14T19:20:26.613942Z  INFO boxlite::jailer::command: Building bwrap-isolated command
2026-02-14T19:20:26.650443Z  INFO boxlite::vmm::controller::shim: boxlite-shim subprocess spawned
```
"""

# A limit on the user's processes; no host is named.
MANY_PROCESSES = """\
# a busy account cannot start boxes

```
bwrap: Creating new namespace failed: Resource temporarily unavailable
```

On an account with few processes the same box starts. `max_processes` is the default.
"""

# Ubuntu's policy without an audit line, for the program that uses bubblewrap.
FAMILY = """\
- OS: Ubuntu 24.04 family
- Kernel: `Linux 6.17.0-29-generic`
- Bubblewrap: `bubblewrap 0.9.0`
- `kernel.unprivileged_userns_clone = 1`
- `user.max_user_namespaces = 255645`
- `kernel.apparmor_restrict_unprivileged_userns = 1`

```
$ bwrap --unshare-net --dev-bind / / true
bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted
$ bwrap --dev-bind / / true
bwrap: setting up uid map: Permission denied
```
"""

# The same policy, for a program that is not bubblewrap; no host is named.
MOVED = """\
```
$ sudo dmesg | grep audit
[11000.374883] audit: type=1400 audit(1741951343.850:640): apparmor="AUDIT" operation="userns_create" class="namespace" info="Userns create - transitioning profile" profile="unconfined" pid=45962 comm="some-desktop" requested="userns_create" target="unprivileged_userns"
[11000.376913] audit: type=1400 audit(1741951343.852:641): apparmor="DENIED" operation="capable" class="cap" profile="unprivileged_userns" pid=45964 comm="some-desktop" capability=21  capname="sys_admin"
```

With `firejail --ignore=apparmor` a window opens.
"""

# What the probe script prints on a Debian 13 whose limit on user namespaces is 0.
FULL = Probe(status=1, stderr="unshare: unshare failed: No space left on device", command=())
MISSING = Probe(status=None, stderr="[Errno 2] No such file or directory: 'bwrap'", command=())
PROBE = probe_script.output(
    printed_facts(
        kernel="6.12.57+deb13-amd64",
        sysctls={"user.max_user_namespaces": "0"},
        apparmor=None,
        bubblewrap=None,
    ),
    {
        **{"unshare_user": FULL, "unshare_user_root": FULL},
        **{"bwrap_user": MISSING, "bwrap_all": MISSING},
    },
    uid=1000,
    context={"apparmor": None},
)


CLONE = "kernel.unprivileged_userns_clone"
RESTRICT = "kernel.apparmor_restrict_unprivileged_userns"


def of[S: Statement](kind: type[S], text: str) -> list[S]:
    return list(read(text.encode()).of(kind))
