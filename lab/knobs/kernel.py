"""Settings that only take effect at boot: `[kernel]`."""

from typing import Any, Self

from pydantic import Field

from lab.knobs._base import TableKnob
from lab.probes import Facts, Who


class Kernel(TableKnob):
    """Arguments of the kernel's command line."""

    arguments: list[str] = Field(min_length=1)
    without: list[str] = Field(
        default_factory=list, description="Security modules that are not in use then, as the kernel calls them."
    )

    def settings(self) -> dict[str, Any] | None:
        return None

    def differences(self, facts: Facts, who: Who) -> list[str]:
        given = facts.command_line.split()
        wrong = [f"the kernel was booted without {word}" for word in self.arguments if word not in given]
        if facts.lsm is None:
            return [
                *wrong,
                *(f"whether the security module {name} is in use is not known" for name in self.without),
            ]
        return [
            *wrong,
            *(f"the security module {name} is in use" for name in self.without if name in facts.lsm),
        ]

    def combined(self, other: Self) -> Self:
        arguments = [*self.arguments, *(word for word in other.arguments if word not in self.arguments)]
        return self.model_copy(
            update={"arguments": arguments, "without": sorted({*self.without, *other.without})}
        )

    def kernel_arguments(self) -> list[str]:
        return self.arguments
