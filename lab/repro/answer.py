"""The answer to a report: Markdown that a maintainer can paste as a comment to its issue."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import causes
from lab.base.files import cut_text
from lab.catalog import remedies
from lab.catalog.remedies import Remedy
from lab.record import UNKNOWN, CellResult, RemedyOutcome, RunResult
from lab.report import markdown_pages, table
from lab.repro.comment import Cure, escape_report, unlink, write_comment
from lab.repro.planning import Plan, is_made_variant
from lab.repro.verdict import OWN, Reproduction, Verdict
from lab.trials.bisection import Bisection

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = "answer.md"
# Longest page; GitHub takes no comment of more than 65,536 characters.
LONGEST = 60_000
# Most reasons of a verdict that the comment has.
MOST_REASONS = 3
# What stands for the host of a report: its policy, by the cause that this policy leads to.
POLICIES = {"apparmor-userns-nocaps": "under Ubuntu's policy"}


@dataclass(frozen=True)
class Subject:
    """All that an answer is made of. `run` is None if nothing was run; `bisection`, if there is none."""

    plan: Plan
    verdict: Verdict
    run: RunResult | None = None
    bisection: Bisection | None = None

    @property
    def is_interrupted(self) -> bool:
        """Whether its run, or the bisection after it, was interrupted."""
        runs = (self.run.run if self.run else None, self.bisection.run if self.bisection else None)
        return any(run is not None and run.interrupted for run in runs)


@dataclass(frozen=True)
class VerifiedCure(Cure):
    """A remedy with which the whole suite passed on a cell of this report, or several at once.

    `name` is that of the record, where several have their names joined.
    """

    name: str = ""
    remedies: tuple[Remedy, ...] = ()


def headline(subject: Subject) -> str:
    """The verdict, and on which guest: a guest that is not the report's host is named as what it is."""
    plan, result = subject.plan, subject.verdict.result
    if result is Reproduction.NOT_TESTED:
        return f"{result}: {subject.verdict.reasons[0]}"
    if subject.run is None or plan.guest is None or result is Reproduction.NOT_RUN:
        return str(result)
    name, arch = plan.guest.name, plan.report.arch
    if arch and arch != plan.guest.arch:
        name += f" ({plan.guest.arch}; the report's host has {arch})"
    if plan.is_host:
        return f"{result} on {name}"
    system = plan.report.host
    host = f"not on {system.title}" if system and not system.inferred else "the report names no host"
    policies = [POLICIES[q.cause] for q in plan.questions if q.cause in POLICIES]
    partly = "" if len(policies) == len(plan.questions) else "in part "
    under = f", {partly}{' and '.join(policies)}" if policies else ""
    return f"{result} on {name}{under}; {host}"


def list_comment(subject: Subject) -> list[str]:
    """Return the lines of the comment: the verdict, and what a text alone says with what the run made of it."""
    plan, verdict = subject.plan, subject.verdict
    cures = _cures(verdict.cells) if any(cell.remedies for cell in verdict.cells) else None
    outcome = [f"## Verdict: {escape_report(headline(subject))}"]
    outcome += [f"- {escape_report(reason)}" for reason in verdict.reasons[:MOST_REASONS]]
    outcome += (
        [f"- {escape_report(sentence)}" for sentence in subject.bisection.result] if subject.bisection else []
    )
    return write_comment(plan.report, plan.judged, plan.choice, outcome=outcome, cures=cures)


