"""How to see whether the profile is there."""

from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell

PROFILE = "bwrap-userns-restrict"


class AaStatus(Claim):
    order = 100
    quote = f'aa-status | grep bwrap # Should show "{PROFILE}" if profile is installed'
    check = "whether a loaded profile has that name, which aa-status would list, where that file was loaded"
    only = "only a cell in which that profile is loaded shows it (variant bwrap-allow-list)"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "bwrap-allow-list" or bool(_of_bubblewrap(cell))

    def look(self, cell: FinishedCell) -> Sight:
        names = _of_bubblewrap(cell.result)
        if not names:
            return Sight(None, "no profile for bubblewrap was seen to be loaded")
        return Sight(any(PROFILE in name for name in names), f"loaded: {', '.join(names)}")


def _of_bubblewrap(cell: CellResult) -> list[str]:
    """The names of loaded profiles that `grep bwrap` finds, if the shipped profile is among them."""
    loaded = cell.facts.apparmor.profiles if cell.facts and cell.facts.apparmor else {}
    return sorted(name for name in loaded if "bwrap" in name) if "unpriv_bwrap" in loaded else []
