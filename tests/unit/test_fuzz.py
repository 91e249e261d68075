"""A few hostile inputs for each reader, the same ones in every run; `python -m tests.fuzz` tries thousands."""

import pytest

from tests.fuzz.__main__ import attempt
from tests.fuzz.readers import READERS, Reader


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_of_outside_data_has_no_traceback(reader: Reader) -> None:
    tried = attempt(reader, 10, 0)
    assert tried.tracebacks == {}
    # The valid sample comes first. No signature of a text that is made up is valid.
    assert tried.taken or reader.name == "signed checksums"
