"""When rules may change places: the one law that all passes rest on."""

from __future__ import annotations

from collections.abc import Iterable

from policylang.ir.actions import is_terminal
from policylang.ir.ruleset import Item, Rule

MOST_CHECKS = 64  # rules that one rule is compared with before a pass gives up on moving it


def is_plain(item: Item) -> bool:
    """Whether an item is a rule that decides every packet it matches, and nothing else."""
    return isinstance(item, Rule) and not item.guards and is_terminal(item.action)


def may_swap(a: Item, b: Item) -> bool:
    """Whether two neighbours can change places without changing any packet's fate."""
    if not isinstance(a, Rule) or not isinstance(b, Rule):
        return False
    if is_plain(a) and is_plain(b) and a.action == b.action:
        return True
    return not a.cube.meets(b.cube)


def may_pass(rule: Rule, others: Iterable[Item]) -> bool:
    """Whether a rule can move to before all of `others`; False where that costs too much."""
    decides = is_plain(rule)
    checks = 0
    for other in others:
        if decides and is_plain(other) and isinstance(other, Rule) and other.action == rule.action:
            continue
        checks += 1
        if checks > MOST_CHECKS or not may_swap(rule, other):
            return False
    return True
