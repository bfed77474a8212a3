"""Which packets two ends of a rule mean, path by path; knows no states and no actions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from policylang.ir.stages import Path
from policylang.lower.address_tests import AddressTests
from policylang.lower.conditions import on_path
from policylang.model.translations import Treatment
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    DynamicEnd,
    End,
    EndElement,
    EndList,
    Group,
    GroupEnd,
    HostEnd,
    IpsecEnd,
    PolicyRule,
    PublishedEnd,
    SelfEnd,
    SuffixEnd,
    Traffic,
    Zone,
    ZoneEnd,
)
from policylang.packets.cube import EMPTY, EVERYTHING, Cube
from policylang.packets.fields import AddressType, Field
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import Ranges, parse_address

LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Side:
    """The fields that describe one end of a packet.

    `asked_by` is the group by which a machine was addressed that now sends from an address of
    its own.
    """

    interface: Field
    address: Field
    asked_by: Group | None = None

    @property
    def is_source(self) -> bool:
        return self.address is Field.SADDR


SOURCE = Side(Field.IIF, Field.SADDR)
DESTINATION = Side(Field.OIF, Field.DADDR)


@dataclass(frozen=True, slots=True)
class Reach:
    """What an end means: packets of this host, and packets of other machines.

    `passed` are those of others that this host may pass on to others.
    """

    own: PacketSet
    others: PacketSet
    passed: PacketSet


def multicast() -> Ranges:
    """224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291)."""
    return Ranges.merged(r for t in ("224.0.0.0/4", "ff00::/8") if (r := parse_address(t)))


@dataclass(frozen=True, slots=True)
class Places:
    """Tells which packets two ends mean.

    `tests` are the numbers of the policy's questions, `zones` all of its zones.
    """

    tests: AddressTests
    zones: tuple[Zone, ...] = ()

    def between(
        self, source: End, destination: End, *, is_whole: bool = False
    ) -> dict[Path, tuple[Cube, ...]]:
        """The packets from one end to the other, by the path that they take.

        From this host to itself they take the loopback interface, which no rule is about. What
        is published counts as nobody here: `published` has it. Unless `is_whole`, what goes between
        hosts of the policy is left out where this one is no gateway between them.

        INVARIANT: what denies, or has packets inspected, is whole: it is never narrowed by what
        this host is thought not to pass on.
        """
        goal = self.reach(End(tuple(map(_unpublished, destination.lists))), DESTINATION)
        start = self.reach(source, SOURCE)
        found = {
            Path.INPUT: start.others & goal.own,
            Path.FORWARD: start.passed & goal.passed,
            Path.OUTPUT: start.own & goal.others,
        }
        if is_whole:
            found[Path.FORWARD] = start.others & goal.others
        elif _names_hosts(source) and _names_hosts(destination):
            found[Path.FORWARD] = PacketSet.of(
                cube for cube in found[Path.FORWARD] if not self._is_next_door(cube)
            )
        return {
            path: compact(on_path(cube, path) for cube in cubes) for path, cubes in found.items()
        }

    def _is_next_door(self, cube: Cube) -> bool:
        """Whether both ends are behind one and the same interface: then this is no way for them."""
        return any(
            zone.networks is not None
            and zone.interfaces is not None
            and zone.interfaces.single is not None
            and zone.networks.covers(cube[Field.SADDR])
            and zone.networks.covers(cube[Field.DADDR])
            for zone in self.zones
        )

    def published(self, source: End, destination: End) -> tuple[Cube, ...]:
        """The forwarded packets to what another tool publishes; it has one of the lists, at least.

        What is spoken of is then what the client dialled (`dialled_cube`).
        """
        found: list[Cube] = []
        start: PacketSet | None = None
        for number, one in enumerate(destination.lists):
            published = tuple(e for e in one.elements if isinstance(e, PublishedEnd))
            if published:
                start = start or self.reach(source, SOURCE).others
                lists = list(destination.lists)
                lists[number] = replace(one, elements=published)
                found += start & self.reach(End(tuple(lists)), DESTINATION).others
        return compact(found)

    def reach(self, end: End, side: Side) -> Reach:
        """The packets that have `end` on `side`: what all of its lists name.

        An end that names groups and sends is whoever answers to one of them.
        """
        if side is SOURCE and any(isinstance(e, GroupEnd) for one in end.lists for e in _all(one)):
            own = others = passed = PacketSet()
            for group in (None, *Group):
                found = self._reach(end, replace(SOURCE, asked_by=group))
                own, others = own | found.own, others | found.others
                passed |= found.passed
            return Reach(own, others, passed)
        return self._reach(end, side)

    def _reach(self, end: End, side: Side) -> Reach:
        says_self = any(isinstance(e, SelfEnd) for one in end.lists for e in one.elements)
        own = others = passed = PacketSet((EVERYTHING,))
        for one in end.lists:
            own &= self._own(one, side, says_self)
            met = self._others(one, side)
            others &= met
            stays = tuple(e for e in one.elements if not _stays(e))
            if len(stays) == len(one.elements):
                passed &= met
            else:
                passed &= self._others(replace(one, elements=stays), side)
        return Reach(own, others, passed)

    def _others(self, one: EndList, side: Side) -> PacketSet:
        named = PacketSet.of(compact(self.cube(e, side) for e in one.elements))
        taken = PacketSet.of(compact(self.cube(e, side) for e in one.exceptions))
        return named - taken

    def _own(self, one: EndList, side: Side, says_self: bool) -> PacketSet:
        named: list[Cube] = []
        for element in one.elements:
            if isinstance(element, (AnyEnd, SelfEnd)):
                named.append(EVERYTHING)
            elif isinstance(element, HostEnd):
                named.append(_own_cube(element, side))
            elif says_self and _may_be_own(element):
                named.append(self.cube(element, side))
        taken: list[Cube] = []
        for element in one.exceptions:
            if isinstance(element, (AnyEnd, SelfEnd)):
                taken.append(EVERYTHING)
            elif isinstance(element, HostEnd):
                taken.append(_own_cube(element, side))
            elif _may_be_own(element):
                taken.append(self.cube(element, side))
        return PacketSet.of(compact(named)) - PacketSet.of(compact(taken))

    def cube(self, element: EndElement, side: Side) -> Cube:
        """The packets that have another machine of `element` on `side`."""
        match element:
            case AnyEnd():
                return EVERYTHING
            case SelfEnd():
                return Cube.of({side.address: Ranges()})
            case ZoneEnd():
                cube = zone_cube(element.zone, side)
            case AddressEnd():
                cube = Cube.of({side.address: element.addresses})
            case HostEnd():
                cube = Cube.of({side.address: element.others})
            case GroupEnd():
                cube = _group_cube(element.group, side)
            case DynamicEnd() | SuffixEnd():
                cube = self.tests.cube(element, side.address)
            case IpsecEnd():
                # What goes back into a tunnel is not told here, so it is left out.
                cube = Cube.of({Field.IPSEC: Ranges.of(1)}) if side.is_source else EMPTY
            case PublishedEnd():
                cube = _published_cube(element) if not side.is_source else EMPTY
        for zone in element.within:
            cube &= zone_cube(zone, side)
        return cube


def names_hosts(statement: PolicyRule | Treatment) -> bool:
    """Whether an end of a statement names hosts: it may well be about others than this one."""
    ends = (getattr(statement, field.name) for field in fields(statement))
    return any(_names_hosts(end) for end in ends if isinstance(end, End))


def _names_hosts(end: End) -> bool:
    return any(isinstance(element, HostEnd) for one in end.lists for element in one.elements)


def _may_be_own(element: EndElement) -> bool:
    """Whether an element names its addresses whoever has them, this host too."""
    return not isinstance(element, (AnyEnd, SelfEnd, ZoneEnd, PublishedEnd)) and not element.within


def _own_cube(element: HostEnd, side: Side) -> Cube:
    """The packets of this host under those of its addresses by which the policy names it."""
    return EMPTY if element.within else Cube.of({side.address: element.own})


def _stays(element: EndElement) -> bool:
    """Whether an element is another host of the policy for which this one is no gateway."""
    return isinstance(element, HostEnd) and not element.is_passed


def _unpublished(one: EndList) -> EndList:
    elements = tuple(e for e in one.elements if not isinstance(e, PublishedEnd))
    return one if len(elements) == len(one.elements) else replace(one, elements=elements)


def _all(one: EndList) -> tuple[EndElement, ...]:
    return (*one.elements, *one.exceptions)


def zone_cube(zone: Zone, side: Side) -> Cube:
    """The packets that have a machine of a zone on one side."""
    terms: dict[Field, Ranges] = {}
    if zone.interfaces is not None:
        terms[side.interface] = zone.interfaces
    if zone.networks is not None:
        terms[side.address] = zone.networks
    return Cube.of(terms)


def _group_cube(group: Group, side: Side) -> Cube:
    if side.is_source and side.asked_by is not group:
        return EMPTY
    if group is Group.MULTICAST:
        return EVERYTHING if side.is_source else Cube.of({side.address: multicast()})
    broadcast = {} if side.is_source else {Field.DADDR_TYPE: Ranges.of(AddressType.BROADCAST)}
    return Cube.of({Field.FAMILY: Ranges.of(4), **broadcast})


def _published_cube(element: PublishedEnd) -> Cube:
    terms = {Field.DNATED: Ranges.of(1)}
    if element.ports is not None:
        terms[Field.ORIG_DPORT] = element.ports
    if element.addresses is not None:
        terms[Field.ORIG_DADDR] = element.addresses
    return Cube.of(terms)


def dialled_cube(traffic: Traffic) -> Cube:
    """The packets that open a connection whose client dialled this traffic."""
    cube = traffic_cube(traffic)
    if traffic.ports is None:
        return cube
    return cube.without(Field.DPORT) & Cube.of({Field.ORIG_DPORT: traffic.ports})


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
