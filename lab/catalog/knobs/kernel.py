"""Settings of the kernel: `[kernel]`, which takes effect at boot, and `[sysctl]`."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PlainValidator

from lab.catalog.knobs._base import MapKnob, TableKnob
from lab.probes import Facts, SuiteUser


class Kernel(TableKnob):
    """Arguments of the kernel's command line."""

    arguments: list[str] = Field(min_length=1)
    without: list[str] = Field(
        default_factory=list, description="Security modules that are not in use then, as the kernel calls them."
    )

    def settings(self) -> dict[str, Any] | None:
        return None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
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


# Neither 007 nor -0: a value that is read back has the digits that were set.
NUMBER = re.compile(r"0|-?[1-9][0-9]{0,19}")
# No part begins with a slash, so that no name leads out of /proc/sys.
NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_][A-Za-z0-9_:@/-]*)+")


def checked(name: str) -> str:
    """A name as sysctl(8) prints it: a dot between two parts, a slash for a dot within a part."""
    if not NAME.fullmatch(name):
        raise ValueError("expected a name like kernel.printk or net.ipv4.conf.eth0/1.forwarding")
    return name


def canonical(value: Any) -> int | str:
    """A value in its one form: a number as a number, anything else as text with single spaces.

    The kernel prints the numbers of a list with tabs between them.
    """
    if isinstance(value, list) and all(type(each) is int for each in value):
        value = " ".join(map(str, value))
    if type(value) is int:
        return value
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text or not text.isprintable():
        raise ValueError("expected a number, a text in one line, or a list of numbers")
    return int(text) if NUMBER.fullmatch(text) else text


Name = Annotated[str, AfterValidator(checked)]
Value = Annotated[int | str, PlainValidator(canonical)]


class Sysctl(MapKnob):
    """Values of sysctls: a number, a text, or a list of numbers. They persist over a reboot."""

    root: dict[Name, Value]

    def sysctls(self) -> list[str]:
        return list(self.root)

    def why_not(self, facts: Facts) -> str | None:
        missing = [name for name in self.root if facts.sysctls[name] is None]
        return f"its kernel has no {missing[0]}" if missing else None

    def differences(self, facts: Facts, who: SuiteUser) -> list[str]:
        return [
            f"{name} is {facts.sysctls[name]}, not {value}"
            for name, value in self.root.items()
            if _known(facts.sysctls[name]) != value
        ]

    @classmethod
    def leading(cls, here: Facts, there: Facts) -> list[Self]:
        """Each sysctl that was read in both guests and has a different value there."""
        theirs = dict(there.sysctls.items())
        made = []
        for name, value in here.sysctls.items():
            wanted = _known(theirs.get(name))
            if value is not None and wanted is not None and wanted != _known(value):
                made.append(cls.model_validate({name: wanted}))
        return made


def _known(text: str | None) -> int | str | None:
    """The value that a guest shows; None if its kernel has no such sysctl, or shows nothing that can be set."""
    try:
        return canonical(text)
    except ValueError:
        return None
