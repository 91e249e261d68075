"""The definition of a suite: `suite.toml` in the suite's folder below `lab/suites/`."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from lab.base.paths import PACKAGE
from lab.catalog.toml import Definition
from lab.record import Needs


class Suite(Definition):
    """The tests that run inside the guest. `tests` names all of them, so that a missing result is noticed."""

    name: str
    title: str
    control: str = Field(
        default="", description="The test that passes even if the jailer is blocked; empty: there is none."
    )
    witness: str = Field(
        default="",
        description="The single most telling test: a box starts in the sandbox, and the sandbox isolates it. "
        "Empty: no test tells more than the others.",
    )
    boxes: bool = Field(
        default=True,
        description="Whether its tests start boxes. If not, they need nothing of what only boxes need.",
    )
    filter: str = Field(
        default="", description="nextest's expression for its tests; empty: nextest does not run them."
    )
    cargo: tuple[str, ...] = Field(default=(), description="Cargo's options that build its tests.")
    test_seconds: int = Field(description="Limit of one test, on a host with hardware acceleration.")
    suite_seconds: int = Field(description="Limit of the whole suite, on such a host.")
    shared: list[Annotated[str, Field(max_length=100)]] = Field(
        default=[], description="Files of `lab/suites/_shared` that stand beside the suite's own in the guest."
    )
    tests: dict[str, Needs] = Field(min_length=1)

    @model_validator(mode="after")
    def _named_tests_exist(self) -> Self:
        for key in ("control", "witness"):
            if (name := getattr(self, key)) and name not in self.tests:
                raise ValueError(f"{key}: expected one of the suite's tests, found {name!r}")
        return self

    @model_validator(mode="after")
    def _shared_files_exist(self) -> Self:
        for name, file in self.shared_files.items():
            if not file.is_file():
                raise ValueError(f"shared: expected the name of a file in {file.parent}, found {name!r}")
            if (self.folder / name).exists():
                raise ValueError(f"shared: the suite's folder has a file {name!r} of its own")
        return self

    @property
    def folder(self) -> Path:
        return PACKAGE / "suites" / self.name

    @property
    def shared_files(self) -> dict[str, Path]:
        """The files that it shares with other suites, by their names beside its own."""
        return {name: PACKAGE / "suites" / "_shared" / name for name in self.shared}

    @property
    def files(self) -> dict[str, Path]:
        """Its own files and the shared ones, by the names that they have side by side in a guest."""
        own = {file.name: file for file in self.folder.glob("*") if file.is_file()}
        return dict(sorted({**own, **self.shared_files}.items()))

    def texts(self) -> list[str]:
        """Return the names and texts of the suite's files, which determine what its tests do."""
        return [part for name, file in self.files.items() for part in (name, file.read_text())]

    def only(self, tests: Collection[str]) -> "Suite":
        """Return the suite reduced to these tests."""
        chosen = {name: needs for name, needs in self.tests.items() if name in tests}
        return self.model_copy(update={"tests": chosen})

    @property
    def telling(self) -> list[str]:
        """The witness; all tests if there is none."""
        return [self.witness] if self.witness else list(self.tests)

    def needing(self, needs: Needs) -> set[str]:
        """Return the tests that cannot pass on a host without this need."""
        if not self.boxes and needs is not Needs.SANDBOX:
            # Without a box, the sandbox needs neither boxlite's runtime nor /dev/kvm.
            return set()
        return {name for name, what in self.tests.items() if what.includes(needs)}
