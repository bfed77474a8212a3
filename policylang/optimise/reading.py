"""Which chains packets read that enter some chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policylang.ir.actions import Action, Jump
from policylang.ir.ruleset import Chain, Item, Rule


def read(chains: Mapping[str, Chain], names: Iterable[str]) -> set[str]:
    """The names of these chains and of all that they jump to, directly or not."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += (
                action.chain
                for item in chains[name].items
                for action in actions(item)
                if isinstance(action, Jump)
            )
    return found


def actions(item: Item) -> Iterator[Action]:
    """The actions that a packet can meet at an item."""
    if isinstance(item, Rule):
        yield item.action
    else:
        yield from (entry.action for entry in item.entries)
