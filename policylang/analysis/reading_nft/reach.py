"""Which base chains lead to a chain, and what its rules may change: from the bare listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from policylang.analysis.machine import Hook
from policylang.analysis.reading_nft.listing import Json, ListedChain, ListedTable
from policylang.analysis.reading_nft.rules import CONNECTION_MARK, MARK, OF_CONNTRACK, Thing
from policylang.analysis.reading_nft.scope import elements_of
from policylang.packets.fields import Field

Place = tuple[Hook, int]

HOOKS = {hook.value: hook for hook in Hook}
# nf_nat_core: chains of type nat are read where translation is done, whatever priority they name.
TRANSLATES_AT = {
    Hook.PREROUTING: -100,
    Hook.OUTPUT: -100,
    Hook.INPUT: 100,
    Hook.POSTROUTING: 100,
}


def place_of(chain: ListedChain) -> Place | None:
    """The hook and the place on it where a base chain is read; None of any other chain."""
    hook, priority = HOOKS.get(str(chain.head.get("hook"))), chain.head.get("prio")
    if hook is None or not isinstance(priority, int):
        return None
    if chain.head.get("type") == "nat":
        return hook, TRANSLATES_AT.get(hook, priority)
    return hook, priority


def places(table: ListedTable) -> dict[str, frozenset[Place]]:
    """The places of the base chains by which each chain is reached, its own if it is one."""
    calls = {name: tuple(_calls(chain, table)) for name, chain in table.chains.items()}
    found: dict[str, set[Place]] = {name: set() for name in table.chains}
    for name, chain in table.chains.items():
        at = place_of(chain)
        if at is not None and not table.is_dormant:
            for reached in _closure(name, calls):
                found[reached].add(at)
    return {name: frozenset(held) for name, held in found.items()}


def _closure(name: str, calls: dict[str, tuple[str, ...]]) -> set[str]:
    seen = {name}
    waiting = [name]
    while waiting:
        for callee in calls[waiting.pop()]:
            if callee in calls and callee not in seen:
                seen.add(callee)
                waiting.append(callee)
    return seen


def _calls(chain: ListedChain, table: ListedTable) -> Iterator[str]:
    for rule in chain.rules:
        for expression in rule.expressions:
            match expression:
                case {"jump": {"target": str(name)}} | {"goto": {"target": str(name)}}:
                    yield name
                case {"vmap": {"data": data}}:
                    yield from _targets(_elements(data, table))


def _elements(data: Json, table: ListedTable) -> list[Json]:
    match data:
        case {"set": [*elements]}:
            return elements
        case str(name) if name[1:] in table.maps:
            return elements_of(table.maps[name[1:]])
    return []


def _targets(elements: Iterable[Json]) -> Iterator[str]:
    for element in elements:
        match element:
            case [_, {"jump": {"target": str(name)}} | {"goto": {"target": str(name)}}]:
                yield name


def changed_in(table: ListedTable, named: Callable[[str], str]) -> dict[str, frozenset[Thing]]:
    """What the rules of each chain, and of those behind it, may change; sets as `named` has it."""
    calls = {name: tuple(_calls(chain, table)) for name, chain in table.chains.items()}
    own = {name: frozenset(_changed(chain, named)) for name, chain in table.chains.items()}
    return {
        name: frozenset[Thing]().union(*(own[reached] for reached in _closure(name, calls)))
        for name in table.chains
    }


def _changed(chain: ListedChain, named: Callable[[str], str]) -> Iterator[Thing]:
    for rule in chain.rules:
        for expression in rule.expressions:
            match expression:
                case {"mangle": {"key": {"meta": {"key": "mark"}}}}:
                    yield MARK
                case {"mangle": {"key": {"ct": {"key": "mark"}}}}:
                    yield CONNECTION_MARK
                case {"mangle": {"key": {"payload": {"field": "dscp"}}}}:
                    yield Field.DSCP
                case {"set": {"set": str(name)}}:
                    yield f"@{named(name.removeprefix('@'))}"
                case {"notrack": _}:
                    yield from OF_CONNTRACK


def looked_up(table: ListedTable) -> frozenset[str]:
    """The sets that some match asks."""
    return frozenset(
        name[1:]
        for chain in table.chains.values()
        for rule in chain.rules
        for expression in rule.expressions
        if (name := _asked(expression)) is not None
    )


def put_into(table: ListedTable) -> frozenset[str]:
    """The sets and maps that some rule changes."""
    found: set[str] = set()
    for chain in table.chains.values():
        for rule in chain.rules:
            for expression in rule.expressions:
                match expression:
                    case {"set": {"set": str(name)}} | {"map": {"map": str(name)}}:
                        found.add(name.removeprefix("@"))
                    case str(words):  # what nft 1.0.6 has no JSON for, as what is put into maps
                        found |= {word[1:] for word in words.split() if word.startswith("@")}
    return frozenset(found)


def _asked(expression: Json) -> str | None:
    match expression:
        case {"match": {"right": str(name)}} if name.startswith("@"):
            return name
    return None
