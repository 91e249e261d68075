"""The advice that boxlite logs."""

from lab.claims.docs._remedy import CurePolicy


class ReinstallBubblewrap(CurePolicy):
    order = 140
    quote = "Fix (recommended): Install/reinstall bubblewrap: sudo apt install --reinstall bubblewrap"
    check = "whether the remedy install-bubblewrap, which does that, cures such a cell"
    remedy = "install-bubblewrap"
