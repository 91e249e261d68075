"""The kinds of setting that variants consist of: what a kind sets, and how a guest shows it.

The modules only read definitions and facts. The program that changes a guest is `lab/guest/remote/knobs.py`.
"""

from lab.catalog.knobs._base import Conflict, Knob, Table
from lab.catalog.knobs.files import Bubblewrap, Files, Filesystem, Mount
from lab.catalog.knobs.kernel import Kernel, Sysctl
from lab.catalog.knobs.security_modules import AppArmor, Selinux
from lab.catalog.knobs.suite_user import Cgroup, Container, Kvm, Limits, User

__all__ = ["Conflict", "Knob", "Table", "kinds"]

# By the names of their tables in a variant's TOML, and of their functions in the guest. A variant's settings
# are put on a guest in this order.
KINDS: dict[str, type[Knob]] = {
    "apparmor": AppArmor,
    "bubblewrap": Bubblewrap,
    "cgroup": Cgroup,
    "container": Container,
    "files": Files,
    "filesystem": Filesystem,
    "kernel": Kernel,
    "kvm": Kvm,
    "limits": Limits,
    "mount": Mount,
    "selinux": Selinux,
    "sysctl": Sysctl,
    "user": User,
}


def kinds() -> dict[str, type[Knob]]:
    """Every kind of setting, by the name of its table in a variant's TOML."""
    return KINDS
