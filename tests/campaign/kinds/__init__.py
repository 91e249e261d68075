"""The kinds of fault. Each is a class with a name in a module of this package; a new one is a new class."""

from tests.campaign.kinds import disks, guest, host, lab_process, machine, store
from tests.campaign.kinds._base import KINDS, Fault, Scene

__all__ = ["KINDS", "Fault", "Scene", "disks", "guest", "host", "lab_process", "machine", "store"]
