"""A lane, and the host that it ran on."""

from pydantic import ConfigDict, Field

from lab.record._base import Entry, PlainText, Seconds


class Host(Entry):
    """The machine that ran guests, and the software it ran them with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: PlainText = Field(description="What it is called: its node name, or what LAB_HOST_NAME says.")
    kernel: str
    system: str
    cpus: int
    memory_mib: int
    libvirt: str
    qemu: str
    connect: str
    acceleration: str
    acceleration_reason: str


class LaneRecord(Entry):
    """One lane: what its cells share."""

    guest: str
    label: str = Field(default="", description="Its name in this run, as `lane` of its cells has it.")
    host: Host | None = Field(default=None, description="What it ran on. null: as the run's `host` says.")
    image: str = Field(description="SHA-256 of the base image's disk.")
    fork: str = Field(
        description="How cells were forked from the lane's checkpoint: memory or disk. cold: they were not."
    )
    network: str | None = Field(
        default=None,
        description="What carried its guest's packets: closed, which is QEMU's own user network without a way "
        "to the host or beyond. null: not recorded.",
    )
    note: PlainText = Field(default="", description="Why the lane did not fork from memory, if it did not.")
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
        description="Real seconds that a guest's kernel took until it started user space: as measured on the "
        "host, or at the lane's boot if that was slower. null: not measured.",
    )
    clock: float = Field(
        default=1.0,
        description="Seconds of the guest's clock in each real second: below 1 for an emulated guest. The "
        "seconds of tests are on that clock, and so are those in the guest's logs; all others are real.",
    )
    limits_factor: float | None = Field(
        default=None,
        description="By what limits of time were multiplied that are meant for ordinary hardware with KVM. "
        "null: not recorded.",
    )
    seconds: dict[str, Seconds]
    processor_seconds: Seconds | None = Field(
        default=None,
        description="Seconds of processor time that its QEMU and passt took. null: not recorded.",
    )
