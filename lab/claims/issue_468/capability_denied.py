"""What the preflight is denied."""

from lab.claims import _cells
from lab.claims._base import Sight
from lab.claims._cells import UnderUbuntusPolicy
from lab.record import Confidence
from lab.upstream.finished import FinishedCell


class CapabilityDenied(UnderUbuntusPolicy):
    order = 80
    quote = (
        "requires CAP_SYS_ADMIN inside the userns and that is denied by the unprivileged_userns AppArmor "
        "profile"
    )
    check = "whether the evidence proves that the namespace is made and its capabilities are denied"
    measured = (
        "the profile denies every capability in the namespace, but the first to stop bubblewrap is its missing "
        f"attach_disconnected: EACCES at the uid map, where the capability alone gives EPERM ({_cells.SOURCE})"
    )

    def look_there(self, cell: FinishedCell) -> Sight:
        if _cells.passed(cell.result):
            return Sight(False, "every test passes all the same", ("suite/junit.xml",))
        probes = cell.evidence.probes
        stripped = probes.unshare_user.worked and probes.unshare_user_root.failed
        is_proved = cell.result.cause == _cells.POLICY and cell.result.confidence is Confidence.PROVED
        if not (stripped and is_proved):
            return Sight(None, "the evidence does not prove it")
        what = f"`unshare -U` works and `unshare -Ur` does not; {cell.result.reason}"
        if probes.bwrap_user.failed_with("setting up uid map: Permission denied"):
            what += "; it is the profile's missing attach_disconnected that stops bubblewrap first"
        return Sight(True, what, ("probes.json", *cell.refusals))
