"""What confined the processes of a running box, as the suite's user saw it from outside."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from lab.base.files import plain
from lab.record._base import Entry

# The build under test can write these texts. A path has at most 4096 bytes, and a box some 40 mounts.
LONGEST, MOST = 5000, 500
Text = Annotated[str, StringConstraints(max_length=LONGEST), AfterValidator(plain)]
Texts = Annotated[list[Text], Field(max_length=MOST)]
# A set of capabilities, as /proc/PID/status has it.
Mask = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
# What boxlite takes for a limit: 64 bits.
Limit = Annotated[int, Field(ge=0, lt=2**64)]


class BoxProcess(Entry):
    """One process of a box, with what boxlite may give to any of them."""

    program: Text
    seccomp: Texts
    limits: dict[Text, Text] = Field(max_length=50)


class Protection(Entry):
    """What confines the process of a box: of the shim and its descendants the one with the most namespaces.

    In paths, HOME stands for the home of boxlite's runtime, and BOX for the box.
    """

    program: Text = Field(description="The name of the process.")
    namespaces: Texts = Field(description="The kinds of namespace that it does not share with the test.")
    no_new_privs: bool
    seccomp: Texts = Field(
        description="The modes of its threads: off, strict, filter. A kernel without seccomp does not tell it: "
        "`not told by the kernel`."
    )
    capabilities: dict[Text, Mask] = Field(
        max_length=10, description="Its sets of capabilities: Inh, Prm, Eff, Bnd, Amb."
    )
    users: Texts = Field(description="Its real, effective, saved and file system user, each number once.")
    groups: Texts = Field(description="The numbers of all its groups.")
    root: Text = Field(description="Where its root directory is.")
    cgroup: Text | None = Field(description="Its own control group. None: that of the test.")
    cgroup_limits: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=10,
        description="What its own control group limits, by the names of its files; without what is unlimited.",
    )
    limits: dict[Text, Text] = Field(
        max_length=50, description="Its soft limits, by their names in /proc; what is unlimited is left out."
    )
    own_limits: Texts = Field(
        default_factory=list, description="The names of those limits that are lower than the test's own."
    )
    mounts: Texts = Field(description="What is mounted for it, each with ro or rw.")
    asked: dict[Text, bool | Limit | None] = Field(
        default_factory=dict,
        max_length=50,
        description="The security options that the test gave boxlite, by their names in Python.",
    )
    processes: Annotated[list[BoxProcess], Field(max_length=MOST)] = Field(
        default_factory=list, description="The shim and all its descendants, each after its parent."
    )
    warnings: Texts = Field(
        default_factory=list, description="What boxlite warns of in the logs of the box, without the time."
    )
