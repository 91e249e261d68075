"""What a run tells whoever shows it; reports implement this, and the run knows nothing of them."""

from collections.abc import Callable
from typing import Any, Protocol, cast

from lab.images.store import BaseImage
from lab.record import CellResult


class Observer(Protocol):
    """What a run tells whoever shows it. Called from several threads."""

    def lane(self, lane: str, text: str) -> None:
        """What a lane does now; empty when it is done. `lane` is its guest, numbered from the second one on."""

    def cell(self, result: CellResult) -> None:
        """A cell is decided."""

    def note(self, text: str) -> None:
        """Something to show once."""

    def time_left(self, seconds: float | None) -> None:
        """An estimate of how long the rest will take, in seconds; None if nobody can tell."""

    def image(self, image: BaseImage) -> None:
        """What a lane starts from, before it does."""


class Silent:
    """Tells nothing; with --quiet, and what the others have in common."""

    def lane(self, lane: str, text: str) -> None:
        pass

    def cell(self, result: CellResult) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def time_left(self, seconds: float | None) -> None:
        pass

    def image(self, image: BaseImage) -> None:
        pass


def kept_apart(observer: Observer, on_bug: Callable[[Exception], None]) -> Observer:
    """Have an observer's exceptions go to `on_bug`: what only shows a run decides nothing in it."""
    return cast(Observer, _Apart(observer, on_bug))


class _Apart:
    def __init__(self, observer: Observer, on_bug: Callable[[Exception], None]) -> None:
        self._observer = observer
        self._on_bug = on_bug

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*arguments: Any) -> None:
            try:
                getattr(self._observer, name)(*arguments)
            except Exception as error:
                self._on_bug(error)

        return tell
