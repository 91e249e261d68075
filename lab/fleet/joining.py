"""Starts a host worker on each host of an inventory over SSH, and takes them down at the end."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from lab.base.errors import LabError
from lab.base.paths import Paths
from lab.base.wait import Deadline
from lab.fleet import certificates, places
from lab.fleet.certificates import Bundle
from lab.fleet.inventory import Host, Inventory
from lab.fleet.joining_worker import JoiningWorker, Say
from lab.fleet.tether import GRACE_SECONDS

# How long workers may take to end; after that their connections are closed.
END_SECONDS = GRACE_SECONDS + 15.0


@contextmanager
def joined(
    inventory: Inventory,
    paths: Paths,
    words: Callable[[str, Host], Sequence[str]],
    say: Say,
    none_left: Callable[[], None],
    again: str | None = None,
) -> Iterator[Mapping[str, JoiningWorker]]:
    """Start a worker on each host of an inventory; take all of them down at the end of the block.

    `words` are the arguments of `lab` that start a host's worker. Nothing waits for them: they join while the
    block goes on. `say` is told, from another thread, of each host that does not, and of each worker that ends
    too early. If no host is left, `none_left` is called, once and from another thread: it has to end the block.
    LabError is raised after that, with `again` as the next step.
    Raises UsageError for a host without a certificate, before anything is started.
    """
    known = bundles(inventory, paths)
    crew = _Crew(say, none_left, again)
    for name, host in inventory.hosts.items():
        crew.workers[name] = JoiningWorker(name, host, known[name], words(name, host), say, crew.check)
        if ending := known[name].ends_soon(datetime.now(UTC)):
            say(ending)
    try:
        crew.start()
        yield crew.workers
    finally:
        crew.end()
    crew.raise_if_nobody_is_left()


class _Crew:
    """The workers of all hosts."""

    def __init__(self, say: Say, none_left: Callable[[], None], again: str | None) -> None:
        self.workers: dict[str, JoiningWorker] = {}
        self._none_left = none_left
        self._again = again
        self._say = say
        self._lock = threading.Lock()
        self._is_ending = False
        self._nobody_is_left = False

    def start(self) -> None:
        for worker in self.workers.values():
            worker.start()

    def check(self) -> None:
        """Tell, once, if no host is left."""
        with self._lock:
            if not self._is_ending and not self._nobody_is_left:
                self._nobody_is_left = all(each.fault is not None for each in self.workers.values())
                if self._nobody_is_left:
                    self._none_left()

    def raise_if_nobody_is_left(self) -> None:
        if self._nobody_is_left:
            faults = "\n".join(str(each.fault) for each in self.workers.values())
            raise LabError(f"no host of the inventory is left:\n{faults}", hint=self._again)

    def end(self) -> None:
        """Let all workers end, at the same time."""
        with self._lock:
            self._is_ending = True
        started = [each for each in self.workers.values() if each.ident is not None]
        for worker in started:
            worker.end()
        deadline = Deadline(END_SECONDS, "workers to end")
        for worker in started:
            worker.join(deadline.remaining)
            if worker.is_alive():
                self._say(
                    f"host {worker.name}: its worker did not end within {END_SECONDS:.0f} s; "
                    "lab clean there removes what is left"
                )
                worker.cut()


def bundles(inventory: Inventory, paths: Paths) -> dict[str, Bundle]:
    """The certificates of an inventory's hosts. Raises UsageError if one is missing or cannot be used."""
    return {name: _bundle(paths, name) for name in inventory.hosts}


def _bundle(paths: Paths, name: str) -> Bundle:
    file = places.worker_file(paths, name)
    bundle = certificates.read(
        file, missing=f"lab hosts add {name}, or lab hosts init {name} for the first one"
    )
    certificates.check(bundle, certificates.Role.WORKER)
    return bundle
