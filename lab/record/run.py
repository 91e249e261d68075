"""A whole run, as `results.json` stores it."""

import errno
import hashlib
import io
import json
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, model_validator

from lab.base.activity import Activity
from lab.base.data import parse_json
from lab.base.errors import UsageError, format_error
from lab.base.files import read_regular, write_atomically
from lab.base.formats import check_version
from lab.record.cell import CELLS, CellResult, ExperimentPolicy
from lab.record.outcome import Entry, FrozenEntry, PlainText, Seconds, Stress, Texts


class Host(FrozenEntry):
    """The host that ran guests, and the software with which it ran them."""

    name: PlainText = Field(description="Its node name, or what LAB_HOST_NAME says.")
    kernel: str
    system: str
    cpus: int
    memory_mib: int
    libvirt: str
    qemu: str
    connect: str
    acceleration: str
    acceleration_reason: str

    @property
    def itself(self) -> "Host":
        """The host without what its lanes differ in: it may have KVM for some guests, and emulate others."""
        return self.with_values(acceleration="", acceleration_reason="")


class Omission(FrozenEntry):
    """Packages of a fresh Debian that a guest lacks, or units of its own that never run, and the reason."""

    packages: list[PlainText] = Field(default_factory=list)
    units: list[PlainText] = Field(default_factory=list)
    reason: PlainText


class LaneRecord(Entry):
    """One lane: what its cells share."""

    guest: str
    label: str = Field(default="", description="Its name in this run, as `lane` of its cells has it.")
    host: Host | None = Field(default=None, description="What it ran on. null: as the run's `host` says.")
    image: str = Field(description="SHA-256 of the base image's disk.")
    packages: str = Field(
        default="",
        description="SHA-256 of the list of the image's packages with their versions; of its disk, if the lab "
        "did not build it and has no such list. Empty: not recorded.",
    )
    kernel: str = Field(
        default="",
        description="SHA-256 of the kernel that its machine loads. Empty: the guest's own boot loader chooses "
        "it, or it was not recorded.",
    )
    omissions: list[Omission] = Field(
        default_factory=list,
        description="What its guest lacks beside a fresh installation of the distribution. Empty for a "
        "distribution's own image.",
    )
    fork: str = Field(description="memory: cells were forked from the lane's checkpoint. cold: they were not.")
    network: str | None = Field(
        default=None,
        description="What its guest reached through QEMU's own user network. closed: neither the host nor "
        "anything beyond. null: not recorded.",
    )
    note: PlainText = Field(
        default="", description="What failed and cost no cell: using a stored state of the guest."
    )
    restored: bool = Field(
        default=False, description="Whether the lane restored a stored state instead of booting."
    )
    agent: bool = Field(
        default=False,
        description="Whether a resident agent in the guest ran the lab's own programs; otherwise SSH did.",
    )
    stored_build: bool = Field(default=False, description="Whether that state included the deployed build.")
    kernel_seconds: Seconds | None = Field(
        default=None,
        description="Real seconds that a guest's kernel took until it started user space, divided by how many "
        "programs wanted each of the host's processors: as measured on the host, or at the lane's boot if that "
        "was slower. null: not measured.",
    )
    clock: float = Field(
        default=1.0,
        description="Seconds of the guest's clock in each real second: below 1 for an emulated guest. The "
        "seconds of tests are on that clock, and so are those in the guest's logs; all others are real.",
    )
    seconds: dict[str, Seconds]
    processor_seconds: Seconds | None = Field(
        default=None,
        description="Seconds of processor time that its QEMU took. null: not recorded.",
    )

    def in_run(self, label: str, host: Host | None) -> "LaneRecord":
        """Return the record of this lane as one of a run, in which it has this label and ran on this host."""
        return self.with_values(label=label, host=host)


class LaneStep(Entry):
    """One step of a lane, from its beginning to that of the lane's next step or to the lane's end."""

    lane: PlainText = Field(description="The lane's label; in a run on several hosts it begins with its host.")
    activity: Activity
    text: PlainText = Field(description="What the lane did, as `run.log` has it.")
    began: AwareDatetime
    seconds: Seconds


# The record, and what was decided since it was written: to write the whole record at each cell would cost a run
# of many cells more the longer it goes on.
RESULTS_FILE, DECIDED_FILE = "results.json", "decided.jsonl"
# The most bytes of either that are read, and written. Measured: 1,500 cells with 44 files of evidence and four
# remedies each have 45 MiB, and 77 MiB if each has ten repeats, an experiment and 120 profiles of AppArmor.
MOST_BYTES = 128 << 20
# The format that is written; `lab/base/formats.py` has all that are read.
SCHEMA: Final = 3
# The most of each that a command line takes.
MOST_REPEATS, MOST_SHARDS = 1000, 9999


class BuildRecord(Entry):
    """One boxlite under test; `files` maps each deployed file to its SHA-256."""

    name: str
    version: str
    source: str
    suite: str = Field(
        default="", description="The suite that is run against it. Empty: that was not recorded."
    )
    files: dict[str, str] = Field(default_factory=dict)
    digest: str = Field(
        default="",
        description="SHA-256 of what decides what a guest has of it, without its suite. Empty: not recorded.",
    )
    remarks: Texts = Field(
        default_factory=list,
        description="What the user must know about it, such as tests that its suite names and it lacks.",
    )


