"""What every entry of the record is made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lab.base.files import plain

# Text that may come from a guest, without the characters that control a terminal.
PlainText = Annotated[str, AfterValidator(plain)]
# The most seconds that are believed, 31 years: sums of them are finite, and integers hold them.
MOST_SECONDS = 1e9
Seconds = Annotated[float, Field(ge=0, le=MOST_SECONDS)]


class Entry(BaseModel):
    """Base of everything in the record: unknown keys are errors.

    So are numbers that are not finite: JSON has no such number, so what is written could not be read again.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
