"""A world of few values, small enough to look at every packet of it.

Each field's universe is cut into a few cells, and sets of values are unions of cells. All
packets of a cell meet the same fate, so that one packet of each cell stands for all of them,
and sets of packets are the same if they hold the same of these packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product

from hypothesis import strategies as st

from policylang.packets.cube import Packet
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    BOOLEAN,
    DCCP,
    FAMILY_ADDRESSES,
    ICMP,
    ICMPV6,
    REQUIRES,
    SCTP,
    TCP,
    TCP_RST,
    UDP,
    UNIVERSE,
    Field,
    with_flags,
)
from policylang.packets.values import Ranges, name_range, parse_address

Terms = Mapping[Field, Ranges]


def cells_of(field: Field, *cut_out: Ranges) -> tuple[Ranges, ...]:
    """The universe of a field as these disjoint sets and the rest of it."""
    rest = UNIVERSE[field]
    for cell in cut_out:
        rest -= cell
    return (*cut_out, rest)


def _names(*patterns: str) -> Ranges:
    return Ranges.merged(map(name_range, patterns))


def _addresses(*texts: str) -> Ranges:
    return Ranges.merged(r for t in texts if (r := parse_address(t)) is not None)


_V4 = _addresses("10.0.0.0/8")
_V6 = _addresses("2001:db8::/32")
_IN_ADDRESSES = (
    _V4,
    FAMILY_ADDRESSES[4] - _V4,
    _V6,
)

CELLS: dict[Field, tuple[Ranges, ...]] = {
    Field.IIF: cells_of(Field.IIF, _names("eth0"), _names("wlan*")),
    Field.OIF: cells_of(Field.OIF, _names("eth0", "eth1"), _names("wlan*")),
    Field.CT_STATE: cells_of(Field.CT_STATE, Ranges.of(0), Ranges.of(2)),
    Field.CT_HELPER: cells_of(Field.CT_HELPER, _names("ftp")),
    Field.FAMILY: cells_of(Field.FAMILY, Ranges.of(4)),
    Field.SADDR: cells_of(Field.SADDR, *_IN_ADDRESSES),
    Field.DADDR: cells_of(Field.DADDR, *_IN_ADDRESSES),
    Field.ORIG_DADDR: cells_of(Field.ORIG_DADDR, *_IN_ADDRESSES),
    Field.ORIG_DPORT: cells_of(Field.ORIG_DPORT, Ranges.of(80)),
    Field.DADDR_TYPE: cells_of(Field.DADDR_TYPE, Ranges.of(2)),
    Field.HOP_LIMIT: cells_of(Field.HOP_LIMIT, Ranges.of(255)),
    Field.L4PROTO: cells_of(
        Field.L4PROTO,
        Ranges.of(TCP),
        Ranges.of(UDP, DCCP, SCTP),
        Ranges.of(ICMP),
        Ranges.of(ICMPV6),
    ),
    Field.SPORT: cells_of(Field.SPORT, Ranges.between(0, 1023)),
    Field.DPORT: cells_of(Field.DPORT, Ranges.of(22, 80), Ranges.between(1024, 65535)),
    Field.ICMP_TYPE: cells_of(Field.ICMP_TYPE, Ranges.of(8)),
    Field.ICMPV6_TYPE: cells_of(Field.ICMPV6_TYPE, Ranges.of(128), Ranges.between(133, 136)),
    Field.TCP_FLAGS: cells_of(Field.TCP_FLAGS, with_flags(TCP_RST, TCP_RST)),
    Field.SMAC: cells_of(Field.SMAC, Ranges.of(0x02_00_00_00_00_01)),
    Field.DSCP: cells_of(Field.DSCP, Ranges.of(46), Ranges.of(8, 10)),
    Field.SIZE: cells_of(Field.SIZE, Ranges.between(0, 100)),
    Field.SADDR_TYPE: cells_of(Field.SADDR_TYPE, Ranges.of(2)),
    **{field: cells_of(field, Ranges.of(1)) for field in Field if UNIVERSE[field] == BOOLEAN},
}


def values(field: Field) -> st.SearchStrategy[Ranges]:
    """Any union of cells, the empty one and the whole universe among them."""
    cells = CELLS[field]

    def chosen(bits: int) -> Ranges:
        held = [cell for number, cell in enumerate(cells) if bits >> number & 1]
        return Ranges.merged(pair for cell in held for pair in cell)

    return st.integers(0, 2 ** len(cells) - 1).map(chosen)


# Fields that have to do with each other, and some that do not.
PALETTES = (
    (Field.HOP_LIMIT,),
    (Field.ICMP_TYPE,),
    (Field.FAMILY, Field.HOP_LIMIT),
    (Field.FAMILY, Field.ICMP_TYPE, Field.ICMPV6_TYPE),
    (Field.FAMILY, Field.SADDR, Field.DADDR),
    (Field.SADDR, Field.HOP_LIMIT, Field.L4PROTO),
    (Field.SADDR, Field.L4PROTO, Field.ICMPV6_TYPE),
    (Field.DADDR, Field.L4PROTO, Field.DPORT),
    (Field.L4PROTO, Field.SPORT, Field.DPORT),
    (Field.L4PROTO, Field.DPORT, Field.TCP_FLAGS),
    (Field.L4PROTO, Field.DPORT, Field.ICMP_TYPE),
    (Field.IIF, Field.OIF, Field.CT_STATE),
    (Field.CT_STATE, Field.CT_HELPER, Field.DPORT),
    (Field.OIF, Field.DADDR, Field.DADDR_TYPE),
    (Field.CT_STATE, Field.CT_DIRECTION, Field.SADDR),
    (Field.FAMILY, Field.SADDR_TEST_0, Field.DADDR_TEST_0),
    (Field.IIF, Field.SADDR_TYPE, Field.REVERSE_PATH, Field.IPSEC),
    (Field.SMAC, Field.DSCP, Field.SIZE),
    (Field.DNATED, Field.L4PROTO, Field.ORIG_DPORT),
    (Field.FAMILY, Field.DADDR, Field.ORIG_DADDR),
    (Field.OIF, Field.IPSEC_OUT, Field.EXPECTED),
)


def palettes() -> st.SearchStrategy[tuple[Field, ...]]:
    """A few fields, so that what is made of them has something to do with each other."""
    return st.sampled_from(PALETTES)


@st.composite
def terms(draw: st.DrawFn, palette: tuple[Field, ...]) -> Terms:
    """What a match may say of some of these fields."""
    return {field: draw(values(field)) for field in palette if draw(st.booleans())}


@st.composite
def siblings(draw: st.DrawFn, palette: tuple[Field, ...], most: int = 4) -> list[Terms]:
    """Several matches; often one differs from another in a single field."""
    found: list[Terms] = [draw(terms(palette))]
    for _ in range(draw(st.integers(0, most - 1))):
        if draw(st.booleans()):
            field = draw(st.sampled_from(palette))
            found.append({**draw(st.sampled_from(found)), field: draw(values(field))})
        else:
            found.append(draw(terms(palette)))
    return found


def meets_all(packet: Packet, said: Terms) -> bool:
    """Whether a packet meets every term; one that allows all values says nothing."""
    return all(
        held == UNIVERSE[field] or (field in packet and packet[field] in held)
        for field, held in said.items()
    )


@cache
def packets(palette: tuple[Field, ...]) -> tuple[Packet, ...]:
    """One packet of each cell, as far as these fields tell packets apart."""
    return tuple(_packets(palette))


def _packets(palette: tuple[Field, ...]) -> Iterator[Packet]:
    told_apart = {*palette, Field.FAMILY}
    for field, needs, _ in REQUIRES:
        if field in told_apart:
            told_apart.add(needs)
    choices = [
        [(cell.pairs[0][0], cell.pairs[-1][1])[field % 2] for cell in CELLS[field]]
        if field in told_apart
        else [CELLS[field][0].pairs[0][0]]
        for field in Field
    ]
    for chosen in product(*choices):
        packet = dict(zip(Field, chosen, strict=True))
        if not _is_possible(packet, told_apart):
            continue
        lacking = [f for f, needs, held in REQUIRES if packet[needs] not in held]
        yield {field: value for field, value in packet.items() if field not in lacking}


def _is_possible(packet: Packet, told_apart: set[Field]) -> bool:
    """Whether a packet can be: addresses that nothing asks for are as its family has them."""
    own = FAMILY_ADDRESSES[packet[Field.FAMILY]]
    return all(packet[field] in own for field in ADDRESS_FIELDS if field in told_apart)
