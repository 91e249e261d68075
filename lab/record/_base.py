"""What every entry of the record is made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from lab.base.files import plain

# Text that may come from a guest, without the characters that control a terminal.
PlainText = Annotated[str, AfterValidator(plain)]


class Entry(BaseModel):
    """Base of everything in the record: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")
