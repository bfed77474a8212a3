"""Which packets two ends of a rule mean, path by path; knows no states and no actions."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.stages import Path
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    End,
    EndElement,
    EndList,
    Group,
    GroupEnd,
    SelfEnd,
    Traffic,
    Zone,
    ZoneEnd,
)
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import AddressType, Field
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import Ranges, parse_address

LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Side:
    """The fields that describe one end of a packet."""

    interface: Field
    address: Field


SOURCE = Side(Field.IIF, Field.SADDR)
DESTINATION = Side(Field.OIF, Field.DADDR)


@dataclass(frozen=True, slots=True)
class Reach:
    """What an end means: packets of this host, and packets of other machines."""

    own: PacketSet
    others: PacketSet


def multicast() -> Ranges:
    """224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291)."""
    return Ranges.merged(r for t in ("224.0.0.0/4", "ff00::/8") if (r := parse_address(t)))


def reach(end: End, side: Side) -> Reach:
    """The packets that have `end` on `side`: what all of its lists name."""
    says_self = any(isinstance(e, SelfEnd) for one in end.lists for e in one.elements)
    own = others = PacketSet((EVERYTHING,))
    for one in end.lists:
        own &= _own(one, side, says_self)
        others &= _others(one, side)
    return Reach(own, others)


def _others(one: EndList, side: Side) -> PacketSet:
    named = PacketSet.of(compact(_other_cube(e, side) for e in one.elements))
    taken = PacketSet.of(compact(_other_cube(e, side) for e in _takers(one, side)))
    return named - taken


def _own(one: EndList, side: Side, says_self: bool) -> PacketSet:
    named: list[Cube] = []
    for element in one.elements:
        if isinstance(element, (AnyEnd, SelfEnd)):
            named.append(EVERYTHING)
        elif says_self and not isinstance(element, ZoneEnd) and not element.within:
            named.append(_other_cube(element, side))
    taken: list[Cube] = []
    for element in _takers(one, side):
        if isinstance(element, (AnyEnd, SelfEnd)):
            taken.append(EVERYTHING)
        elif not isinstance(element, ZoneEnd) and not element.within:
            taken.append(_other_cube(element, side))
    return PacketSet.of(compact(named)) - PacketSet.of(compact(taken))


def _takers(one: EndList, side: Side) -> tuple[EndElement, ...]:
    """The exceptions that take something away: no sender has a group for its address."""
    return tuple(e for e in one.exceptions if side is DESTINATION or not isinstance(e, GroupEnd))


def _other_cube(element: EndElement, side: Side) -> Cube:
    """The packets that have another machine of `element` on `side`."""
    match element:
        case AnyEnd():
            return EVERYTHING
        case SelfEnd():
            return Cube.of({side.address: Ranges()})
        case ZoneEnd():
            cube = _zone_cube(element.zone, side)
        case AddressEnd():
            cube = Cube.of({side.address: element.addresses})
        case GroupEnd():
            cube = _group_cube(element.group, side)
    for zone in element.within:
        cube &= _zone_cube(zone, side)
    return cube


def _zone_cube(zone: Zone, side: Side) -> Cube:
    terms: dict[Field, Ranges] = {}
    if zone.interfaces is not None:
        terms[side.interface] = zone.interfaces
    if zone.networks is not None:
        terms[side.address] = zone.networks
    return Cube.of(terms)


def _group_cube(group: Group, side: Side) -> Cube:
    if side is SOURCE:  # whoever answers to a group does so from an address of its own
        return EVERYTHING
    if group is Group.MULTICAST:
        return Cube.of({side.address: multicast()})
    return Cube.of({Field.FAMILY: Ranges.of(4), Field.DADDR_TYPE: Ranges.of(AddressType.BROADCAST)})


def between(source: End, destination: End) -> dict[Path, tuple[Cube, ...]]:
    """The packets from one end to the other, by the path that they take.

    From this host to itself they take the loopback interface, which no rule is about.
    """
    start, goal = reach(source, SOURCE), reach(destination, DESTINATION)
    return {
        Path.INPUT: compact((start.others & goal.own).cubes),
        Path.FORWARD: compact((start.others & goal.others).cubes),
        Path.OUTPUT: compact((start.own & goal.others).cubes),
    }


def traffic_cube(traffic: Traffic) -> Cube:
    """The packets that open a connection of this traffic."""
    terms: dict[Field, Ranges] = {}
    if traffic.protocols is not None:
        terms[Field.L4PROTO] = traffic.protocols
    if traffic.ports is not None:
        terms[Field.DPORT] = traffic.ports
    if traffic.icmp_types is not None:
        assert traffic.protocols is not None
        terms[ICMP_FIELDS[traffic.protocols]] = traffic.icmp_types
    return Cube.of(terms)


ICMP_FIELDS = {Ranges.of(1): Field.ICMP_TYPE, Ranges.of(58): Field.ICMPV6_TYPE}
