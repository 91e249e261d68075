"""Base images of the guests."""

import click
from rich.markup import escape
from rich.table import Table

from lab import catalog
from lab.cli import common
from lab.images import store


@click.group("images")
def images_group() -> None:
    """Base images of the guests."""


@images_group.command("build")
@click.argument("guests", nargs=-1, required=True)
@click.pass_obj
def images_build(lab: common.Lab, guests: tuple[str, ...]) -> int:
    """Build the images of these guests, where they are not in the store yet."""
    known = catalog.load()
    for guest in [known.guest(name) for name in guests]:
        with common.console.status(guest.name) as status:
            image = store.ensure(lab.paths, guest, lambda text: status.update(escape(text)))
        common.console.print(f"{guest.name}: {image.folder} ({image.manifest.seconds:.0f} s)", soft_wrap=True)
    return 0


@images_group.command("list")
@click.pass_obj
def images_list(lab: common.Lab) -> int:
    """Show which guests have an image of their present definition."""
    table = Table("guest", "built", "sha256", "folder", box=None, pad_edge=False)
    for guest in catalog.load().guests.values():
        image = store.find(lab.paths, guest)
        if image:
            manifest = image.manifest
            table.add_row(guest.name, manifest.built, manifest.disk_sha256[:16], str(image.folder))
        else:
            table.add_row(guest.name, "no", "", "")
    common.console.print(table, soft_wrap=True)
    return 0