def render_answer(subject: Subject) -> str:
    """Return the answer as Markdown, the comment first. Text from the report and from guests is escaped."""
    plan, verdict, cells = subject.plan, subject.verdict, subject.verdict.cells
    failed = [cell for cell in cells if cell.status.failed]
    causes_of_cells = [finding.name for cell in failed for finding in cell.causes]
    cures = _cures(cells)
    # The cure of each cell that gives up least, and those cures, each once.
    of_cells: dict[str, VerifiedCure] = {}
    cheapest: dict[str, VerifiedCure] = {}
    for cure in cures:
        if of_cells.setdefault(cure.verified, cure) is cure:
            cheapest.setdefault(cure.name, cure)
    again = [plan.again]
    if plan.guest:
        # What --build takes; of a local file only its name, and no path of this host.
        build = Path(plan.build.argument or plan.build.version).name if plan.build else ""
        option = f" --build {shlex.quote(build)}" if build else ""
        alone = [name for name in plan.variants if not is_made_variant(name)]
        again += [f"lab matrix -g {plan.guest.name} -v {name}{option}" for name in alone]
    page = markdown_pages.render_template(
        TEMPLATE,
        TEMPLATES,
        it=subject,
        comment=list_comment(subject),
        titles={name: variant.title for name, variant in plan.variants.items()},
        square=table.format_square,
        explained=[name for name in dict.fromkeys(causes_of_cells) if name in causes.list_causes()],
        unexplained=[cell.variant for cell in failed if cell.cause in (None, UNKNOWN)],
        failed=failed,
        cheapest=list(cheapest.values()),
        more_cures=[cure for cure in cures if cure not in cheapest.values()],
        uncured=[cell for cell in failed if cell.variant not in of_cells],
        programs=list(dict.fromkeys(q.program for q in plan.questions if q.program not in ("", *OWN))),
        versions=list(dict.fromkeys(line for cell in cells for line in _versions(cell))),
        is_emulated=subject.run and any(host.acceleration != "kvm" for host in subject.run.run.hosts()),
        again=again,
        untested=[answered for answered in verdict.answered if not answered.cell],
        unlinked=unlink,
    )
    return cut_text(page, LONGEST)


def _cures(cells: Sequence[CellResult]) -> list[VerifiedCure]:
    """The verified remedies, for each cell the one that gives up least first."""
    by_name = remedies.load_remedies()
    cures = []
    for cell in cells:
        for trial in cell.remedies:
            tried = tuple(by_name.get(name) for name in trial.name.split(remedies.AND))
            known = tuple(filter(None, tried))
            if trial.result is RemedyOutcome.VERIFIED and known == tried:
                title = "; ".join(one.title for one in known)
                script = next((f"lab remedies show {one.name} --script" for one in known if one.host), "")
                cures.append(VerifiedCure(title, trial.price, script, cell.variant, trial.name, known))
    return cures


def _versions(cell: CellResult) -> list[str]:
    """What a cell ran with, as the guest showed it."""
    facts = cell.facts
    lines = [f"boxlite {cell.build}"]
    if facts is None:
        return lines
    lines.append(f"{facts.os.pretty_name or cell.guest}, kernel {facts.kernel}")
    if facts.bubblewrap and facts.bubblewrap.version:
        lines.append(f"bubblewrap {facts.bubblewrap.version}")
    if facts.apparmor and facts.apparmor.version:
        lines.append(f"AppArmor {facts.apparmor.version}")
    if facts.selinux:
        lines.append(f"SELinux {facts.selinux.mode}, policy {facts.selinux.policy or 'without a name'}")
    return lines


def make_answer_document(subject: Subject) -> dict[str, object]:
    """Return the verdict for programs: one JSON document."""
    plan, verdict = subject.plan, subject.verdict
    return {
        "verdict": str(verdict.result),
        "headline": headline(subject),
        "reasons": list(verdict.reasons),
        "guest": plan.guest.name if plan.guest else None,
        "is_host": plan.is_host,
        "nearest": plan.nearest.name if plan.nearest else None,
        "build": plan.build.name if plan.build else None,
        "steps": list(plan.steps),
        "missing": list(plan.report.missing),
        "questions": [
            {
                "cause": answered.question.cause,
                "variant": answered.question.variant.name if answered.question.variant else None,
                "verdict": str(answered.result),
                "reason": answered.reason,
            }
            for answered in verdict.answered
        ],
        "claims": [
            {
                "claim": claim.text,
                "line": claim.statement.quote.number,
                "result": str(claim.outcome),
                "reason": claim.reason,
                "file": claim.file,
                "file_line": claim.file_line,
            }
            for claim in verdict.claims
        ],
        "bisection": subject.bisection.document() if subject.bisection else None,
        "cures": [
            {"remedy": cure.name, "variant": cure.verified, "price": cure.price}
            for cure in _cures(verdict.cells)
        ],
    }
