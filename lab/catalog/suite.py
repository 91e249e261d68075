"""A suite's definition: `suite.toml` in its folder below `lab/suites/`."""

from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from lab.base.paths import PACKAGE
from lab.catalog.toml import Definition
from lab.record import Needs


class Suite(Definition):
    """The tests that run inside the guest. `tests` names every one, so that a missing result is seen."""

    name: str
    title: str
    control: str = Field(description="The test that passes where only the jailer is blocked.")
    witness: str = Field(
        description="The test that tells most alone: a box starts in the sandbox, and the sandbox is one."
    )
    test_seconds: int = Field(description="Limit of one test, on a host with hardware acceleration.")
    suite_seconds: int = Field(description="Limit of the whole suite, likewise.")
    tests: dict[str, Needs]

    @property
    def folder(self) -> Path:
        return PACKAGE / "suites" / self.name

    def texts(self) -> list[str]:
        """The name and the text of each of its files: what decides what its tests do."""
        files = sorted(file for file in self.folder.glob("*") if file.is_file())
        return [part for file in files for part in (file.name, file.read_text())]

    def only(self, tests: Collection[str]) -> "Suite":
        """The suite with these tests alone."""
        chosen = {name: needs for name, needs in self.tests.items() if name in tests}
        return self.model_copy(update={"tests": chosen})

    def needing(self, needs: Needs) -> set[str]:
        """The tests that cannot pass without this much of a host."""
        return {name for name, what in self.tests.items() if what.includes(needs)}
