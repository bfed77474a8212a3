"""Chains of a stage that can be left from within, for a target that can only return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policylang.ir.actions import Action, ConnectionsGuard, Jump, Leave, RateGuard
from policylang.ir.ruleset import Chain, Item, Lookup, Rule, entry_cube
from policylang.optimise.reading import actions


def without_nested_leave(chain: Chain, chains: Mapping[str, Chain]) -> Iterator[Item]:
    """The items of a base chain, with those of chains that can leave the stage in their place.

    A `RETURN` there would come back here, and what follows would be read after all.
    INVARIANT: no guard that counts stands before such a chain.
    """
    for item in chain.items:
        if isinstance(item, Lookup):
            if not any(_leaves(entry.action, chains) for entry in item.entries):
                yield item
                continue
            for entry in item.entries:
                rule = Rule(entry_cube(item, entry), entry.action, (), entry.origins)
                yield from _in_place(rule, chains)
        else:
            yield from _in_place(item, chains)


def _in_place(rule: Rule, chains: Mapping[str, Chain]) -> Iterator[Item]:
    if not isinstance(rule.action, Jump) or not _leaves(rule.action, chains):
        yield rule
        return
    guards = rule.guards
    assert not any(isinstance(g, (RateGuard, ConnectionsGuard)) for g in guards), (
        "leaving at a rate"
    )
    for inner in without_nested_leave(chains[rule.action.chain], chains):
        if isinstance(inner, Rule):
            all_guards = (*guards, *inner.guards)
            yield Rule(rule.cube & inner.cube, inner.action, all_guards, inner.origins)
        elif not guards:
            yield Lookup(rule.cube & inner.cube, inner.fields, inner.entries)
        else:
            for entry in inner.entries:
                cube = rule.cube & entry_cube(inner, entry)
                yield Rule(cube, entry.action, guards, entry.origins)


def _leaves(action: Action, chains: Mapping[str, Chain]) -> bool:
    """Whether a packet that is sent to a chain can leave the stage from there."""
    if not isinstance(action, Jump):
        return False
    inner = (a for item in chains[action.chain].items for a in actions(item))
    return any(isinstance(a, Leave) or _leaves(a, chains) for a in inner)
