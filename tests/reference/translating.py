"""Says where the first packet of a connection is sent, and from where it seems to come (6).

The first statement that matches decides, in the order written. Like the interpreter, whose ends
and conditions it uses, it looks at one packet at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from policylang.model.policy import Policy
from policylang.model.translations import (
    Netmap,
    PortForward,
    Redirect,
    SourceTranslation,
    TransparentProxying,
)
from policylang.model.types import End, EndList, SelfEnd, Traffic, Zone, ZoneEnd
from policylang.packets.fields import FAMILY_ADDRESSES, TCP, UDP, AddressType
from policylang.packets.values import Range, Ranges
from tests.reference.interpreter import (
    LOOPBACK,
    LOOPBACK_NETWORKS,
    PROTOCOLS_WITH_PORTS,
    Machine,
    Moment,
    Packet,
    describes,
    has_sent,
    is_dialled,
    meets,
    names,
    new_port,
    number_of,
    receiver_of,
    sender_of,
    with_hairpin,
)

RECEIVED = (AddressType.LOCAL, AddressType.BROADCAST, AddressType.MULTICAST)


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a connection is sent: to one of `targets`, or to this host where that is None."""

    targets: Ranges | None
    port: int | None  # the destination port, changed or not, of what has one
    by_source: bool = False


@dataclass(frozen=True, slots=True)
class Seeming:
    """What a connection's source becomes: one of `addresses`, or that of the way out for None."""

    addresses: Ranges | None
    ports: Range | None = None
    is_random: bool = False
    is_persistent: bool = False


# --- before it is routed ------------------------------------------------------------------------


def proxied(policy: Policy, packet: Packet, moment: Moment) -> int | None:
    """The port of the local proxy that gets a packet in place of its receiver."""
    for statement in policy.treatments:
        if (
            isinstance(statement, TransparentProxying)
            and packet.iif is not None
            and packet.protocol in (TCP, UDP)
            and any(describes(traffic, packet) for traffic in statement.what)
            and names(statement.source, sender_of(packet, moment))
            and _is_for_others(packet, statement.what)
            and names(statement.destination, _met_before_routing(policy, packet, moment))
            and meets(statement.conditions, packet, moment)
        ):
            return statement.port
    return None


def sent(policy: Policy, packet: Packet, moment: Moment) -> Sent | None:
    """Where a packet's connection goes, None for where it was dialled."""
    for statement in policy.treatments:
        match statement:
            case PortForward() if _is_forwarded(policy, statement, packet, moment):
                targets = statement.targets & FAMILY_ADDRESSES[packet.family]
                return Sent(targets, _port(statement, packet), statement.by_source)
            case Redirect() if _is_redirected(policy, statement, packet, moment):
                return Sent(None, _port(statement, packet))
            case Netmap() if _is_mapped(statement, packet, moment):
                shift = statement.inner[0] - statement.outer[0]
                port = None if packet.ports is None else packet.ports[1]
                return Sent(Ranges.of(number_of(packet.destination) + shift), port)
            case _:
                pass
    return None


def _port(statement: PortForward | Redirect, packet: Packet) -> int | None:
    traffic = next(t for t in statement.what if describes(t, packet))
    return new_port(traffic, statement, packet)


def _is_forwarded(policy: Policy, statement: PortForward, packet: Packet, moment: Moment) -> bool:
    if not statement.targets.meets(FAMILY_ADDRESSES[packet.family]):
        return False
    if statement.at is None:
        dialled = packet.destination_type is AddressType.LOCAL
    else:
        dialled = _is_at(statement.at, packet, policy.zones)
    # What this host sends to its loopback stays there.
    stays = packet.iif is None and any(packet.destination in n for n in LOOPBACK_NETWORKS)
    return (
        dialled
        and not stays
        and any(describes(traffic, packet) for traffic in statement.what)
        and names(with_hairpin(statement, policy.zones), sender_of(packet, moment))
        and meets(statement.conditions, packet, moment)
    )


