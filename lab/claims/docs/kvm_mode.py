"""The device's permissions."""

from lab.claims._base import Claim, Sight
from lab.record import CellResult
from lab.upstream.finished import FinishedCell


class KvmMode(Claim):
    order = 40
    quote = "ls -l /dev/kvm # Should be: crw-rw---- 1 root kvm"
    check = "whether a guest as installed has the device with this mode, owner and group"
    only = "only a cell as installed shows it (variant stock)"

    def concerns(self, cell: CellResult) -> bool:
        return cell.variant == "stock"

    def look(self, cell: FinishedCell) -> Sight:
        facts = cell.result.facts
        if facts is None or facts.kvm is None:
            return Sight(None, "it has no /dev/kvm" if facts else "its facts were not read")
        kvm = facts.kvm
        shown = f"mode {kvm.mode}, owner {kvm.owner or kvm.uid}, group {kvm.group or kvm.gid}"
        return Sight((kvm.mode, kvm.owner, kvm.group) == ("0o660", "root", "kvm"), shown)
