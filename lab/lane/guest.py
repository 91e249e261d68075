"""A lane's guest: its machine, the session to it, and what was measured and noted about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab.base.activity import Activity, Step
from lab.base.wait import Speed, Stopwatch
from lab.builds import WHOLE_SUITE, Build, SuiteOptions
from lab.catalog import Variant
from lab.catalog.remedies import Remedy
from lab.guest import agent, collect, deploy, ready, remedy_script, stress, suite, variant
from lab.guest.agent import Agent
from lab.guest.remedy_script import Steps
from lab.guest.session import Session
from lab.guest.variant import Mark
from lab.machine.acceleration import Acceleration
from lab.machine.budget import Processors
from lab.machine.checkpoint import Checkpoint
from lab.machine.lane import Lane, LaneDied
from lab.probes import Facts, Probed, SuiteUser
from lab.record import SuiteRun

Say = Callable[[str], None]


@contextmanager
def holding(
    processors: Processors, what: str, *, how: Acceleration, say: Say, alone: bool = False
) -> Iterator[None]:
    """Hold a processor for work that keeps an emulated guest's busy; under KVM nobody waits.

    `alone`: hold all of them, so that no other lane is at work.
    """
    if how.kvm:
        say(what)
        yield
        return
    wait = "waiting until no other lane is at work" if alone else "waiting for a processor"
    with processors.hold(processors.count if alone else 1, lambda: say(Step(wait, Activity.WAITING))):
        say(what)
        yield


@dataclass
class LaneGuest:
    """The guest of one lane, and everything that is done in it. Its methods raise LabError.

    `watch` adds up the seconds of the lane's own steps; `note` is for its record. `has_agent`: whether an
    agent runs the lab's programs in it.
    """

    lane: Lane
    processors: Processors
    say: Say
    watch: Stopwatch = field(default_factory=Stopwatch)
    note: str = ""
    has_agent: bool = False

    def __post_init__(self) -> None:
        self.session = Session(self.lane.endpoint, alive=self.lane.check_alive, speed=self.speed)

    @property
    def speed(self) -> Speed:
        """How fast it is now, as far as is known: a slow boot and a busy host stretch later limits."""
        return self.lane.speed

    @property
    def is_emulated(self) -> bool:
        return not self.lane.acceleration.kvm

    @property
    def is_alive(self) -> bool:
        try:
            self.lane.check_alive()
        except LaneDied:
            return False
        return True

    def holding(self, what: str, *, alone: bool = False) -> AbstractContextManager[None]:
        """Hold a processor of the host for `what`, which is shown; `alone`: all of them."""
        return holding(self.processors, what, how=self.lane.acceleration, say=self.say, alone=alone)

    def close(self) -> None:
        """Drop the connections, the agent's too: the machine ends or is started again."""
        self.session.close()
        if self.session.agent:
            self.session.agent.close()
            self.session.agent = None

    def _look_at_load(self) -> None:
        """Have the limits fit how busy the host is now."""
        self.session.speed = self.speed
        if self.session.agent:
            self.session.agent.speed = self.speed

    def start_agent(self) -> None:
        """Start the guest's agent, which then runs the lab's programs. Raises RemoteFailed, AgentLost."""
        self.session.run(agent.start_command(), seconds=agent.LOAD_SECONDS, name="the agent's start")
        self._meet_agent().load()

    def _meet_agent(self) -> Agent:
        """Connect to the agent, which runs. Raises AgentLost."""
        path = self.lane.agent
        assert path is not None, "a guest without a port has no agent"
        met = Agent(path, alive=self.lane.check_alive, speed=self.speed)
        self.session.agent = met
        met.sync()
        self.has_agent = True
        return met

    def fork(self, checkpoint: Checkpoint) -> None:
        """Put the guest into the checkpoint's state and wait until it answers."""
        self.session.close()
        self._look_at_load()
        checkpoint.fork()
        if self.session.agent:
            self.session.agent.sync()
        else:
            self.session.wait_open(ready.BOOT_SECONDS)

    def wait_restored(self, *, has_agent: bool) -> None:
        """Wait for a guest whose stored state was loaded; `has_agent`: whether that has an agent."""
        if has_agent and self.lane.agent:
            self._meet_agent()
        else:
            self.session.wait_open(ready.BOOT_SECONDS)

    def wait_up(self) -> None:
        """Wait for a guest that was just started, and learn this host's speed. Raises BootFailed, LaneDied."""
        ready.wait_up(self.session, self.lane)
        before = self.lane.acceleration
        self.lane.acceleration = now = before.learned(self.lane.console_text())
        self._look_at_load()
        if now.speed.factor > before.speed.factor:
            self.say(f"this boot was slower than what was known: {now.told()}")

    def renew_key(self) -> None:
        """Replace the client key by one that only this lane knows."""
        self.lane.endpoint = self.session.renew_key()

    # What is done in it; each function that is called says what that is.

    def deploy(self, build: Build, files: Mapping[str, Path], rootfs: Path, *, python: str) -> None:
        deploy.deploy(self.session, self.lane.payload, build, files, rootfs=rootfs, python=python, say=self.say)

    def read_facts(self, sysctls: Iterable[str]) -> Facts:
        return variant.read_facts(self.session, sysctls)

    def apply(self, under: Variant, mark: Mark, sysctls: Iterable[str]) -> Facts:
        return variant.begin(self.session, under, mark=mark, sysctls=sysctls)

    def run_suite(self, build: Build, under: Variant, options: SuiteOptions = WHOLE_SUITE) -> SuiteRun:
        """Run the build's suite under a variant, and under load if that is wanted."""
        with stress.stressed(self.session, options.stress):
            return suite.run(self.session, build, under, speed=self.speed, options=options)

    def collect(self, folder: Path, under: Variant, *, mark: Mark, full: bool) -> None:
        collect.collect(self.session, folder, under, mark=mark, full=full)

    def probe(self, under: Variant) -> Probed:
        return variant.probe(self.session, under)

    def probe_as_user_does(self, under: Variant, sysctls: Iterable[str]) -> str:
        return variant.probe_as_user_does(self.session, under, sysctls)

    def read_who(self, under: Variant) -> SuiteUser:
        return variant.read_who(self.session, under)

    def apply_remedy(self, remedy: Remedy) -> Steps:
        return remedy_script.run(self.session, remedy)

    def undo_remedy(self, remedy: Remedy) -> Steps:
        return remedy_script.run(self.session, remedy, undo=True)

    def add_note(self, text: str) -> None:
        """Show something and keep it for the lane's record."""
        self.say(text)
        self.note = "; ".join(filter(None, [self.note, text]))
