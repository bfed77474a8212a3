"""`protect`: what is kept out before any rule is read, as early as it can be told.

Most of it can be told before conntrack sees a packet; what takes a connection's state to tell
comes right after.
"""

from __future__ import annotations

from collections.abc import Iterator

from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Chain, Rule
from policylang.lower.conditions import rate_guard
from policylang.lower.deciding import Decider, Decision
from policylang.lower.paths import LOOPBACK, SOURCE, zone_cube
from policylang.model.policy import Policy, Protect, Protection
from policylang.model.types import AnyEnd, End, EndElement, Verb, Zone, ZoneEnd
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    NAMES,
    TCP_ACK,
    TCP_FIN,
    TCP_PSH,
    TCP_RST,
    TCP_SYN,
    TCP_URG,
    AddressType,
    Field,
    State,
    with_flags,
)
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import Ranges, name_range, parse_address

# Sources that have no route and are not forged: machines without an address yet ask for one
# from 0.0.0.0 and ::, and neighbours are found from link-local addresses (RFC 4862).
UNROUTED = Ranges.merged(r for t in ("0.0.0.0", "::", "fe80::/10") if (r := parse_address(t)))

# (mask, flags): what no TCP sends. RFC 9293 section 3.10.
BAD_FLAGS = (
    (TCP_SYN | TCP_FIN, TCP_SYN | TCP_FIN),
    (TCP_SYN | TCP_RST, TCP_SYN | TCP_RST),
    (TCP_FIN | TCP_RST, TCP_FIN | TCP_RST),
    (TCP_FIN | TCP_ACK, TCP_FIN),
    (TCP_PSH | TCP_ACK, TCP_PSH),
    (TCP_URG | TCP_ACK, TCP_URG),
    (TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK | TCP_URG, 0),
)
# What opens a connection has SYN and no ACK.
NO_OPENING = ((TCP_SYN, 0), (TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK))
OPENING = (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN, TCP_SYN)

YES, NO = Ranges.of(1), Ranges.of(0)


def screens(policy: Policy) -> tuple[tuple[Rule, ...], tuple[Rule, ...], tuple[Chain, ...]]:
    """What is kept out before conntrack, what is kept out after it, and the chains of both."""
    early, late = Decider("screen"), Decider("screen-state")
    before: list[Rule] = []
    after: list[Rule] = []
    for protect in policy.protections:
        arriving = _arriving(protect.source)
        before += early.rules(_decision(protect), _stateless(protect, arriving, policy))
        if protect.protection is Protection.BAD_FLAGS:
            new = Cube.of({Field.CT_STATE: Ranges.of(State.NEW)})
            cubes = (a & new & _flags(*test) for a in arriving for test in NO_OPENING)
            after += late.rules(_decision(protect), tuple(cubes))
    return tuple(before), tuple(after), (*early.chains, *late.chains)


def source_names(policy: Policy) -> tuple[tuple[Ranges, str], ...]:
    """What readers call the sets of sources that `protect` asks for."""
    return ((policy.bogons - UNROUTED, "bogons"), (_all_but_unrouted(), "routed"))


def _decision(protect: Protect) -> Decision:
    guards = () if protect.rate is None else (rate_guard(protect.rate, over=True),)
    return Decision(
        Verb.DENY,
        protect.protection.value,
        (Origin(Why.PROTECTION, protect.span, protect.name),),
        log=protect.log,
        adds=protect.adds,
        guards=guards,
        is_counted=bool(guards),
    )


def _arriving(end: End) -> tuple[Cube, ...]:
    """The packets that arrive from an end; never those that this host sends to itself."""
    foreign = Cube.of({Field.IIF: NAMES - Ranges((name_range(LOOPBACK),))})
    found = PacketSet((foreign,))
    for one in end.lists:
        named = PacketSet.of(_incoming(e) for e in one.elements)
        taken = PacketSet.of(_incoming(e) for e in one.exceptions)
        found &= named - taken
    return found.cubes


def _incoming(element: EndElement) -> Cube:
    """Whatever comes by the interfaces of a zone: its networks are what may be forged."""
    match element:
        case AnyEnd():
            return EVERYTHING
        case ZoneEnd(zone=zone):
            return _by_interface(zone)
        case _:
            raise AssertionError(f"the model lets no {type(element).__name__} stand here")


def _by_interface(zone: Zone) -> Cube:
    if zone.interfaces is None:
        return zone_cube(zone, SOURCE)
    return Cube.of({Field.IIF: zone.interfaces})


def _stateless(protect: Protect, arriving: tuple[Cube, ...], policy: Policy) -> tuple[Cube, ...]:
    match protect.protection:
        case Protection.SPOOFING:
            return compact(c for cube in arriving for c in _forged(cube, policy))
        case Protection.BOGONS:
            sources = Cube.of({Field.SADDR: policy.bogons - UNROUTED})
            return compact(cube & sources for cube in arriving)
        case Protection.BAD_FLAGS:
            # No union of them: two tests of bits are not one.
            return tuple(cube & _flags(*test) for cube in arriving for test in BAD_FLAGS)
        case Protection.SOURCE_ROUTING:
            return compact(cube & Cube.of({Field.SOURCE_ROUTED: YES}) for cube in arriving)
        case Protection.SYN_FLOOD:
            return compact(cube & _flags(*OPENING) for cube in arriving)


def _flags(mask: int, flags: int) -> Cube:
    return Cube.of({Field.TCP_FLAGS: with_flags(mask, flags)})


def _forged(arriving: Cube, policy: Policy) -> Iterator[Cube]:
    """The packets whose source is not what it says."""
    routed = arriving & Cube.of({Field.SADDR: _all_but_unrouted()})
    # A broadcast address sends nothing, and targets differ in what its reverse path is.
    yield routed & Cube.of({Field.SADDR_TYPE: Ranges.of(AddressType.LOCAL, AddressType.BROADCAST)})
    yield routed & Cube.of({Field.REVERSE_PATH: NO})
    # What arrives inside IPsec has another zone's addresses and one zone's interface.
    plain = routed & Cube.of({Field.IPSEC: NO})
    known = [z for z in policy.zones if z.interfaces is not None]
    # A zone's own, even where networks of zones overlap.
    own = PacketSet.of(zone_cube(z, SOURCE) for z in known if z.networks is not None)
    for zone in policy.zones:
        if zone.networks is None:
            continue
        claimed = PacketSet.of([plain & Cube.of({Field.SADDR: zone.networks})])
        if zone.interfaces is not None:
            claimed -= PacketSet.of([Cube.of({Field.IIF: zone.interfaces})])
        elif plain.meets(zone_cube(zone, SOURCE)) and zone_cube(zone, SOURCE).covers(arriving):
            continue  # the zone itself, which has no other sign than its networks
        else:
            # What comes by an interface of no zone may well come from this one.
            claimed &= PacketSet.of(_by_interface(z) for z in known)
        yield from claimed - own
    yield from _outside(plain, policy)


def _outside(arriving: Cube, policy: Policy) -> Iterator[Cube]:
    """What comes by the interfaces of zones from an address that is in none of them."""
    known = [z for z in policy.zones if z.interfaces is not None]
    for zone in known:
        if zone.networks is None or zone.interfaces is None:
            continue
        here = PacketSet.of([arriving & Cube.of({Field.IIF: zone.interfaces})])
        for other in known:
            here -= PacketSet.of([zone_cube(other, SOURCE)])
        yield from here


def _all_but_unrouted() -> Ranges:
    everything = Ranges.merged(r for t in ("0.0.0.0/0", "::/0") if (r := parse_address(t)))
    return everything - UNROUTED
