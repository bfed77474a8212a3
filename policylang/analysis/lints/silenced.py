"""Comments that silence what is no longer so."""

from __future__ import annotations

from policylang.analysis.lints.subject import Subject
from policylang.diagnostics import Report
from policylang.silences import Silence, silences

# What is told of a policy while it is applied, or of the machine, and never by a lint.
TOLD_ELSEWHERE = frozenset(
    {
        *("recovered", "swept", "not-confirmed", "generation-left-out", "operator-shut-out"),
        *("nothing-confirmed", "left-behind", "advertisements-ignored", "foreign-route"),
        *("published-ports", "source-failed"),
    }
)


def find_idle(subject: Subject, report: Report) -> None:
    """Report each comment that silenced nothing, once all else was looked for: `allow-unused`.

    Where not everything was looked at, none is judged.
    """
    if subject.is_cut:
        return
    for file in subject.loaded.files:
        for one in silences(file):
            if isinstance(one, Silence) and one not in report.heeded | _elsewhere(one):
                report.add(
                    "allow-unused",
                    f"nothing here is told as `{one.code}`",
                    one.span,
                    help="remove the comment",
                )


def _elsewhere(one: Silence) -> set[Silence]:
    return {one} if one.code in TOLD_ELSEWHERE else set()
