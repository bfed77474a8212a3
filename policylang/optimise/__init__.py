"""Passes over the intermediate representation; each leaves every packet's fate as it was."""

from __future__ import annotations

from collections.abc import Callable

from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset

Pass = Callable[[Ruleset, Report], Ruleset]


def optimise(ruleset: Ruleset, report: Report) -> Ruleset:
    """The ruleset after all passes."""
    for one in passes():
        ruleset = one(ruleset, report)
    return ruleset


def passes() -> tuple[Pass, ...]:
    """The passes in their order."""
    from policylang.optimise.dispatch import dispatch
    from policylang.optimise.gather import gather
    from policylang.optimise.merge import merge
    from policylang.optimise.shadow import shadow

    return (shadow, merge, dispatch, gather)
