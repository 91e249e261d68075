"""Golden files: whole reports as they were accepted, one for each, in `tests/unit/data/reports/`.

To accept what a change does to them: `LAB_ACCEPT=reports ./setup.sh test tests/unit`; to see it: `git diff`.
So better words in a report cost one command and no assertion.
"""

import os
from pathlib import Path

REPORTS = Path(__file__).parents[1] / "unit" / "data" / "reports"
ACCEPTED = os.environ.get("LAB_ACCEPT") == "reports"


def check(name: str, report: str) -> None:
    """Compare a report with its golden file, or accept it."""
    if ACCEPTED:
        (REPORTS / name).write_text(report)
    assert report == (REPORTS / name).read_text()
