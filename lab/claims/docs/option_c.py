"""The third cure."""

from lab.claims.docs._remedy import CurePolicy
from lab.record import RemedyOutcome


class OptionC(CurePolicy):
    order = 130
    quote = "Fix (Option C): SecurityOptions.development()"
    check = (
        "whether boxes start in such a cell with the remedy jailer-off, which does that; it isolates nothing"
    )
    remedy = "jailer-off"
    wanted = RemedyOutcome.AVOIDS