class RunOptions(Entry):
    """How a run treats its cells. A resumed run keeps the options of the original run."""

    cold: bool = False
    predict: bool = Field(
        default=False,
        description="Whether no suite was run: each cell is not-run, with what the probes alone expect of it.",
    )
    repeat: int = Field(
        default=1, ge=1, le=MOST_REPEATS, description="How often the suite is run in each cell, at most."
    )
    until_fail: bool = Field(
        default=False, description="Whether the first repeat in which a test fails is a cell's last."
    )
    shuffle: int | None = Field(
        default=None,
        description="The seed that shuffles the tests in the first repeat of each cell; the repeats after it "
        "have the seeds that follow. null: the tests run in the order of the suite.",
    )
    stress: list[Stress] = Field(
        default_factory=list, description="What the guests are loaded with while the suites run."
    )
    retries: int = Field(default=1, ge=0, le=MOST_REPEATS)
    remedies: bool = Field(default=False, description="Whether to try remedies on cells that fail.")
    experiments: ExperimentPolicy = Field(
        default=ExperimentPolicy.NEVER, description="Which cells get an experiment."
    )
    rootfs: str | None = None


def _plan(names: list[str]) -> list[str]:
    if wrong := next((name for name in names if name.count("/") != 2), None):
        raise ValueError(f"expected GUEST/VARIANT/BUILD, found {wrong[:40]!r}")
    if len(set(names)) < len(names):
        raise ValueError("expected each cell once")
    return names


class ShardRecord(Entry):
    """The shard of a plan that a run is: `number` of `count`. `plan` names the cells of all shards."""

    number: int
    count: int = Field(le=MOST_SHARDS)
    plan: Annotated[list[str], AfterValidator(_plan)]
    sizes: list[int] = Field(description="How many cells of the plan each shard has, in its order.")

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"expected a number from 1 to {self.count}, found {self.number}")
        if len(self.sizes) != self.count or sum(self.sizes) != len(self.plan):
            raise ValueError("expected the sizes of all shards, which together are the plan's")
        return self

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class RunInfo(Entry):
    """What holds for the whole run."""

    id: str
    started: AwareDatetime
    finished: AwareDatetime | None = None
    resumed: list[AwareDatetime] = Field(default_factory=list)
    command: str
    lab: str
    interrupted: bool = False
    options: RunOptions = Field(default_factory=RunOptions)
    definitions: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of each definition and program that determines what the cells do.",
    )
    shard: ShardRecord | None = None
    host: Host | None = Field(
        default=None,
        description="What the run began on; null for a merged run of several hosts. Each lane has its own.",
    )
    builds: list[BuildRecord] = Field(default_factory=list)
    lanes: list[LaneRecord] = Field(default_factory=list)
    steps: list[LaneStep] = Field(
        default_factory=list,
        description="What the lanes of this run did when, in the order in which the steps ended. Those of the "
        "runs that `lab merge` joined are in `merged`.",
    )
    host_names: list[PlainText] = Field(
        default_factory=list,
        description="The names of the hosts of a run on several: also of those that were lost or ran nothing.",
    )
    merged: list["RunInfo"] = Field(
        default_factory=list, description="The runs that `lab merge` joined into this one."
    )
    lost_shards: list[int] = Field(
        default_factory=list,
        description="The shards, by number, that `lab merge --partial` was not given. Their cells are not-run "
        "until the run is resumed.",
    )

    @property
    def is_partial(self) -> bool:
        """Whether it was merged without some shards, and nothing has run their cells since."""
        return bool(self.lost_shards) and not self.resumed

    def hosts(self, guest: str | None = None, lane: str = "") -> list[Host]:
        """What the lanes ran on: those of a guest, and if it is known the one of this label.

        Each host once, or twice if some of its guests had KVM and others were emulated.
        """
        hosts = [record.host or self.host for record in self.lanes_of(guest, lane)]
        hosts = hosts or [part.host for part in (self, *self.merged)]
        # QEMU's words about KVM have the time in them, and the name of a machine.
        same: dict[Host, Host] = {}
        for host in filter(None, hosts):
            same.setdefault(host.with_values(acceleration_reason=""), host)
        return list(same.values())

    def lanes_of(self, guest: str | None, lane: str = "") -> list[LaneRecord]:
        """The lanes of a guest, and if it is known only the one of this label. None: of all guests."""
        of_guest = [record for record in self.lanes if guest in (None, record.guest)]
        return [record for record in of_guest if lane and record.label == lane] or of_guest


class DecidedCell(Entry):
    """A line of `decided.jsonl`: a cell that was decided, with the lanes and their steps that ended before."""

    cell: CellResult
    lanes: list[LaneRecord]
    steps: list[LaneStep]


