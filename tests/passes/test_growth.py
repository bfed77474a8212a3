"""The work of the passes grows with the number of rules, and not with its square.

Calls are counted and not seconds, so that the outcome is the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.optimise import optimise
from tests.passes.growing import SORTS, grown

FEW, MANY = 400, 1200  # more than the passes look back
MOST_GROWTH = 3.6  # for three times as many rules


def calls(work: Callable[[], object]) -> int:
    """How many functions are called in the course of the work."""
    number = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


def growth(one: Callable[[Ruleset], object], sort: str) -> float:
    few, many = (grown(sort, count) for count in (FEW, MANY))
    return calls(lambda: one(many)) / calls(lambda: one(few))


@pytest.mark.parametrize("sort", SORTS)
def test_work_grows_with_the_rules(sort: str) -> None:
    assert growth(lambda ruleset: optimise(ruleset, Report()), sort) < MOST_GROWTH


def test_work_that_grows_with_the_square_is_told() -> None:
    def compare_all(ruleset: Ruleset) -> None:
        items = ruleset.chains[0].items
        for number, item in enumerate(items):
            any(item is other for other in items[:number:10])

    assert growth(compare_all, "hosts") > MOST_GROWTH


def test_runs_of_rules_become_few_items() -> None:
    """10,000 rules about hosts cost a packet what a few rules do."""
    after = optimise(grown("hosts and ports of two verdicts", 10_000), Report())
    assert sum(len(chain.items) for chain in after.chains) == 2
