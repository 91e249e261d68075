"""Which tests fail."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import WhereBlocked
from lab.upstream.finished import FinishedCell

# Upstream's names, and the suite's.
TESTS = ("jailer_creates_isolated_mount_namespace", "jailer_enabled_box_starts_and_executes")


class BlockedTests(WhereBlocked):
    order = 10
    quote = (
        "Two integration tests in src/boxlite/tests/jailer.rs fail on hosts where unprivileged user namespaces "
        "are blocked by the kernel or AppArmor: jailer::jailer_creates_isolated_mount_namespace "
        "jailer::jailer_enabled_box_starts_and_executes"
    )
    check = "whether both tests fail in each cell that a setting of the kernel's or AppArmor blocks"

    def look(self, cell: FinishedCell) -> Sight:
        if untold := _cells.untold(cell.result, *TESTS):
            return Sight(None, untold)
        failed = _cells.failed(cell.result)
        missing = [test for test in TESTS if test not in failed]
        if missing:
            return Sight(False, f"passed: {', '.join(missing)}", ("suite/junit.xml",))
        others = [test for test in failed if test not in TESTS]
        more = f", and so do: {', '.join(others)}" if others else ", and no other"
        return Sight(True, f"both fail{more}", ("suite/junit.xml",))
