"""Which packets two ends mean before they are routed, and when they leave.

Before routing, zones as destinations are told by addresses, and what this host receives by what
the routing table calls the destination. What leaves comes by one way, and this host's own is
told by its source. Knows no statement and no action.
"""

from __future__ import annotations

from policylang.ir.stages import Path
from policylang.lower.by_address import by_address
from policylang.lower.conditions import on_path
from policylang.lower.paths import DESTINATION, LOOPBACK, SOURCE, Places, Reach, multicast
from policylang.model.types import End, EndElement, HostEnd, SelfEnd, ZoneEnd
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ADDRESS_TYPES, NAMES, AddressType, Field
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import ADDRESSES, Ranges, name_range, parse_address

LOCAL = Ranges.of(AddressType.LOCAL)
NOT_LOCAL = ADDRESS_TYPES - LOCAL
# What the routing table calls the destinations of packets that this host receives.
DELIVERED = Ranges.of(AddressType.LOCAL, AddressType.BROADCAST, AddressType.MULTICAST)
PASSING = ADDRESS_TYPES - DELIVERED
NO_INTERFACE = 0  # the name of the interface by which this host's own packets came in
_LOOPBACK = Ranges.merged(r for t in ("127.0.0.0/8", "::1") if (r := parse_address(t)))
NOT_LOOPBACK = NAMES - Ranges((name_range(LOOPBACK),))


def arriving(
    places: Places, source: End, destination: End, *, is_tcp: bool = False
) -> dict[Path, tuple[Cube, ...]]:
    """The packets from one end to the other as they are told before routing, by their path.

    INPUT and FORWARD are disjoint, by the type of the destination. On OUTPUT the way out is
    known, and the interfaces of zones are read there; never what stays on this host. `is_tcp`
    says that they are all of TCP, of which nothing goes to several machines.
    """
    start = places.reach(source, SOURCE)
    goal = places.reach(by_address(destination, places.zones), DESTINATION)
    out = places.reach(destination, DESTINATION)
    return {
        Path.INPUT: compact(delivered(c, is_tcp=is_tcp) for c in start.others & goal.own),
        Path.FORWARD: compact(passing(c, is_tcp=is_tcp) for c in start.passed & goal.passed),
        Path.OUTPUT: compact(map(_sent, start.own & out.others)),
    }


def leaving(
    places: Places, source: End, destination: End, conditions: Cube = EVERYTHING
) -> tuple[Cube, ...]:
    """The packets from one end to the other as they are told when they leave, of any path.

    Others' packets and this host's own leave by one way, and are told apart by their source.
    """
    between = places.between(source, destination)
    others = (of_others(c & conditions) for c in between[Path.FORWARD])
    own = (
        on_path(c & conditions, Path.OUTPUT) & Cube.of({Field.SADDR_TYPE: LOCAL})
        for c in between[Path.OUTPUT]
    )
    return compact(map(_sent, (*others, *own)))


def dialled(places: Places, at: End | None) -> Reach:
    """The packets to addresses that a client dials: from this host (`own`), and from `others`.

    Addresses are meant whoever has them. None is any address of this host; from itself, that is
    not the loopback's.
    """
    met = PacketSet((Cube.of({Field.DADDR_TYPE: LOCAL}),))
    if at is not None:
        met = PacketSet((EVERYTHING,))
        for one in by_address(at, places.zones).lists:
            named = PacketSet.of(_dialled(places, element) for element in one.elements)
            taken = PacketSet.of(_excepted(places, element) for element in one.exceptions)
            met &= named - taken
    return Reach(PacketSet.of(map(_beyond_loopback, met)), met, met)


def delivered(cube: Cube, *, is_tcp: bool = False) -> Cube:
    """The packets of a cube that this host receives."""
    if Field.DADDR_TYPE in cube:
        return cube
    return cube & Cube.of({Field.DADDR_TYPE: LOCAL if is_tcp else DELIVERED})


def passing(cube: Cube, *, is_tcp: bool = False) -> Cube:
    """The packets of a cube that this host passes on: of a group's only where it is named."""
    is_group = Field.DADDR in cube and multicast().covers(cube[Field.DADDR])
    return cube & Cube.of({Field.DADDR_TYPE: NOT_LOCAL if is_tcp or is_group else PASSING})


def _dialled(places: Places, element: EndElement) -> Cube:
    match element:
        case SelfEnd():
            return Cube.of({Field.DADDR_TYPE: LOCAL})
        case ZoneEnd():
            return places.cube(element, DESTINATION) & Cube.of({Field.DADDR_TYPE: NOT_LOCAL})
        case HostEnd():
            return Cube.of({Field.DADDR: element.own})
        case _:
            return places.cube(element, DESTINATION)


def _excepted(places: Places, element: EndElement) -> Cube:
    """What is not dialled: a host's addresses wherever they are."""
    if isinstance(element, HostEnd):
        return Cube.of({Field.DADDR: element.own | element.others})
    return _dialled(places, element)


def _beyond_loopback(cube: Cube) -> Cube:
    if AddressType.LOCAL not in cube[Field.DADDR_TYPE]:
        return cube
    return cube & Cube.of({Field.DADDR: ADDRESSES - _LOOPBACK})


def _sent(cube: Cube) -> Cube:
    """The packets of a cube that leave this host; nothing is about what it sends to itself."""
    return cube & Cube.of({Field.OIF: NOT_LOOPBACK})


def of_others(cube: Cube) -> Cube:
    """The packets of a cube that other machines sent: those that came in by an interface."""
    if NO_INTERFACE not in cube[Field.IIF]:
        return cube
    return cube & Cube.of({Field.SADDR_TYPE: NOT_LOCAL})
