"""What the models of this package share."""

from collections.abc import ItemsView

from pydantic import BaseModel, ConfigDict, RootModel


class NotAsked(LookupError):
    """A name was looked up that the program in the guest was not asked for: a mistake in the lab."""


class Answer(BaseModel):
    """Part of what a program in a guest prints: every key is required, and there is no other key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answers[T](RootModel[dict[str, T]]):
    """Answers by the names that were asked for. Looking up any other name raises NotAsked."""

    model_config = ConfigDict(frozen=True)

    def __getitem__(self, name: str) -> T:
        try:
            return self.root[name]
        except KeyError:
            asked = ", ".join(self.root) or "nothing"
            raise NotAsked(f"the guest was not asked for {name}, only for {asked}") from None

    def items(self) -> ItemsView[str, T]:
        """Every name that was asked for, with its answer."""
        return self.root.items()
