"""Tells what came from elsewhere, where the target also asks what came from nowhere.

Behind routing, this host's own packets have no interface by which they came. No rule that names
one is for them; but to iptables they came by an interface without a name, which is not the one
that a rule bars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policylang.ir.ruleset import Chain, Item, Lookup, Rule, entry_cube
from policylang.optimise.reading import read
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, AddressType, Field
from policylang.packets.values import Ranges, name_range

NO_NAME = name_range("")[0]
FOREIGN = Cube.of({Field.SADDR_TYPE: UNIVERSE[Field.SADDR_TYPE] - Ranges.of(AddressType.LOCAL)})


def with_foreign_sources(base: str, chains: Mapping[str, Chain]) -> dict[str, Chain]:
    """The chains that are read from `base`: what they say of the way in is of others' alone."""
    return {
        name: Chain(name, tuple(new for item in chains[name].items for new in _new(item)))
        for name in sorted(read(chains, (base,)))
    }


def _new(item: Item) -> Iterator[Item]:
    if isinstance(item, Rule):
        yield Rule(_of_others(item.cube), item.action, item.guards, item.origins)
    elif Field.IIF not in item.fields:
        yield Lookup(_of_others(item.cube), item.fields, item.entries)
    else:
        place = item.fields.index(Field.IIF)
        plain = tuple(entry for entry in item.entries if entry.key[place][0] != NO_NAME)
        if plain:
            yield Lookup(item.cube, item.fields, plain)
        for entry in item.entries:
            if entry.key[place][0] == NO_NAME:
                yield Rule(entry_cube(item, entry) & FOREIGN, entry.action, (), entry.origins)


def _of_others(cube: Cube) -> Cube:
    return cube & FOREIGN if Field.IIF in cube and NO_NAME in cube[Field.IIF] else cube