def format_continuation(record: bytes) -> bytes:
    """The first line of the `decided.jsonl` that continues the `results.json` with this content."""
    return json.dumps({"follows": hashlib.sha256(record).hexdigest()}).encode() + b"\n"


class RunResult(Entry):
    """The record of one run of `lab matrix`, as stored in `results.json`."""

    model_config = ConfigDict(extra="forbid", validate_by_alias=True, validate_by_name=True)

    format: Literal[3] = Field(default=SCHEMA, alias="schema")
    run: RunInfo
    cells: list[CellResult]

    def write(self, folder: Path) -> Path:
        """Replace `results.json` in the run's folder atomically: a reader sees the old file or the new one."""
        text = self.model_dump_json(by_alias=True, indent=2) + "\n"
        # What cannot be read again must not replace what can.
        if len(text.encode()) > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES >> 20} MiB", str(folder / RESULTS_FILE))
        write_atomically(folder / RESULTS_FILE, text)
        return folder / RESULTS_FILE

    def cell_names(self) -> list[str]:
        """The names of the cells, those that failed first; with their builds if the run has several."""
        several = len({cell.build for cell in self.cells}) > 1
        cells = sorted(self.cells, key=lambda cell: cell.status.as_expected)
        return [cell.name if several else f"{cell.guest}/{cell.variant}" for cell in cells]

    @classmethod
    def read(cls, folder: Path) -> "RunResult":
        """Read the record in a run's folder, with what was decided since it was written.

        Raises UsageError if it cannot be read.
        """
        path = source = folder / RESULTS_FILE
        try:
            # Before `results.json`: one that is written meanwhile has all that these lines add.
            decided = b""
            with suppress(FileNotFoundError):
                decided = read_regular(folder / DECIDED_FILE, MOST_BYTES)
            text = read_regular(path, MOST_BYTES)
            first_line, tree = format_continuation(text), parse_json(text)
            del text  # As large as all that is made of it.
            check_version("record", tree, path)
            run = cls.model_validate(tree)
            if decided.startswith(first_line):
                source = folder / DECIDED_FILE
                run._add(decided)
                source = path
            run._check(folder)
            return run
        except OSError as error:
            raise UsageError(
                f"{folder} is not the folder of a run: {error.strerror}: {error.filename or path}",
                hint="name a folder that `lab matrix` wrote",
            ) from error
        except ValueError as error:
            raise UsageError(
                f"{source} is not a record that this lab can read: {format_error(error)}",
                hint="name another run, copy it again if it is cut off, or read it with the lab that wrote it",
            ) from error

    def _add(self, decided: bytes) -> None:
        """Take in what was decided later: the lines after the first one. Raises ValueError."""
        numbers = {cell.folder: number for number, cell in enumerate(self.cells)}
        for line in islice(io.BytesIO(decided), 1, None):
            if not line.endswith(b"\n"):
                break  # What a lab was writing when it was killed.
            decision = DecidedCell.model_validate(parse_json(line))
            if decision.cell.folder not in numbers:
                raise ValueError(f"cell: the run has no {decision.cell.folder}")
            self.cells[numbers[decision.cell.folder]] = decision.cell
            self.run.lanes += decision.lanes
            self.run.steps += decision.steps

    def _check(self, folder: Path) -> None:
        """Raise ValueError if there is no cell, one twice, one of no build of the run, or one elsewhere.

        Evidence is read from a cell's folder and a resumed run writes there, so it is a folder of the run's
        folder.
        """
        if not self.cells:
            raise ValueError("cells: the run has none, expected at least one")
        builds = {build.name for build in self.run.builds}
        numbers: dict[Path, int] = {}
        for number, cell in enumerate(self.cells):
            parts = cell.folder.parts
            if parts[0] != CELLS or ".." in parts or "\0" in str(cell.folder):
                name = str(cell.folder)[:80]
                raise ValueError(f"cells.{number}: expected names of a folder, found {name!r}")
            if cell.build not in builds:
                raise ValueError(f"cells.{number}.build: expected one of run.builds, found {cell.build[:40]!r}")
            if cell.folder in numbers:
                first = numbers[cell.folder]
                raise ValueError(f"cells.{number}: expected each cell once, found that of cells.{first}")
            numbers[cell.folder] = number
        folders = {place for cell in numbers for place in (cell, *cell.parents[:-1])}
        if link := next((place for place in folders if (folder / place).is_symlink()), None):
            raise ValueError(f"{link}: expected a folder, found a link")

    @property
    def met_bug(self) -> bool:
        """Whether a bug in the lab kept anything from being run."""
        return any(cell.met_bug for cell in self.cells)

    def exit_status(self) -> int:
        """Return 0 if all cells are as expected, 1 if any is not, 3 if the others could not run.

        4 if a bug in the lab kept anything from being run, whatever the others did.
        """
        if self.met_bug:
            return 4
        statuses = [cell.status for cell in self.cells]
        if any(not s.as_expected and not s.could_not_run for s in statuses):
            return 1
        return 3 if any(s.could_not_run for s in statuses) else 0


def make_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `results.json`. It is published as `docs/results.schema.json`."""
    schema = RunResult.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(make_json_schema(), indent=2))
