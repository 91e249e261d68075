"""Signals to the lab itself."""

import os
import signal
import time
from typing import ClassVar

from tests.campaign.kinds._base import DONE, INCOMPLETE, INTERRUPTED, KILLED, Fault, Scene


class LabKilled(Fault):
    name = "lab-sigkill"
    happens = "kill -9 of the lab"
    promise = (
        "Cells decided before are kept; the next command removes the guest; `--resume` runs the rest and "
        "removes the run's lock, which nobody holds."
    )
    statuses = frozenset({KILLED, DONE})

    def inject(self, scene: Scene) -> str:
        scene.lab.send_signal(signal.SIGKILL)
        return "killed the lab"


class LabTerminated(Fault):
    name = "lab-sigterm"
    happens = "SIGTERM to the lab"
    promise = "Exit status 130 within a minute, the guest is taken down, the rest is `not-run (interrupted)`."
    statuses = frozenset({INTERRUPTED, DONE})

    def inject(self, scene: Scene) -> str:
        scene.lab.send_signal(signal.SIGTERM)
        return "sent SIGTERM"


class LabInterrupted(Fault):
    name = "lab-sigint"
    happens = "Ctrl-C once"
    promise = "As SIGTERM."
    statuses = frozenset({INTERRUPTED, DONE})

    def inject(self, scene: Scene) -> str:
        scene.lab.send_signal(signal.SIGINT)
        return "sent SIGINT"


class LabInterruptedTwice(Fault):
    name = "lab-sigint-twice"
    happens = "Ctrl-C twice, up to 2 s apart"
    promise = "The lab ends at once; the guest ends with it, and the next command removes its files."
    statuses = frozenset({INTERRUPTED, DONE})

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(0.0, 2.0)
        scene.lab.send_signal(signal.SIGINT)
        time.sleep(pause)
        if scene.lab.poll() is None:
            scene.lab.send_signal(signal.SIGINT)
        return f"sent SIGINT twice, {pause:.1f} s apart"


class LabStopped(Fault):
    name = "lab-sigstop"
    happens = "the lab is stopped (SIGSTOP) for 5 to 40 s and goes on"
    promise = "The run goes on. A cell whose limit passed meanwhile is tried again."
    longest: ClassVar[float] = 40.0
    statuses = frozenset({DONE, INCOMPLETE})

    def inject(self, scene: Scene) -> str:
        pause = scene.random.uniform(5.0, self.longest)
        os.killpg(scene.lab.pid, signal.SIGSTOP)
        try:
            time.sleep(pause)
        finally:
            os.killpg(scene.lab.pid, signal.SIGCONT)
        return f"stopped the lab for {pause:.0f} s"
