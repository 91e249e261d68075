"""What a cell ran on, as pairs of a name and a text: the guest, its security modules, and the host."""

from collections.abc import Iterable, Iterator

from lab.probes import Facts
from lab.record import Host
from lab.report import table
from lab.site.results import Published

UNKNOWN = "not known: the lab did not read it"


def environment(published: Published) -> dict[str, str]:
    """Return what the cell ran on; what the lab did not read is named as such."""
    cell, run = published.cell, published.source.run.run
    guest = dict(_guest(cell.facts)) if cell.facts else {"guest": UNKNOWN}
    context = cell.context
    confined = (
        f"AppArmor {context.apparmor or 'none'}, SELinux {context.selinux or 'none'}" if context else UNKNOWN
    )
    build = published.source.build(cell.build)
    made = f"{build.version} from {build.source}"
    found = run.hosts(cell.guest, cell.lane)
    called = table.host_names(run)
    several = {"run by": " / ".join(called[each] for each in found)} if len(called) > 1 else {}
    load = {"load": ", ".join(cell.stress)} if cell.stress else {}
    return (
        guest
        | {"suite confined by": confined, **load, "boxlite": made, **several}
        | (_hosts(found) or {"host": UNKNOWN})
    )


def digests(published: Published) -> dict[str, str]:
    """Return the SHA-256 of what was tested: the image of the cell's lane, and the files of the build.

    Of a cell whose lane has no record, the images of all lanes of the guest.
    """
    lanes = published.source.run.run.lanes_of(published.cell.guest, published.cell.lane)
    images = dict.fromkeys(lane.image for lane in lanes)
    named = {f"image {number}" if len(images) > 1 else "image": image for number, image in enumerate(images, 1)}
    build = published.source.build(published.cell.build)
    return named | build.files


def _guest(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "system", facts.os.pretty_name or UNKNOWN
    yield "kernel", facts.kernel
    yield "Python, glibc", f"{facts.python}, {facts.glibc}"
    yield "security modules", ", ".join(facts.lsm) if facts.lsm is not None else UNKNOWN
    if bubblewrap := facts.bubblewrap:
        setuid = ", set-user-ID" if bubblewrap.setuid else ""
        yield "bubblewrap", f"{bubblewrap.version or 'version unknown'} ({bubblewrap.path}{setuid})"
    else:
        yield "bubblewrap", "not installed"
    if apparmor := facts.apparmor:
        mediates = "mediates" if apparmor.userns_mediation else "does not mediate"
        yield "AppArmor", f"{apparmor.version or 'version unknown'}, {mediates} user namespaces"
    else:
        yield "AppArmor", "not in use"
    yield "SELinux", f"{facts.selinux.mode}, policy {facts.selinux.policy}" if facts.selinux else "not in use"
    yield "/dev/kvm", facts.kvm.mode if facts.kvm else "none"


def _hosts(known: Iterable[Host]) -> dict[str, str]:
    """Each fact about the hosts; where they differ, what each of them has."""
    found: dict[str, list[str]] = {}
    for host in known:
        for name, value in _host(host):
            found.setdefault(name, []).append(value)
    return {name: " / ".join(dict.fromkeys(values)) for name, values in found.items()}


def _host(host: Host) -> Iterator[tuple[str, str]]:
    yield "host", f"{host.system}, kernel {host.kernel}, {host.cpus} CPUs, {host.memory_mib} MiB"
    yield "libvirt, QEMU", f"{host.libvirt}, {host.qemu}"
    yield "acceleration", f"{host.acceleration}: {host.acceleration_reason}"