def _is_at(at: End, packet: Packet, zones: tuple[Zone, ...]) -> bool:
    """Whether `at` names what a packet is addressed to: zones are others', `self` is this host."""
    is_own = packet.destination_type is AddressType.LOCAL
    for written in at.lists:
        named = False
        for element in written.elements:
            one = End((EndList((element,)),))
            if isinstance(element, SelfEnd):
                named |= is_own
            elif isinstance(element, ZoneEnd):
                named |= not is_own and is_dialled(one, packet.destination, zones)
            else:
                named |= is_dialled(one, packet.destination, zones)
        for element in written.exceptions:
            one = End((EndList((element,)),))
            if isinstance(element, SelfEnd):
                named &= not is_own
            elif isinstance(element, ZoneEnd):
                named &= is_own or not is_dialled(one, packet.destination, zones)
            else:
                named &= not is_dialled(one, packet.destination, zones)
        if not named:
            return False
    return True


def _is_redirected(policy: Policy, statement: Redirect, packet: Packet, moment: Moment) -> bool:
    if packet.iif is None:
        # The way out is known. From this host to itself, nothing is about it.
        goes = packet.oif != LOOPBACK and names(statement.destination, receiver_of(packet, moment))
    else:
        goes = names(statement.destination, _met_before_routing(policy, packet, moment))
    return (
        goes
        and any(describes(traffic, packet) for traffic in statement.what)
        and names(statement.source, sender_of(packet, moment))
        and meets(statement.conditions, packet, moment)
    )


def _is_mapped(statement: Netmap, packet: Packet, moment: Moment) -> bool:
    low, high = statement.outer
    return (
        packet.iif is not None
        and low <= number_of(packet.destination) <= high
        and names(statement.on, sender_of(packet, moment))
        and meets(statement.conditions, packet, moment)
    )


def _met_before_routing(policy: Policy, packet: Packet, moment: Moment) -> Machine:
    """Who a packet is for that arrives: this host, or somebody told by the address alone."""
    receiver = receiver_of(packet, moment)
    if packet.destination_type in RECEIVED:
        return replace(receiver, interface=None)
    return replace(receiver, interface="", all_zones=policy.zones)


def _is_for_others(packet: Packet, what: tuple[Traffic, ...]) -> bool:
    if all(traffic.protocols == Ranges.of(TCP) for traffic in what):
        return packet.destination_type is not AddressType.LOCAL
    return packet.destination_type not in RECEIVED


# --- when it leaves -----------------------------------------------------------------------------


def seeming(policy: Policy, packet: Packet, moment: Moment) -> Seeming | None:
    """What the source of a packet becomes that leaves by `oif`; None where it stays.

    The destination is where it goes by now; what this host sends to itself stays as it is.
    """
    if packet.oif is None or packet.oif == LOOPBACK:
        return None
    sender, receiver = sender_of(packet, moment), receiver_of(packet, moment)
    for statement in policy.treatments:
        match statement:
            case SourceTranslation():
                if (
                    packet.family in statement.families
                    and any(describes(traffic, packet) for traffic in statement.what)
                    and names(statement.source, sender)
                    and names(statement.destination, receiver)
                    and meets(statement.conditions, packet, moment)
                ):
                    return _new_source(statement, packet)
            case Netmap():
                source, (low, high) = number_of(packet.source), statement.inner
                if (
                    low <= source <= high
                    and names(statement.on, receiver)
                    and meets(statement.conditions, packet, moment)
                ):
                    return Seeming(Ranges.of(source - low + statement.outer[0]))
            case PortForward(is_hairpin=True):
                ends = [End((EndList((ZoneEnd(zone),)),)) for zone in policy.zones]
                if (
                    packet.iif is not None
                    and any(names(end, sender) and names(end, receiver) for end in ends)
                    and has_sent(policy, statement, packet, moment)
                ):
                    return Seeming(None)
            case _:
                pass
    return None


def _new_source(statement: SourceTranslation, packet: Packet) -> Seeming:
    addresses = statement.addresses
    if addresses is not None:
        addresses = addresses & FAMILY_ADDRESSES[packet.family]
    return Seeming(
        addresses,
        statement.ports if packet.protocol in PROTOCOLS_WITH_PORTS else None,
        statement.is_random,
        statement.is_persistent,
    )
