"""A set of packets as few cubes, the way people tell it: so much, except so much.

It looks for the shortest telling and keeps every packet; it knows no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.analysis.diagram import Packets, Space
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    FAMILY_ADDRESSES,
    UNIVERSE,
    Field,
)
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges, name_range

MOST_CUBES = 48  # of a set that are looked at; one of more is told in part
FEW = 2  # cubes that need no shorter telling
MOST_HINTS = 64  # cubes of rules that are tried for a telling

# What need not be said where it follows from where the packets are: the plainest first.
_UNTOLD = (
    Field.CT_STATE,
    Field.CT_DIRECTION,
    Field.DNATED,
    Field.OIF,
    Field.IIF,
    Field.SADDR_TYPE,
    Field.DADDR_TYPE,
    Field.TCP_FLAGS,
    Field.ANSWER,
    Field.TO_ASKER,
    Field.CT_HELPER,
    Field.EXPECTED,
    Field.IPSEC,
    Field.IPSEC_OUT,
    Field.SMAC,
    Field.HOP_LIMIT,
    Field.REVERSE_PATH,
    Field.SOURCE_ROUTED,
    Field.L4PROTO,
    Field.DADDR,
)


@dataclass(frozen=True, slots=True)
class Region:
    """The packets of `cubes` less those of `excepted`; not all of the set unless `is_whole`."""

    cubes: tuple[Cube, ...]
    excepted: tuple[Cube, ...] = ()
    is_whole: bool = True


def region_of(packets: Packets, domain: Packets, hints: Iterable[Cube] = ()) -> Region:
    """The shortest telling of a set, within `domain`: what holds for all of that is not said.

    `hints` are cubes in which rules speak of such packets. Nothing may be open in `packets`.
    """
    space = packets.space
    packets = space.free_of_marks(packets)
    loopback = space.of_all(_LOOPBACK)
    if not packets & loopback:
        domain -= loopback  # what a host sends to itself is no traffic that people speak of
    packets &= domain
    packets = _wider(packets, domain)
    cubes, is_whole = packets.regions(MOST_CUBES)
    best = Region(_plainer(cubes), (), is_whole)
    if is_whole and len(cubes) <= FEW:
        return best
    tellings = [best]
    if told := _with_exceptions(packets, domain, _hulls(cubes) if is_whole else ()):
        tellings.append(told)
    if told := _with_exceptions(packets, domain, _fitting(hints, packets, space)):
        tellings.append(told)
    return min(tellings, key=_cost)


def _wider(packets: Packets, domain: Packets) -> Packets:
    """The set with as much more beside its domain as makes it simple; within it nothing changes."""
    found = packets
    for f in _UNTOLD:
        wider = packets.space.free(found, f)
        if wider & domain == packets:
            found = wider
    return found


def _plainer(cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    """The cubes with packets that cannot be, where that makes them simpler.

    Packets that people speak of have an interface, and it is not loopback; and IPv6 knows no
    protocol 0, which is a header of options.
    """
    found: list[Cube] = []
    for cube in cubes:
        terms: dict[Field, Ranges] = {}
        for f in (Field.IIF, Field.OIF):
            filled = cube[f] | _NO_INTERFACE
            if f in cube and len(cube[f]) > 1 and len(filled) < len(cube[f]):
                terms[f] = filled
        if cube[Field.FAMILY].single == 6 and 1 in cube[Field.L4PROTO]:
            terms[Field.L4PROTO] = cube[Field.L4PROTO] | Ranges.of(0)
        found.append(cube.with_terms(terms) if terms else cube)
    return compact(_in_one_family(found))


def _in_one_family(cubes: list[Cube]) -> Iterator[Cube]:
    """Cubes of all of one family joined with those that say the same of some of the other."""
    for f in (Field.SADDR, Field.DADDR):
        for whole in [cube for cube in cubes if cube[Field.FAMILY].single and f not in cube]:
            family = whole[Field.FAMILY].single
            beside = whole.without(Field.FAMILY)
            partners = [c for c in cubes if f in c and c.without(f, Field.FAMILY) == beside]
            if family is not None and partners and whole in cubes:
                values = partners[0][f] | FAMILY_ADDRESSES[family]
                cubes = [c for c in cubes if c not in (whole, partners[0])]
                cubes.append(beside.with_terms({f: values}))
    yield from cubes


def _cost(region: Region) -> tuple[bool, int, int]:
    cubes = (*region.cubes, *region.excepted)
    return not region.is_whole, len(cubes), sum(len(v) for cube in cubes for _, v in cube.stated)


def _with_exceptions(packets: Packets, domain: Packets, cubes: tuple[Cube, ...]) -> Region | None:
    """The set as cubes less what is too much in them; None where they lack some of it."""
    if not cubes:
        return None
    space = packets.space
    told = space.of_all(cubes)
    if (packets & domain) - told:
        return None
    there = domain & told
    less = _wider(there - packets, there)
    excepted, is_whole = less.regions(MOST_CUBES)
    return Region(_plainer(cubes), _plainer(excepted)) if is_whole else None


def _hulls(cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    """The one cube that holds all of them, or one for each protocol."""
    groups: dict[Ranges, list[Cube]] = {}
    for cube in cubes:
        groups.setdefault(cube[Field.L4PROTO], []).append(cube)
    by_protocol = tuple(_hull(group) for group in groups.values())
    whole = _hull(list(cubes))
    return (whole,) if len(by_protocol) > FEW or len(by_protocol) == 1 else by_protocol


def _hull(cubes: list[Cube]) -> Cube:
    terms: dict[Field, Ranges] = {}
    for f in {f for cube in cubes for f, _ in cube}:
        values = Ranges.merged(pair for cube in cubes for pair in cube[f])
        # A set with holes is told by what is left out of it, not range by range.
        if len(values) > len(UNIVERSE[f]) and len(UNIVERSE[f] - values) < len(values):
            values = UNIVERSE[f]
        terms[f] = values
    return Cube.of(terms)


def _fitting(hints: Iterable[Cube], packets: Packets, space: Space) -> tuple[Cube, ...]:
    """The cubes of rules that have to do with a set, without those fields that it never tells."""
    found: dict[Cube, None] = {}
    for hint in hints:
        cube = hint.without(*(f for f in _UNTOLD if f in (Field.CT_STATE, Field.CT_DIRECTION)))
        if space.of(cube).meets(packets):
            found[cube] = None
        if len(found) > MOST_HINTS:
            return ()
    return tuple(found)


_LO = Ranges((name_range("lo"),))
_NO_INTERFACE = _LO | Ranges.of(0)
_LOOPBACK = (Cube.of({Field.IIF: _LO}), Cube.of({Field.OIF: _LO}))
