"""Cubes in parts of which each is said with one set of words: by family, and by UDP or not."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.backends.nft import spell
from policylang.ir.ruleset import AddressTest, HostSuffix
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, UDP, Field
from policylang.packets.values import Ranges

REMEMBERED = (Field.ANSWER, Field.TO_ASKER)  # what exists for UDP alone, and elsewhere is not so

# Said in other words for each family.
BY_FAMILY = frozenset(
    (*ADDRESS_FIELDS, *spell.ADDRESS_TESTS, Field.DSCP, Field.SOURCE_ROUTED, Field.ANSWER)
)
# Said in words that hold for packets of one family alone.
IMPLY_FAMILY = BY_FAMILY - {Field.SOURCE_ROUTED} | {
    Field.ICMP_TYPE,
    Field.ICMPV6_TYPE,
    Field.HOP_LIMIT,
}


def parts(cube: Cube, keys: tuple[Field, ...], tests: tuple[AddressTest, ...]) -> Iterator[Cube]:
    """Disjoint cubes that are together as wide as the cube; `keys` are said elsewhere.

    In each, a test of addresses is one that its family has, and what is remembered is of UDP.
    """
    for half in _families(cube, keys):
        part = _without_foreign_tests(half, tests)
        if part is not None:
            yield from _remembered(part)


def _families(cube: Cube, keys: tuple[Field, ...]) -> Iterator[Cube]:
    said = (f for f in cube.fields if f not in keys)
    if cube[Field.FAMILY].single is not None or BY_FAMILY.isdisjoint(said):
        yield cube
        return
    for family in (4, 6):
        half = cube & Cube.of({Field.FAMILY: Ranges.of(family)})
        if not half.is_empty:
            yield half


def _without_foreign_tests(cube: Cube, tests: tuple[AddressTest, ...]) -> Cube | None:
    """No address of IPv4 has a suffix of IPv6: what asks for one holds nothing."""
    if cube[Field.FAMILY].single != 4:
        return cube
    foreign = [
        f
        for f in cube.fields
        if f in spell.ADDRESS_TESTS and isinstance(tests[spell.ADDRESS_TESTS[f][1]], HostSuffix)
    ]
    if any(1 in cube[f] for f in foreign):
        return None
    return cube.without(*foreign)


def _remembered(cube: Cube) -> Iterator[Cube]:
    asked = [f for f in REMEMBERED if f in cube]
    if not asked:
        yield cube
        return
    of_udp = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
    udp = cube & of_udp
    if not udp.is_empty:
        yield udp
    if not any(1 in cube[f] for f in asked):
        yield from cube.without(*asked) - of_udp
