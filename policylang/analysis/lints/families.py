"""What is open to the world over one family of addresses and closed over the other.

The world is one ordinary address of each family that no statement names, wherever it is: what holds
for it holds for nearly everybody. It knows no service.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from policylang.analysis.diagram import Packets
from policylang.analysis.lints.subject import FIRST, Subject, called, origin_of
from policylang.analysis.machine import Base, Hook
from policylang.diagnostics import Label, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin
from policylang.model.types import AddressEnd, PolicyRule, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    FAMILY_ADDRESSES,
    SADDR_TESTS,
    AddressType,
    Field,
)
from policylang.packets.values import V6_BASE, Ranges
from policylang.source import Span

OF_FAMILY = (Field.SADDR, Field.DADDR, Field.ORIG_DADDR, Field.HOP_LIMIT)
# DHCPv6 (RFC 8415) and mDNS have their ports of one family, and ways of their own.
OF_ONE_FAMILY = Ranges.of(67, 68, 546, 547)
PORTED = Ranges.of(6, 17, 33, 132)


@dataclass(frozen=True, slots=True)
class _World:
    """What a stranger's first packets fare over one family, less what tells the family."""

    accepted: Packets
    denied: Packets


def find_apart(subject: Subject, report: Report) -> None:
    """Report ports that anyone reaches over IPv6 and not over IPv4, and the reverse.

    `ipv6-open`; `ipv4-open` where a rule names all of IPv4 by its addresses.
    """
    told: set[Span] = set()
    for base in subject.filters:
        if base.hook is Hook.OUTPUT:
            continue
        worlds = {family: _world(subject, base, family) for family in (4, 6)}
        v4, v6 = worlds[4], worlds[6]
        _tell_v6(subject, base, v6.accepted & v4.denied, told, report)
        _tell_v4(subject, base, v4.accepted & v6.denied, told, report)


def _tell_v6(subject: Subject, base: Base, apart: Packets, told: set[Span], report: Report) -> None:
    for opens, closes, packet in _deciders(subject, base, apart, 6):
        at = next((o for o in (opens, closes) if o is not None and o.span is not None), None)
        if at is None or at.span is None or at.span in told:
            continue
        told.add(at.span)
        other = closes if at is opens else opens
        labels = []
        if other is not None and other.span is not None:
            how = "closes it over IPv4" if at is opens else "opens it over IPv6"
            labels.append(Label(other.span, f"this {how}"))
        report.add(
            "ipv6-open",
            "anyone gets in over IPv6 where IPv4 is closed",
            at.span,
            help=f"such as {packet}; say the same of both families",
            labels=labels,
        )


def _tell_v4(subject: Subject, base: Base, apart: Packets, told: set[Span], report: Report) -> None:
    for opens, _, packet in _deciders(subject, base, apart, 4):
        if opens is None or opens.span is None or opens.span in told:
            continue
        statement = subject.statements.get(opens.span)
        if not isinstance(statement, PolicyRule) or not _names_all_of_v4(statement):
            continue
        told.add(opens.span)
        report.add(
            "ipv4-open",
            f"this {called(statement)} names all of IPv4, and no IPv6 address gets in",
            opens.span,
            help=f"such as {packet} passes; `any` is both families, and `ipv4` says that one is "
            "meant",
        )


def _names_all_of_v4(rule: PolicyRule) -> bool:
    if rule.verb is not Verb.ALLOW or rule.conditions.families is not None:
        return False
    return any(
        isinstance(e, AddressEnd) and e.addresses.covers(FAMILY_ADDRESSES[4])
        for one in rule.source.lists
        for e in one.elements
    )


