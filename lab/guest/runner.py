"""fabric's runner of commands, which takes no more of what a guest prints than the lab can hold."""

from fabric.runners import Remote
from invoke.exceptions import ThreadException

# The longest that the lab asks for is a suite's report.
MOST_BYTES = 16 * 2**20


class TooMuch(Exception):
    """A command printed more than is taken."""


class BoundedRemote(Remote):  # type: ignore[misc]
    """Raises TooMuch, inside of a ThreadException, as soon as a command printed too much."""

    _taken = 0

    def read_proc_stdout(self, num_bytes: int) -> bytes:
        return self._counted(super().read_proc_stdout(num_bytes))

    def read_proc_stderr(self, num_bytes: int) -> bytes:
        return self._counted(super().read_proc_stderr(num_bytes))

    def respond(self, buffer_: list[str]) -> None:
        """Nothing answers to output. invoke would join all that was printed before, for every block."""

    def _counted(self, block: bytes) -> bytes:
        self._taken += len(block)
        if self._taken > MOST_BYTES:
            raise TooMuch
        return block


def printed_too_much(error: ThreadException) -> bool:
    """Whether a command failed because it printed too much."""
    return any(isinstance(each.value, TooMuch) for each in error.exceptions)
