"""Facts about a host, and what its kernel allows a user: typed models, and the programs that read them.

The programs run in guests, where what they print is validated when it arrives (`lab.guest.programs`), and on
the hosts of users, in the script that `lab probe` prints (`script`, `report`).
"""

from pathlib import Path

from lab.probes.facts import (
    NONE_RUN,
    NOT_RUN,
    Context,
    Facts,
    Probe,
    ProbedSuiteUser,
    ProbedUser,
    Probes,
    ProcessUser,
    SuiteUser,
)

# Each program runs with Python's standard library alone.
PROGRAMS = Path(__file__).parent / "programs"
