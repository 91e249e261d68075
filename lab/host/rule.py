"""The rules of AppArmor and SELinux that setup.sh can add: `rules.sh` has them.

`python -m lab.host.rule` prints the one that would allow what was refused last, and nothing without one.
"""

from pathlib import Path

from lab.base import process
from lab.base.paths import Paths
from lab.host.denials import PASST
from lab.machine import network

RULES = Path(__file__).with_name("rules.sh")


def show(rule: str, paths: Paths) -> str:
    """A rule as it would be added for these folders."""
    return process.run(["sh", RULES, "show", rule, paths.state], timeout=20).rstrip()


def passt_lacks_it(paths: Paths) -> bool:
    """Whether AppArmor has rules for passt here, and not all lines of the one that setup.sh can add."""
    try:
        has = (network.APPARMOR / "abstractions/passt").read_text().split("\n")
    except OSError:
        return False
    lines = [line.strip() for line in show(PASST, paths).splitlines()[1:]]
    return not {line for line in lines if not line.startswith("#")} <= {line.strip() for line in has}


if __name__ == "__main__":
    last = network.last(Paths.default())
    print(last.rule if last else "")
