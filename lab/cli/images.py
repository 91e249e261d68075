"""Base images of the guests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.markup import escape

from lab import catalog
from lab.base.activity import UNWATCHED, Progress, Task
from lab.base.errors import LabError, UsageError
from lab.base.files import measure_size
from lab.catalog import Guest, Pin
from lab.cli import options, output
from lab.images import cloud, download, store
from lab.images.store import BaseImage
from lab.lane import prepare_image, upkeep
from lab.machine import states


@click.group("images")
def images_command() -> None:
    """Manage the base images of the guests."""


@images_command.command("pull")
@click.argument("guests", nargs=-1)
@click.option(
    "--update",
    is_flag=True,
    help="Change to the newest build of each image, and pin it in images/pins/pins.toml for review.",
)
@click.option("--offline", is_flag=True, help="Use no network, and say which images are missing.")
@click.pass_obj
def images_pull(lab: options.Lab, guests: tuple[str, ...], *, update: bool, offline: bool) -> int:
    """Download and verify the cloud images of these guests, or of all guests that have one."""
    if update and offline:
        raise UsageError("--update and --offline contradict each other", hint="leave one of them out")
    pulled = store.choose_pulled_guests(catalog.load_catalog(), guests)
    needed = [] if offline else [guest for guest in pulled if update or not store.find_image(lab.paths, guest)]
    status = 0
    for guest in _warn_of_unreachable(needed, prepare_image.WHEN_ABSENT):
        pulled.remove(guest)
        status = LabError.exit_status
    return max(status, _pull_all(lab, pulled, update=update, offline=offline))


@images_command.command("pins")
@click.argument("guests", nargs=-1)
@click.option(
    "--renew",
    is_flag=True,
    help="Pin the newest build of each image that its distribution signs, or on which its mirrors agree.",
)
def images_pins(guests: tuple[str, ...], *, renew: bool) -> int:
    """List the pinned builds of these guests, or of all guests that have a pin.

    Exit status with --renew: 0 if all pins are the newest, 1 if a pin was changed, 3 if a server could not be
    asked or its answer could not be verified. Such a pin stays, and the others are renewed all the same.
    """
    file, pinned = catalog.find_pins_file(), catalog.load_pins(catalog.find_pins_file())
    names = guests or list(pinned)
    chosen = store.choose_pulled_guests(catalog.load_catalog(), names) if names else []
    if not renew:
        rows = [[guest.name, pin.build, pin.date] for guest in chosen if (pin := pinned.get(guest.name))]
        output.print_rows([["guest", "build", "date"], *rows])
        return 0
    for guest in [guest for guest in chosen if store.get_cloud_image(guest).builds is None]:
        output.print_line(f"{guest.name}: its server lists no builds; change its pin in {file} by hand")
        chosen.remove(guest)
    unreachable = _warn_of_unreachable(chosen, "run the same command again later; the pin stays as it is")
    changed, failed = False, bool(unreachable)
    for guest in [guest for guest in chosen if guest not in unreachable]:
        try:
            with output.get_console().status(guest.name):
                cloud.move_pin(guest, store.get_cloud_image(guest), UNWATCHED)
        except LabError as error:
            output.print_warning(f"lab: {guest.name}: {error}")
            failed = True
            continue
        old, new = pinned.get(guest.name), catalog.load_pins(file)[guest.name]
        if old != new:
            output.print_line(f"{guest.name}: {_describe_move(old, new)}")
            changed = True
    if changed:
        output.print_line(f"review and commit {file}")
    return LabError.exit_status if failed else int(changed)


def _describe_move(old: Pin | None, new: Pin) -> str:
    if old is None:
        return f"pinned {new.build}"
    if old.build == new.build:
        return (
            f"{new.build} has another digest" if old.digest != new.digest else f"{new.build} has other mirrors"
        )
    is_older = cloud.order_build(new.build) < cloud.order_build(old.build)
    return f"{old.build} -> {new.build}" + (
        ", which is OLDER: was the other one withdrawn?" if is_older else ""
    )


def _warn_of_unreachable(guests: Sequence[Guest], next_step: str) -> list[Guest]:
    """Return the guests whose servers cannot be reached, after saying so.

    All servers are asked at once: a download would try each of them again and again.
    """
    unreachable = download.find_unreachable_hosts(store.get_cloud_image(guest).url for guest in guests)
    servers = [(guest, urlsplit(store.get_cloud_image(guest).url).netloc) for guest in guests]
    for guest, server in servers:
        if server in unreachable:
            reason = f"{server} cannot be reached: {unreachable[server]}"
            output.print_warning(f"lab: {guest.name}: {reason}\n  next: {next_step}")
    return [guest for guest, server in servers if server in unreachable]


@images_command.command("build")
@click.argument("guests", nargs=-1, required=True)
@click.pass_obj
def images_build(lab: options.Lab, guests: tuple[str, ...]) -> int:
    """Build the images of these guests that are not in the store yet."""
    built = store.choose_built_guests(catalog.load_catalog(), guests)
    # A build that was killed leaves hundreds of MiB. No libvirt is needed to remove them.
    upkeep.sweep_leftovers(lab.paths)
    return _pull_all(lab, built)


@images_command.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--as", "name", metavar="GUEST", required=True, help="The guest that boots this disk.")
@click.pass_obj
def images_import(lab: options.Lab, file: Path, name: str) -> int:
    """Copy a qcow2 disk into the store as the image of a cloud guest."""
    guest = catalog.load_catalog().guest(name)
    _say(guest, store.import_image(lab.paths, guest, file, UNWATCHED))
    return 0


@images_command.command("list")
@options.json_option
@click.pass_obj
def images_list(lab: options.Lab, as_json: bool) -> int:
    """List the images in the store and the guests that use them, and how much stored states take.

    A stored state is a guest right after its boot, or with a build deployed, from which later lanes start.
    """
    definitions = catalog.load_catalog()
    users = upkeep.list_image_users(lab.paths, definitions)
    images: list[dict[str, Any]] = [
        {
            "guests": users.get(image.folder, []),
            "folder": str(image.folder),
            "bytes": measure_size(image.folder),
            "built": image.manifest.built,
            "sha256": image.manifest.disk_sha256,
            "source": image.manifest.source,
        }
        for image in store.list_images(lab.paths)
    ]
    without = [name for name in definitions.guests if not any(name in names for names in users.values())]
    stored = states.list_stored_states(lab.paths)
    if as_json:
        rows = [
            {
                "folder": str(state.folder),
                "bytes": state.size,
                "last_used": datetime.fromtimestamp(state.last_used, UTC).isoformat(timespec="seconds"),
            }
            for state in stored
        ]
        states_document = {"limit_bytes": lab.paths.states_gib * 2**30, "stored": rows}
        output.print_json({"images": images, "without_image": without, "states": states_document})
        return 0
    table = [["guests", "size", "date", "sha256", "source"]]
    for image in images:
        names, size = ", ".join(image["guests"]) or "-", output.format_mib(image["bytes"])
        table.append([names, size, image["built"][:10], image["sha256"], image["source"]])
    output.print_rows(table)
    if without:
        output.print_line(f"no image yet: {', '.join(without)}")
    taken = output.format_gib(sum(state.size for state in stored))
    output.print_line(
        f"stored states: {len(stored)}, {taken} of at most {lab.paths.states_gib} GiB (--states-gib)"
    )
    return 0


@images_command.command("verify")
@click.pass_obj
def images_verify(lab: options.Lab) -> int:
    """Verify the checksums of all files in the store; exit status 1 if a file was changed."""
    changed = False
    for image, wrong in upkeep.verify_images(lab.paths):
        changed |= bool(wrong)
        output.print_line(f"{image.folder.name}: {wrong or 'ok'}")
    return 1 if changed else 0


@images_command.command("prune")
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@click.pass_obj
def images_prune(lab: options.Lab, dry_run: bool) -> int:
    """Remove images that no guest and no run uses, unfinished downloads, and stored states above the limit."""
    lab.sweep()
    gone = upkeep.prune_store(lab.paths, catalog.load_catalog(), dry_run=dry_run)
    for unused in gone:
        output.print_line(
            f"{'would remove' if dry_run else 'removed'} {unused.path} ({output.format_mib(unused.size)})"
        )
    output.print_line(f"{len(gone)} unused, {output.format_mib(sum(unused.size for unused in gone))}")
    return 0


def _pull(lab: options.Lab, guest: Guest, where: str, *, update: bool, offline: bool) -> None:
    """Get the image of a guest, built or downloaded, and say which it is; `where` is its place among all."""
    old_image = store.find_image(lab.paths, guest)
    with output.get_console().status(where) as status:

        def show(progress: Progress) -> None:
            status.update(escape(f"{where}: {progress.text}"))

        task = Task(show)
        if update:
            moved = cloud.move_pin(guest, store.get_cloud_image(guest), task)
            if moved != guest:
                output.print_line(
                    f"{guest.name}: pinned {store.get_cloud_image(moved).build}; review "
                    f"{catalog.find_pins_file()}"
                )
            image = store.update_image(lab.paths, moved, task)
        else:
            image = store.ensure_image(lab.paths, guest, task, offline=offline)
    if old_image and old_image.folder != image.folder:
        output.print_line(f"{guest.name}: {_build_of(old_image)} -> {_build_of(image)}")
    else:
        _say(guest, image)


def _pull_all(lab: options.Lab, guests: Sequence[Guest], *, update: bool = False, offline: bool = False) -> int:
    """Get the image of every guest, even if others fail; return the worst exit status."""
    status = 0
    for number, guest in enumerate(guests, start=1):
        try:
            _pull(lab, guest, f"{number} of {len(guests)}: {guest.name}", update=update, offline=offline)
        except LabError as error:
            output.print_warning(f"lab: {guest.name}: {error}")
            status = max(status, error.exit_status)
    return status


def _say(guest: Guest, image: BaseImage) -> None:
    output.print_line(f"{guest.name}: {_build_of(image)} in {image.folder} ({image.manifest.seconds:.0f} s)")


def _build_of(image: BaseImage) -> str:
    return f"sha256 {image.manifest.disk_sha256[:16]} of {image.manifest.built[:10]}"