def _world(subject: Subject, base: Base, family: int) -> _World:
    """What a stranger's packets to a port fare in a base chain, with nothing said of addresses."""
    space = subject.space
    ordinary = space.of(_ordinary(subject, base, family)) & space.of(FIRST)
    reading = subject.readings[base]
    accepted = space.union(
        met.packets
        for met, accepts in reading.decisions
        if accepts and isinstance(met.line.act, ir.Accept)
    )
    return _World(
        _bare(subject, subject.always(accepted & ordinary) & ordinary),
        _bare(subject, subject.always(reading.denied & ordinary) & ordinary),
    )


def _bare(subject: Subject, packets: Packets) -> Packets:
    """Packets with the family, and all that belongs to one, left out."""
    return subject.space.free(packets, *OF_FAMILY, Field.FAMILY)


def _ordinary(subject: Subject, base: Base, family: int) -> Cube:
    """A stranger's first packets to a port, from one address to another that nobody names."""
    goal = AddressType.LOCAL if base.hook is Hook.INPUT else AddressType.UNICAST
    tests = {f: Ranges.of(0) for f in (*SADDR_TESTS, *DADDR_TESTS)}
    return Cube.of(
        {
            **tests,
            Field.FAMILY: Ranges.of(family),
            Field.SADDR: Ranges.of(_stranger(subject, Field.SADDR, family)),
            Field.DADDR: Ranges.of(_stranger(subject, Field.DADDR, family) + 1),
            Field.DADDR_TYPE: Ranges.of(goal),
            Field.SADDR_TYPE: Ranges.of(AddressType.UNICAST),
            Field.DNATED: Ranges.of(0),
            Field.L4PROTO: PORTED,
            Field.DPORT: Ranges.between(0, 65535) - OF_ONE_FAMILY,
            Field.IPSEC: Ranges.of(0),
        }
    )


def _stranger(subject: Subject, field: Field, family: int) -> int:
    """An address of a family that as many terms of the rules hold for as for any, and no name.

    It is in the largest piece of the addresses that are globally reachable which no rule cuts.
    """
    named = (
        cube[field]
        for chain in subject.machine.chains.values()
        for line in chain
        for cube in line.cubes
        if field in cube
    )
    cuts = _cuts(named, GLOBAL[family])
    pieces = pairwise(cuts)
    low, high = max(pieces, key=lambda piece: piece[1] - piece[0])
    return (low + high) // 2 + 1


# The widest unicast blocks, which hold nothing special (RFC 4291, IANA).
GLOBAL = {
    4: (64 << 24, 100 << 24),
    6: (V6_BASE + (0x2400 << 112), V6_BASE + (0x3000 << 112)),
}


def _cuts(named: Iterable[Ranges], within: tuple[int, int]) -> list[int]:
    low, high = within
    edges = {low, high}
    for values in named:
        for first, last in values:
            edges |= {edge for edge in (first, last + 1) if low < edge < high}
    return sorted(edges)


def _deciders(
    subject: Subject, base: Base, apart: Packets, open_family: int
) -> Iterator[tuple[Origin | None, Origin | None, str]]:
    """What opens and what closes packets that one family alone lets pass, with an example."""
    space = subject.space
    closed_family = 10 - open_family
    opened = space.of(_ordinary(subject, base, open_family)) & space.of(FIRST)
    closed = space.of(_ordinary(subject, base, closed_family)) & space.of(FIRST)
    for met, accepts in subject.readings[base].decisions:
        if not accepts or not isinstance(met.line.act, ir.Accept):
            continue
        mine = met.packets & opened & apart
        witness = mine.witness()
        if witness is None:
            continue
        same = Cube.of(
            {
                f: Ranges.of(v)
                for f, v in witness.items()
                if f in (Field.IIF, Field.OIF, Field.L4PROTO, Field.DPORT)
            }
        )
        against = closed & space.of(same)
        closer = next(
            (
                one.line
                for one, passes in subject.readings[base].decisions
                if not passes and one.packets.meets(against)
            ),
            None,
        )
        yield (
            origin_of(met.line),
            None if closer is None else origin_of(closer),
            subject.example(base, witness),
        )
