"""What the user of the lab wants for a report. Reading a report needs none of what plans and runs import."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.base.options import Group, make_flag, make_option


@dataclass(frozen=True)
class Wishes:
    """What the user of the lab wants for a report: which guest and build are run, and what beside the suite."""

    nearest: bool = make_flag(
        "If no guest that can be run here is the report's host, run the guest that comes nearest to it.",
        group=Group.WHAT,
    )
    guest: str | None = make_option(
        "Run this guest. Default: the one of the distribution and release that the report names.", "GUEST"
    )
    build: str | None = make_option(
        "Test this release, or what else `lab matrix --build` takes. Default: the version that the report "
        "names, or else the newest release.",
        "BUILD",
    )
    bisection: bool = make_flag(
        "Run other releases to find the first one that failed, and the first one that passed again.",
        flags="--bisect",
        group=Group.HOW,
    )
    remedies: bool = make_option("Try remedies on the cells that fail. Default: yes.", default=True)

    @property
    def command(self) -> str:
        """The command that answers the report again. It holds no path of this host."""
        words = ["lab", "repro", "REPORT"]
        words += ["--nearest"] if self.nearest else []
        words += ["--guest", self.guest] if self.guest else []
        words += ["--build", Path(self.build).name] if self.build else []
        words += ["--bisect"] if self.bisection else []
        words += [] if self.remedies else ["--no-remedies"]
        return shlex.join(words)
