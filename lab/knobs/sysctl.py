"""Kernel parameters: `[sysctl]`, each by its full name."""

from typing import Self

from lab.knobs._base import Facts, MapKnob, Who


class Sysctl(MapKnob):
    """Values of sysctls, kept over a reboot."""

    root: dict[str, int]

    def why_not(self, facts: Facts) -> str | None:
        missing = [name for name in self.root if facts["sysctls"].get(name) is None]
        return f"its kernel has no {missing[0]}" if missing else None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        return [
            f"{name} is {facts['sysctls'].get(name)}, not {value}"
            for name, value in self.root.items()
            if facts["sysctls"].get(name) != str(value)
        ]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """Each sysctl that both guests have, and with different values."""
        theirs = there["sysctls"]
        return [
            cls.model_validate({name: int(theirs[name])})
            for name, value in here["sysctls"].items()
            if None not in (value, theirs.get(name)) and value != theirs[name]
        ]
