"""What a user asks of a run: each field has its option."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from lab.base.errors import UsageError
from lab.base.options import Group, make_flag, make_option
from lab.builds import HIGHEST_SEED, UNDER_STRESS, describe_forms, rootfs
from lab.catalog import Catalog
from lab.record import ExperimentPolicy, RunOptions, Stress

# How often a suite is run at most to see it fail, unless --repeat says how often.
UNTIL_FAIL = 100
# What --shuffle stands for without a value.
ANY_SEED = "any"


def _seed(text: str) -> int:
    """Read the seed of --shuffle. Raises ValueError."""
    if text == ANY_SEED:
        return secrets.randbelow(HIGHEST_SEED + 1)
    if not text.isdecimal() or len(text) > len(str(HIGHEST_SEED)):
        raise ValueError(f"{text!r} is not a number from 0 to {HIGHEST_SEED}")
    return int(text)


def _stress(text: str) -> list[Stress]:
    """Read what --stress loads guests with. Raises ValueError."""
    words = text.split(",")
    if unknown := [word for word in words if word not in list(Stress)]:
        raise ValueError(f"{', '.join(map(repr, unknown))}: expected some of {', '.join(Stress)}")
    return [stress for stress in Stress if stress in words]


@dataclass(frozen=True)
class Request:
    """A new run as the user asks for it; each field has its option of `lab matrix`.

    Guests and variants that are not named here come from the set; without a set, the run has all of them.
    """

    set_name: str | None = make_option(
        "Run a named set of cells (see `lab list sets`), or the set in a TOML file.",
        "SET|FILE",
        flags="--set",
        group=Group.WHAT,
    )
    guests: Sequence[str] = make_option(
        "Run this guest instead of the set's guests; repeatable. See `lab list guests`.",
        "GUEST",
        flags="-g",
        default=(),
    )
    variants: Sequence[str] = make_option(
        "Run this variant instead of the set's variants; repeatable. See `lab list variants`.",
        "VARIANT",
        flags="-v",
        default=(),
    )
    kernels: Sequence[str] = make_option(
        "Run guests that are built from packages with this kernel: a package of the guest's archive (NAME, "
        "NAME=VERSION, NAME=backports), a .deb file, or a folder with a kernel and its modules; repeatable. "
        "own: the guest's own, which is the default.",
        "PACKAGE|FILE|DIR",
        flags="--kernel",
        default=(),
    )
    builds: Sequence[str] = make_option(
        f"Test this {describe_forms()}; repeat it to compare builds. Default: the newest release.",
        "BUILD",
        flags="--build",
        default=(),
    )
    suite: str | None = make_option(
        "Run this suite against the builds, or all that they have; see `lab list suites`. Default: jailer for "
        "a release or a wheel.",
        "SUITE|all",
    )
    cold: bool = make_flag("Boot a machine for each cell instead of forking a checkpoint.", group=Group.HOW)
    predict: bool = make_flag(
        "Boot the guests and say what the probes alone expect of each cell: deploy no build and run no suite. "
        "Each cell is not-run, with its prediction, so the exit status is 3."
    )
    repeat: int | None = make_option(
        "Run the suite this many times in each cell, and count how often each test fails. Default: 1.",
        type=click.IntRange(1, 1000),
    )
    until_fail: bool = make_flag(
        "Repeat the suite of a cell until a test fails, as often as --repeat says at most. "
        f"Default: {UNTIL_FAIL} times."
    )
    shuffle: int | None = make_option(
        "Shuffle the tests of each repeat by its own seed, which is recorded and shown. With SEED, the first "
        "repeat has the order of that seed.",
        "[=SEED]",
        type=_seed,
        is_flag=False,
        flag_value=ANY_SEED,
    )
    stress: Sequence[Stress] | None = make_option(
        "Load each guest with these while the suite runs (stress-ng of the guest's packages). "
        f"Limits of tests are {UNDER_STRESS:.0f} times as long. Default: all of them.",
        f"[={','.join(Stress)}]",
        type=_stress,
        is_flag=False,
        flag_value=",".join(Stress),
    )
    retries: int = make_option(
        "Retry a cell on a fresh machine this many times after a fault of the lab itself.",
        type=click.IntRange(0, 10),
        show_default=True,
        default=1,
    )
    remedies: bool | None = make_option(
        "Try remedies on cells that fail. Default: as the set says; without a set, yes."
    )
    experiment: bool | None = make_option(
        "Try changes one by one to find which of them turn a failing cell into a passing one, and which "
        "break a passing cell. Default: only on cells that fail unexpectedly and whose cause is not proved."
    )
    rootfs: Path | None = make_option(
        "Boot boxes from this OCI image layout; it needs sh, echo and sleep. Default: a static busybox.", "DIR"
    )
    shard: str | None = make_option(
        "Run only shard I of N, to split a plan over hosts; join with `lab merge`.", "I/N", group=Group.HOSTS
    )

    def options(self, catalog: Catalog) -> RunOptions:
        """Decide the run's options. Raises UsageError if they contradict each other or `rootfs` is unusable."""
        for name, is_set, attempt in (
            ("--remedies", self.remedies, "each remedy"),
            ("--experiment", self.experiment, "each change"),
        ):
            if self.cold and is_set:
                raise UsageError(
                    f"{name} and --cold contradict each other: {attempt} is tried in a fork of its cell",
                    hint="leave one of them out",
                )
        of_suites = {
            "--cold": self.cold,
            "--repeat": self.repeat,
            "--until-fail": self.until_fail,
            "--shuffle": self.shuffle is not None,
            "--stress": self.stress,
            "--remedies": self.remedies,
            "--experiment": self.experiment,
        }
        if self.predict and (wrong := next((name for name, is_set in of_suites.items() if is_set), None)):
            raise UsageError(
                f"--predict and {wrong} contradict each other: --predict runs no suite, and forks each cell",
                hint="leave one of them out",
            )
        remedies = self.remedies
        if remedies is None:
            remedies = self.set_name is None or catalog.set(self.set_name).remedies
        experiments = ExperimentPolicy.ALWAYS if self.experiment else ExperimentPolicy.UNCLEAR
        return RunOptions(
            cold=self.cold,
            predict=self.predict,
            repeat=self.repeat or (UNTIL_FAIL if self.until_fail else 1),
            until_fail=self.until_fail,
            shuffle=self.shuffle,
            stress=list(self.stress or ()),
            retries=self.retries,
            remedies=remedies and not (self.cold or self.predict),
            experiments=ExperimentPolicy.NEVER
            if self.cold or self.predict or self.experiment is False
            else experiments,
            rootfs=str(rootfs.check_layout(self.rootfs).resolve()) if self.rootfs else None,
        )
