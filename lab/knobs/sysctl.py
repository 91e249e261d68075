"""Kernel parameters: `[sysctl]`, each by its full name."""

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
