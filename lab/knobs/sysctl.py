"""Kernel parameters: `[sysctl]`, each by its full name."""

import re
from typing import Self

from lab.knobs._base import MapKnob
from lab.probes import Facts, Who

NUMBER = re.compile(r"-?\d+")


class Sysctl(MapKnob):
    """Values of sysctls. They persist over a reboot."""

    root: dict[str, int]

    def sysctls(self) -> list[str]:
        return list(self.root)

    def why_not(self, facts: Facts) -> str | None:
        missing = [name for name in self.root if facts.sysctls[name] is None]
        return f"its kernel has no {missing[0]}" if missing else None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        return [
            f"{name} is {facts.sysctls[name]}, not {value}"
            for name, value in self.root.items()
            if facts.sysctls[name] != str(value)
        ]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """Each sysctl that was read in both guests and has a different number there."""
        theirs = dict(there.sysctls.items())
        return [
            cls.model_validate({name: int(wanted)})
            for name, value in here.sysctls.items()
            if value is not None
            and (wanted := theirs.get(name)) is not None
            and wanted != value
            and NUMBER.fullmatch(wanted)
        ]
