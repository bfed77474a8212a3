"""Lints: what is right in a policy and yet hardly meant, each proved over all packets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policylang.analysis.lints.facing import find_facing
from policylang.analysis.lints.families import find_apart
from policylang.analysis.lints.overlapping import find_overlapping
from policylang.analysis.lints.redundant import find_redundant
from policylang.analysis.lints.subject import Subject
from policylang.analysis.lints.unanswered import find_unanswered
from policylang.analysis.lints.unasked import find_unasked
from policylang.analysis.lints.undone import find_undone
from policylang.analysis.lints.unreachable import find_unreachable
from policylang.analysis.lints.unused import find_unused
from policylang.analysis.lints.wider import find_wider
from policylang.diagnostics import Report

LINTS: tuple[Callable[[Subject, Report], None], ...] = (
    find_unreachable,
    find_redundant,
    find_undone,
    find_wider,
    find_overlapping,
    find_apart,
    find_facing,
    find_unanswered,
    find_unasked,
)


def find_all(subject: Subject, given: Mapping[str, str], report: Report) -> None:
    """Report what all lints find; `given` are parameters that are set from outside.

    Raises `TooLargeError`. Where `subject.is_cut` then, not everything was looked at.
    """
    for find in LINTS:
        find(subject, report)
    find_unused(subject, given, report)
