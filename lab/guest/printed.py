"""Checking what the lab's programs print in a guest."""

from pydantic import TypeAdapter, ValidationError

from lab.guest.programs import RemoteFailed


def checked[T](program: str, kind: type[T], printed: object) -> T:
    """Return the JSON that a program printed as a `kind`. Raises RemoteFailed if it does not fit.

    The error names the program and every field that is wrong.
    """
    try:
        return TypeAdapter(kind).validate_python(printed)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()
        )
        raise RemoteFailed(
            f"`{program}` in the guest printed JSON of another form: {wrong}",
            hint=f"the program {program}.py and the model of what it prints must agree",
        ) from error
