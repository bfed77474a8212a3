"""When rules may change places: the one law that all passes rest on."""

from __future__ import annotations

from collections.abc import Iterable

from policylang.ir.actions import (
    Action,
    AddToSet,
    Jump,
    Native,
    RememberAsker,
    RememberQuestion,
    SetDscp,
    is_terminal,
)
from policylang.ir.ruleset import Item, Rule
from policylang.packets.cube import Cube
from policylang.packets.fields import DADDR_TESTS, SADDR_TESTS, Field

MOST_CHECKS = 64  # rules that one rule is compared with before a pass gives up on moving it

# What an action does to a packet that goes on; no chain that is jumped to has native lines.
_ITSELF: dict[type[Action], frozenset[Field]] = {
    AddToSet: frozenset((*SADDR_TESTS, *DADDR_TESTS)),
    RememberQuestion: frozenset({Field.ANSWER}),
    RememberAsker: frozenset({Field.TO_ASKER}),
    SetDscp: frozenset({Field.DSCP}),
    Native: frozenset(Field),
}
CHANGES: dict[type[Action], frozenset[Field]] = {
    **_ITSELF,
    Jump: frozenset().union(*(_ITSELF[action] for action in _ITSELF if action is not Native)),
}
NOTHING: frozenset[Field] = frozenset()


def changes(action: Action) -> frozenset[Field]:
    """The fields that may have other values for the packet once it met an action and goes on."""
    return CHANGES.get(type(action), NOTHING)


def is_plain(item: Item) -> bool:
    """Whether an item is a rule that decides every packet it matches, and nothing else."""
    return isinstance(item, Rule) and not item.guards and is_terminal(item.action)


def may_swap(a: Item, b: Item) -> bool:
    """Whether two neighbours can change places without changing any packet's fate."""
    if not isinstance(a, Rule) or not isinstance(b, Rule):
        return False
    if is_plain(a) and is_plain(b) and a.action == b.action:
        return True
    # A packet that is in one of the cubes may be in the other as well once it was changed.
    changed = changes(a.action) | changes(b.action)
    return not _beside(a.cube, changed).meets(_beside(b.cube, changed))


def _beside(cube: Cube, fields: frozenset[Field]) -> Cube:
    return cube if fields.isdisjoint(cube.fields) else cube.without(*fields)


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
