"""Ubuntu's policy for user namespaces, by its sysctl and by where bubblewrap fails."""

from lab.repro.judging._base import Hint, Shown
from lab.repro.report import Mood, Place, Report, Setting, Speaker, Words

SYSCTL = "kernel.apparmor_restrict_unprivileged_userns"
# bubblewrap has its user namespace. The policy's profile lacks the flag attach_disconnected, so it denies the
# uid map, and it denies the capability to set up loopback.
DENIED_INSIDE = (
    "setting up uid map: Permission denied",
    "loopback: Failed RTM_NEWADDR: Operation not permitted",
)


class ApparmorUsernsNocaps(Hint):
    def shown(self, report: Report) -> Shown | None:
        settings = [each for each in report.of(Setting) if each.name == SYSCTL and each.place is Place.HOST]
        in_force = [each for each in settings if each.value == "1" and each.mood is Mood.HOLDS]
        cured = [each for each in settings if each.value == "0" and each.helped]
        words = [
            each
            for each in report.of(Words)
            if each.speaker is Speaker.BUBBLEWRAP and each.text.startswith(DENIED_INSIDE)
        ]
        if cured:
            return f"the reporter says that {SYSCTL}=0 cures it", tuple(each.quote for each in [*cured, *words])
        if not (in_force and words):
            return None
        several = len({each.text for each in words}) > 1
        why = (
            f"{SYSCTL} is 1, and bubblewrap makes its user namespace and is then denied what it needs in it"
            f"{': its different messages come from that one cause' if several else ''}"
        )
        return why, tuple(each.quote for each in [*in_force, *words])
