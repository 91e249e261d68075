"""What boxlite promises of a box beyond its start, as an ordinary user has it, under the jailer."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
from pathlib import Path
from threading import Thread
from typing import Any

import outside
import pytest
from boxlite import SecurityOptions
from remedies import JAILER_OFF
from traced_boxes import GROUPS, SOCKETS, TracedBoxes, run, wait_for_end

# boxlite's name for the host, for programs in a box.
HOST = "host.boxlite.internal"
ECHOED = "lifecycle-test"


def jailer_disabled_box_stops_and_starts_again(boxes: TracedBoxes) -> None:
    asyncio.run(check_restart(boxes, SecurityOptions.development()))


def box_stops_and_starts_again_as_one_machine(boxes: TracedBoxes) -> None:
    asyncio.run(check_restart(boxes, SecurityOptions.standard()))


async def check_restart(boxes: TracedBoxes, security: SecurityOptions) -> None:
    """A box starts twice in a row and is one machine, stops, starts again, and has its files."""
    with boxes.open_runtime() as owned:
        box = await boxes.start(owned, security)
        machine = outside.shim_pid(boxes.home, str(box.id))
        await box.start()
        assert outside.shim_pid(boxes.home, str(box.id)) == machine, "a second start made a second machine"
        await run(box, "sh", "-c", f"echo {ECHOED} >/root/kept")
        processes = outside.box_processes(str(box.id))
        await box.stop()
        assert wait_for_end(processes) == [], "the stopped box lives on"
        box = await owned.get(str(box.id))
        await box.start()
        assert await run(box, "cat", "/root/kept") == ECHOED
        await box.stop()
        await owned.remove(str(box.id), True)
        assert boxes.list_remains(str(box.id)) == []


def box_ends_with_its_runtime(boxes: TracedBoxes) -> None:
    with boxes.own_elsewhere("attached") as (owner, box_id):
        processes = outside.box_processes(box_id)
        assert processes
        owner.communicate()
        assert owner.returncode == 0
    assert wait_for_end(processes) == [], "the box outlived the process that owned its runtime"


def box_starts_again_after_its_runtime_was_killed(boxes: TracedBoxes) -> None:
    with boxes.own_elsewhere("attached") as (owner, box_id):
        processes = outside.box_processes(box_id)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert wait_for_end(processes) == [], "the box outlived its killed runtime"
    asyncio.run(check_recovery(boxes, box_id, runs=False))


def detached_box_outlives_its_killed_runtime(boxes: TracedBoxes) -> None:
    with boxes.own_elsewhere("detach") as (owner, box_id):
        machine = outside.shim_pid(boxes.home, box_id)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    asyncio.run(check_recovery(boxes, box_id, runs=True))
    assert outside.shim_pid(boxes.home, box_id) == machine, "the runtime started the box a second time"


def box_starts_again_after_an_imitated_reboot(boxes: TracedBoxes) -> None:
    # The suite `reboot` has a real one, but not in every variant. All that a boot empties is emptied, but the
    # ID of the boot stays.
    with boxes.own_elsewhere("detach") as (owner, box_id):
        processes = outside.box_processes(box_id)
        for pid in (owner.pid, *processes):
            os.kill(pid, signal.SIGKILL)
        owner.wait()
    assert wait_for_end(processes) == []
    shutil.rmtree(SOCKETS, ignore_errors=True)
    for folder, names, _ in os.walk(GROUPS):
        if box_id in names:
            Path(folder, box_id).rmdir()
    asyncio.run(check_recovery(boxes, box_id, runs=False))


async def check_recovery(boxes: TracedBoxes, box_id: str, *, runs: bool) -> None:
    """A new runtime knows whether a box runs, and has the box do something."""
    with boxes.open_runtime() as owned:
        info = await owned.get_info(box_id)
        assert info is not None, "the new runtime does not know the box"
        assert info.state.running is runs, f"the new runtime says that the box is {info.state.status}"
        box = await owned.get(box_id)
        await box.start()
        assert await run(box, "echo", ECHOED) == ECHOED


def two_volumes_are_mounted_and_one_is_read_only(boxes: TracedBoxes, host_folder: Path) -> None:
    folders = [host_folder / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        (folder / "given").write_text(folder.name)

    async def check() -> None:
        volumes = [(str(folder), f"/{folder.name}", folder.name == "two") for folder in folders]
        with boxes.open_runtime() as owned:
            box = await boxes.start(owned, volumes=volumes)
            assert await run(box, "cat", *(f"/{folder.name}/given" for folder in folders)) == "onetwo"
            await run(box, "sh", "-c", f"echo {ECHOED} >/one/written; ! echo {ECHOED} >/two/written")
            await box.stop()

    asyncio.run(check())
    assert (host_folder / "one/written").read_text().strip() == ECHOED
    assert not (host_folder / "two/written").exists()


def name_is_resolved_and_a_port_is_reached(boxes: TracedBoxes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=answer_once, args=[server], daemon=True).start()
        port = server.getsockname()[1]

        async def check() -> None:
            with boxes.open_runtime() as owned:
                box = await boxes.start(owned)
                answer = await run(box, "busybox", "nslookup", "-type=a", HOST)
                # The first address is that of the server that answers.
                [_, *addresses] = re.findall(r"^Address[^:]*:\s*([\d.]+)", answer, re.M)
                assert addresses, answer
                page = await run(box, "busybox", "wget", "-q", "-O", "-", f"http://{addresses[0]}:{port}/")
                assert page == ECHOED
                await box.stop()

        asyncio.run(check())


def answer_once(server: socket.socket) -> None:
    """Answer the first request of HTTP, whatever it asks for."""
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.0 200 OK\r\n\r\n{ECHOED}".encode())


def hundred_files_are_open_at_a_limit_of_1024(boxes: TracedBoxes, host_folder: Path) -> None:
    for number in range(100, 200):
        (host_folder / str(number)).write_text(ECHOED)
    opening = " ".join(f"{number}</volume/{number}" for number in range(100, 200))

    async def check() -> None:
        with boxes.open_runtime() as owned:
            box = await boxes.start(owned, volumes=[(str(host_folder), "/volume", False)])
            assert await run(box, "sh", "-c", f"exec {opening}; cat <&199") == ECHOED
            await box.stop()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Many logins have this limit. boxlite itself may raise it as far as the user may.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        asyncio.run(check())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit_of_file_size_is_seen_from_outside(boxes: TracedBoxes) -> None:
    # boxlite 0.10.8 sets twice the size of the box's disk, 20 GiB, whatever is asked for. What the lab records
    # of the protection says if a box got more than that.
    requested = 1 << 36

    async def check() -> list[Any]:
        security = SecurityOptions.standard()
        security.max_file_size = requested
        with boxes.open_runtime() as owned:
            box = await boxes.start(owned, security)
            processes = outside.processes(outside.shim_pid(boxes.home, str(box.id)))
            boxes.record_protection(box, security)
            await box.stop()
            return [process["limits"].get("file size") for process in processes]

    if JAILER_OFF:
        pytest.skip("the jailer is off, so boxlite sets no limits")
    limits = asyncio.run(check())
    kept = all(limit and int(limit) <= requested for limit in limits)
    assert kept, f"limits of the box's processes: {limits}"


# The tests that need a control group come last: a home in which a test failed is not used again.


def detached_box_leaves_nothing_after_stop_and_remove(boxes: TracedBoxes) -> None:
    asyncio.run(check_end_of_detached(boxes, stop_first=True))


def detached_box_leaves_nothing_after_a_forced_remove(boxes: TracedBoxes) -> None:
    asyncio.run(check_end_of_detached(boxes, stop_first=False))


async def check_end_of_detached(boxes: TracedBoxes, *, stop_first: bool) -> None:
    if JAILER_OFF:
        pytest.skip("the jailer is off, so boxlite makes no control group")
    with boxes.open_runtime() as owned:
        box = await boxes.start(owned, detach=True)
        assert await run(box, "echo", ECHOED) == ECHOED
        boxes.record_groups(str(box.id))
        if stop_first:
            await box.stop()
        await owned.remove(str(box.id), True)
        assert boxes.list_remains(str(box.id)) == [], "boxlite removed the box, and this is left of it"


def limits_of_processes_and_memory_are_seen_from_outside(boxes: TracedBoxes) -> None:
    # boxlite limits the address space, too: with 1 GiB, libkrun cannot map the memory of a box of 256 MiB.
    requested = {"pids.max": str(200), "memory.max": str(1 << 34)}

    async def check() -> dict[str, str]:
        security = SecurityOptions.standard()
        security.max_processes, security.max_memory = map(int, requested.values())
        with boxes.open_runtime() as owned:
            box = await boxes.start(owned, security)
            boxes.record_groups(str(box.id))
            limits = outside.read_group_limits(outside.shim_pid(boxes.home, str(box.id)))
            await box.stop()
            return limits

    if JAILER_OFF:
        pytest.skip("the jailer is off, so boxlite sets no limits")
    seen = asyncio.run(check())
    assert seen.items() >= requested.items(), f"limits of the box's own control group: {seen}"
