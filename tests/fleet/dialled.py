"""Hosts that dial in to a real coordinator: dask's own workers in this process, each of which answers as told.

They cost no processes, so that a table of answers is quick.
"""

import asyncio
import io
import json
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from distributed import Client, Worker, get_worker

from lab.fleet import engine, host, part
from lab.fleet.coordinator import CREDENTIALS, MOST_SECONDS
from lab.fleet.part import Part
from lab.plan import Cell
from lab.record import RESULTS_FILE, Status
from tests.builders.processes import SECONDS
from tests.builders.runs import PLAN
from tests.fleet.examples import Fleet, Running, running

NOW = "2026-11-27T08:00:00Z"
OFFERS = {"lane": 1.0, "memory": 8192.0, "x86_64": 1.0}
# Runs a part; it is given what tells the coordinator a message.
Answer = Callable[[Part, Callable[[Any], None]], Any]


@dataclass
class DialledHosts:
    """Hosts of this process: what each answers, and the parts that each began, by its name."""

    run: Running
    port: int
    pem: str
    folder: Path
    answers: dict[str, Answer] = field(default_factory=dict)
    began: list[tuple[str, int]] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    def client(self) -> Client:
        """A client of the run's scheduler, as the coordinator has one."""
        return Client(
            f"tls://127.0.0.1:{self.port}", security=engine.make_security(self.pem), set_as_default=False
        )

    def leave(self, name: str) -> None:
        """Let a host go."""
        close_worker(self.workers[name])

    def add(self, name: str, answer: Answer, offers: Mapping[str, float] = OFFERS) -> None:
        """Let a host dial in."""
        self.answers[name] = answer

        async def work() -> None:
            worker = Worker(
                f"tls://127.0.0.1:{self.port}",
                name=name,
                security=engine.make_security(self.pem),
                nthreads=1,
                resources=dict(offers),
                host="127.0.0.1",
                local_directory=str(self.folder),
                dashboard=False,
                memory_limit=0,
            )
            self.workers[name] = worker
            async with worker:
                worker.http_server.stop()
                await worker.finished()

        self.threads.append(threading.Thread(target=asyncio.run, args=(work(),), daemon=True))
        self.threads[-1].start()


_hosts: list[DialledHosts] = []


def run_part(text: str) -> Any:
    """In place of `part.run_part`: the host's own answer."""
    [hosts], worker = _hosts, get_worker()
    name, sent = str(worker.name), Part.model_validate_json(text)
    hosts.began.append((name, sent.number))

    def tell(message: Any) -> None:
        worker.log_event(part.TOPIC, message)

    tell({"kind": "begins", "part": sent.number})
    return hosts.answers[name](sent, tell)


def close_worker(dask_worker: Worker) -> None:
    dask_worker.loop.add_callback(dask_worker.close)


def stay() -> None:
    """In place of `host.end_worker`, which would end this process.

    The worker stays. When it closes, other connections of its process often break, too, and here all hosts
    are one process. A host with a process of its own leaves in `test_several_hosts.py`.
    """


@contextmanager
def dialling(
    fleet: Fleet,
    monkeypatch: Any,
    cells: Sequence[Cell] = PLAN,
    *,
    most_seconds: float = MOST_SECONDS,
    leave: Callable[..., None] = stay,
) -> Iterator[DialledHosts]:
    """A run that waits for hosts to dial in. `leave` is what a host does that gets no more parts."""
    monkeypatch.setattr(part, "run_part", run_part)
    monkeypatch.setattr(host, "end_worker", leave)
    port = free_port()
    fleet.head = f"[coordinator]\nport = {port}\n"
    with running(fleet, cells, most_seconds=most_seconds) as run:
        run.told.wait(lambda: run.told.noted("hosts may dial in at "))
        pem = (fleet.folder / "run" / CREDENTIALS).read_text()
        hosts = DialledHosts(run, port, pem, fleet.folder / "scratch")
        _hosts.append(hosts)
        try:
            yield hosts
        finally:
            run.coordinator.stop()
            for thread in hosts.threads:
                thread.join(SECONDS)
            _hosts.remove(hosts)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


# -- what a host answers


def files_of(sent: Part, name: str) -> dict[str, bytes]:
    """What the archive of a host has that decided all cells of a part."""
    record = sent.record.model_dump(mode="json", by_alias=True)
    lane = {"guest": "debian-13", "label": "a", "image": "0" * 64, "fork": "memory", "seconds": {}}
    record["run"] |= {"finished": NOW, "lanes": [lane]}
    for cell in record["cells"]:
        cell["verdict"] = {"status": Status.PASS.value}
        cell["history"]["lane"] = "a"
    logs = {str(cell.folder / "kernel.log"): name.encode() for cell in sent.record.cells}
    end = {"host": name, "status": 0, "words": ""}
    return {"end.json": json.dumps(end).encode(), RESULTS_FILE: json.dumps(record).encode(), **logs}


def archive_of(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """An archive as a host sends it, with `more` empty files before the others."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in more:
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return zstandard.compress(packed.getvalue())


def decides(name: str) -> Answer:
    """The answer of a host whose cells all pass."""
    return lambda sent, _tell: archive_of(files_of(sent, name))
