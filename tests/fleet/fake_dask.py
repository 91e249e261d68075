"""A coordinator without dask: the test says what dask would, in the order that it wants."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.base.wait import Deadline, wait_for
from lab.fleet import engine
from tests.builders.processes import SECONDS
from tests.builders.runs import SMALL
from tests.fleet.dialled import OFFERS
from tests.fleet.examples import Fleet, Running, running


@dataclass
class FakeFuture:
    """A part that dask has. It comes to its end when the test says so, also if it was cancelled."""

    callbacks: list[Callable[["FakeFuture"], object]] = field(default_factory=list)
    value: Any = None
    is_cancelled: bool = False

    def add_done_callback(self, callback: Callable[["FakeFuture"], object]) -> None:
        self.callbacks.append(callback)

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def release(self) -> None:
        pass

    def result(self) -> Any:
        return self.value

    def end(self, value: Any) -> None:
        self.value = value
        for callback in self.callbacks:
            callback(self)


@dataclass
class FakeDask:
    """In place of dask's client. `futures` are the parts by key; `calls` what was called in workers."""

    names: tuple[str, ...]
    futures: dict[str, FakeFuture] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    handlers: list[Callable[[tuple[float, Any]], None]] = field(default_factory=list)

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {f"tls://{name}": {"name": name, "resources": OFFERS} for name in self.names}}

    def subscribe_topic(self, _topic: str, handler: Callable[[tuple[float, Any]], None]) -> None:
        self.handlers.append(handler)

    def submit(self, _function: object, _text: str, *, key: str, **_more: object) -> FakeFuture:
        future = self.futures[key] = FakeFuture()
        return future

    def run(
        self, function: Callable[..., None], *arguments: object, workers: list[str], **_more: object
    ) -> None:
        self.calls += [(address, function, *arguments) for address in workers]

    # -- what a test does

    def wait_for(self, key: str) -> None:
        wait_for(lambda: self.futures.get(key), Deadline(SECONDS, f"{key} to be submitted"), interval=0.05)

    def tell(self, name: str, kind: str, **more: object) -> None:
        """Say something of a part to the coordinator, as the worker of a host does."""
        for handler in self.handlers:
            handler((0.0, {"worker": f"tls://{name}", "kind": kind, **more}))


@contextmanager
def faking(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[tuple[FakeDask, Running]]:
    """A run on hosts of these names, which are there from its start."""
    dask = FakeDask(names)

    @contextmanager
    def run_dask(*_arguments: object, **_more: object) -> Iterator[tuple[FakeDask, int]]:
        yield dask, 7000

    monkeypatch.setattr(engine, "start_engine", run_dask)
    fleet.head = "[coordinator]\nport = 7000\n"
    with running(fleet, SMALL) as run:
        yield dask, run
