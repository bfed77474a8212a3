"""Decides single packets by reading a policy as LANGUAGE.md does, one sentence after another.

It is slow and plain on purpose: it looks at one packet at a time, and knows no cubes, no
rulesets and nothing of how the compiler goes about it. Numbers such as "1.4" in comments and
reasons are paragraphs of LANGUAGE.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network

from policylang.model.types import (
    AddressEnd,
    Answer,
    AnyEnd,
    Direction,
    End,
    EndElement,
    EndList,
    Expectation,
    Group,
    GroupEnd,
    InvalidPolicy,
    Policy,
    PolicyRule,
    RejectWith,
    SelfEnd,
    Traffic,
    Verb,
    Zone,
    ZoneEnd,
)
from policylang.packets.fields import (
    DCCP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    AddressType,
    State,
)
from policylang.packets.values import Ranges, name_range, parse_one_address

Address = IPv4Address | IPv6Address

LOOPBACK = "lo"
IGMP = 2
PROTOCOLS_WITH_PORTS = (TCP, UDP, DCCP, SCTP)
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
MULTICAST = (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))

# 1.4: destination unreachable, packet too big, time exceeded, parameter problem. Packet too
# big is a kind of destination unreachable in ICMP.
ICMP_ERRORS = {ICMP: (3, 11, 12), ICMPV6: (1, 2, 3, 4)}

# 1.7: router solicitation and advertisement, neighbour solicitation and advertisement; this
# host advertises no routes of its own. Then multicast listener query, report, done, report v2.
DISCOVERY_ARRIVING = (133, 134, 135, 136)
DISCOVERY_SENT = (133, 135, 136)
LISTENER_REPORTS = (130, 131, 132, 143)

EPHEMERAL = range(32768, 60999 + 1)
UNPRIVILEGED = range(1024, 65535 + 1)


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as the firewall sees it on its way, tagged with what conntrack says of it.

    `iif` is None for what this host's own processes send, `oif` None for what is delivered to
    this host. `ports` are the source and the destination port where the protocol has any.
    `helper` is the one that predicted the connection, by the name that the kernel matches.
    """

    iif: str | None
    oif: str | None
    source: Address
    destination: Address
    protocol: int
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
    hop_limit: int = 64
    state: State = State.NEW
    helper: str | None = None
    destination_type: AddressType = AddressType.UNICAST

    @property
    def family(self) -> int:
        return self.source.version

    @property
    def direction(self) -> Direction:
        if self.iif is None:
            return Direction.OUTBOUND
        return Direction.INBOUND if self.oif is None else Direction.FORWARD

    @property
    def is_icmp(self) -> bool:
        """ICMP within IPv4 or ICMPv6 within IPv6; the other way round it means nothing."""
        return (self.family, self.protocol) in ((4, ICMP), (6, ICMPV6))

    @property
    def is_echo_request(self) -> bool:
        return self.is_icmp and self.icmp_type == ECHO_REQUEST[self.protocol]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a packet, and for which sentence's sake; `answer` where it is rejected."""

    accepted: bool
    because: str
    answer: Answer | None = None


def decide(policy: Policy, packet: Packet) -> Verdict:
    """Return what LANGUAGE.md says of a packet."""
    if LOOPBACK in (packet.iif, packet.oif):
        return Verdict(True, "1.6: loopback")
    match packet.state:
        case State.ESTABLISHED if not packet.is_echo_request:
            return Verdict(True, "1.3: established")
        case State.RELATED if _is_error(packet):
            return Verdict(True, "1.4: an error about a connection")
        case State.RELATED if (rule := _rule_that_expects(policy, packet)) is not None:
            return Verdict(True, f"1.4: expected by {_name(rule)}")
        case State.INVALID if packet.direction is not Direction.OUTBOUND:
            return _decide_invalid(policy, packet)
        case _:
            # 1.2 new and untracked; 1.4 the rest of what is related; 1.6 echo requests, and
            # what is invalid on the way out
            return _decide_first(policy, packet)


# --- the states ------------------------------------------------------------------------------


def _decide_first(policy: Policy, packet: Packet) -> Verdict:
    """Read the rules as for the first packet of a connection (1.2)."""
    if policy.settings.essentials and _is_essential(packet):
        # 1.7: only a rule that names the ICMP type touches what IP needs.
        rule = _first_rule(policy, packet, lambda traffic: traffic.names_icmp)
        return _obey(rule, packet) if rule else Verdict(True, "1.7: essential")
    rule = _first_rule(policy, packet, lambda traffic: True)
    if rule is not None:
        return _obey(rule, packet)
    default = policy.defaults[packet.direction]
    return _verdict(default.verb, default.answer, packet, f"default {packet.direction}")


def _decide_invalid(policy: Policy, packet: Packet) -> Verdict:
    """1.6: rules that name an ICMP type are read, then the setting decides."""
    rule = _first_rule(policy, packet, lambda traffic: traffic.names_icmp)
    if rule is not None:
        return _obey(rule, packet)
    return Verdict(policy.settings.invalid is InvalidPolicy.ACCEPT, "1.6: invalid")


def _is_error(packet: Packet) -> bool:
    """1.4: an ICMP or ICMPv6 error about a tracked connection, and no redirect."""
    return packet.is_icmp and packet.icmp_type in ICMP_ERRORS[packet.protocol]


def _is_essential(packet: Packet) -> bool:
    """1.7: neighbour discovery, router advertisements to this host, IGMP and MLD reports."""
    if packet.direction is Direction.FORWARD:
        return False
    if packet.family == 4:
        return packet.protocol == IGMP
    if packet.protocol != ICMPV6:
        return False
    if packet.icmp_type in LISTENER_REPORTS:
        return True
    arrives = packet.direction is Direction.INBOUND
    discovery = DISCOVERY_ARRIVING if arrives else DISCOVERY_SENT
    return packet.icmp_type in discovery and packet.hop_limit == 255


# --- conntrack helpers -----------------------------------------------------------------------


def helpers_due(policy: Policy, packet: Packet) -> frozenset[str]:
    """1.5: the kernel's names of the helpers, one of which the connection gets.

    The packet is the first of a connection. None are due where the rule that lets it in asks
    for none, or for one that follows neither its protocol nor its family.
    """
    rule = _first_rule(policy, packet, lambda traffic: True)
    if rule is None or rule.verb is not Verb.ALLOW:
        return frozenset()
    return frozenset(
        name
        for traffic in rule.what
        if traffic.helper is not None
        and _describes(traffic, packet)
        and packet.family in traffic.helper.families
        for name, protocol in traffic.helper.assigns
        if protocol == packet.protocol
    )


# --- what a helper predicted -----------------------------------------------------------------


def _rule_that_expects(policy: Policy, packet: Packet) -> PolicyRule | None:
    """1.4: a rule that asks for the helper which predicted this connection, between its ends."""
    for rule in policy.rules:
        if rule.verb is Verb.ALLOW:
            for traffic in rule.what:
                if _expects(rule, traffic, packet):
                    return rule
    return None


def _expects(rule: PolicyRule, traffic: Traffic, packet: Packet) -> bool:
    helper = traffic.helper
    if helper is None or packet.helper is None or packet.helper not in helper.matches:
        return False
    return any(_is_expected(rule, traffic, e, packet) for e in helper.expects)


def _is_expected(
    rule: PolicyRule, traffic: Traffic, expectation: Expectation, packet: Packet
) -> bool:
    if packet.protocol not in expectation.protocols:
        return False
    sender, receiver = _sender(packet), _receiver(packet)
    as_client = _names(rule.source, sender) and _names(rule.destination, receiver)
    as_server = _answers(rule.destination, sender) and _names(rule.source, receiver)
    if expectation.by_client and as_client and _may_dial(traffic, packet, UNPRIVILEGED):
        return True
    to_own_client = packet.direction is Direction.INBOUND
    ports = EPHEMERAL if to_own_client else UNPRIVILEGED
    return expectation.by_server and as_server and _may_dial(traffic, packet, ports)


def _may_dial(traffic: Traffic, packet: Packet, otherwise: range) -> bool:
    """The service's `data` ports where it names some, `otherwise` where it does not."""
    if packet.protocol not in PROTOCOLS_WITH_PORTS:
        return True
    if packet.ports is None:
        return False
    port = packet.ports[1]
    return port in otherwise if traffic.data_ports is None else port in traffic.data_ports


# --- rules -----------------------------------------------------------------------------------


def _first_rule(
    policy: Policy, packet: Packet, counts: Callable[[Traffic], bool]
) -> PolicyRule | None:
    """1.2: the first rule that matches by something in its list that counts."""
    for rule in policy.rules:
        speaks_of_it = any(counts(t) and _describes(t, packet) for t in rule.what)
        if (
            speaks_of_it
            and _names(rule.source, _sender(packet))
            and _names(rule.destination, _receiver(packet))
        ):
            return rule
    return None


def _describes(traffic: Traffic, packet: Packet) -> bool:
    if traffic.protocols is not None and packet.protocol not in traffic.protocols:
        return False
    if traffic.icmp_types is not None:
        if not packet.is_icmp or packet.icmp_type is None:
            return False
        if packet.icmp_type not in traffic.icmp_types:
            return False
    if traffic.ports is not None:
        return packet.ports is not None and packet.ports[1] in traffic.ports
    return True


def _obey(rule: PolicyRule, packet: Packet) -> Verdict:
    return _verdict(rule.verb, rule.answer, packet, _name(rule))


def _verdict(verb: Verb, answer: RejectWith | None, packet: Packet, because: str) -> Verdict:
    if verb is Verb.ALLOW:
        return Verdict(True, because)
    if verb is Verb.DENY:
        return Verdict(False, because)
    told = answer or RejectWith()
    return Verdict(False, because, told.tcp if packet.protocol == TCP else told.other)


def _name(rule: PolicyRule) -> str:
    return f"{rule.span.place} {rule.span.text}"


# --- ends ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the two that a packet travels between; `interface` leads to it (None: this host).

    `group` is the one that it is addressed by.
    """

    interface: str | None
    address: Address
    group: Group | None = None

    @property
    def is_self(self) -> bool:
        return self.interface is None


def _sender(packet: Packet) -> Machine:
    return Machine(packet.iif, packet.source)


def _receiver(packet: Packet) -> Machine:
    group = None
    if any(packet.destination in network for network in MULTICAST):
        group = Group.MULTICAST
    elif packet.destination_type is AddressType.BROADCAST:
        group = Group.BROADCAST
    return Machine(packet.oif, packet.destination, group)


def _names(end: End, machine: Machine) -> bool:
    """Whether every list of an end names a machine."""
    return all(
        any(_is_element(e, machine, own) for e in written.elements)
        and not any(_is_exception(e, machine) for e in written.exceptions)
        for written, own in _with_self_of_others(end)
    )


def _answers(end: End, sender: Machine) -> bool:
    """Whether an end named a machine that now sends: by its address, or by some group.

    Who was addressed by a broadcast or a multicast answers from an address of its own.
    """
    return any(_names(end, replace(sender, group=group)) for group in (None, *Group))


def _with_self_of_others(end: End) -> Iterator[tuple[EndList, bool]]:
    """The lists, each with whether another one says `self`: its addresses may be this host's then.

    4: `inbound to A` and `traffic inbound { … to A }` are about own addresses; a list that says
    `self` beside other machines (`to self, lan`) is narrowed for both.
    """
    says_self = [any(isinstance(e, SelfEnd) for e in written.elements) for written in end.lists]
    for position, written in enumerate(end.lists):
        yield written, any(says_self[:position] + says_self[position + 1 :])


def _is_element(element: EndElement, machine: Machine, own: bool) -> bool:
    match element:
        case AnyEnd():
            return True
        case SelfEnd():
            return machine.is_self
        case ZoneEnd(zone, within):
            # 4: a zone, a set or an address as an end is another machine
            return _is_in_all((zone, *within), machine)
        case AddressEnd(addresses, within):
            return (
                (own or not machine.is_self)
                and _number(machine.address) in addresses
                and _is_in_all(within, machine)
            )
        case GroupEnd(group, within):
            return (
                (own or not machine.is_self)
                and machine.group is group
                and _is_in_all(within, machine)
            )


def _is_exception(element: EndElement, machine: Machine) -> bool:
    """Whether an exception takes a machine away, whoever it is; a zone is never this host."""
    match element:
        case GroupEnd(group, within):
            return machine.group is group and _is_in_all(within, machine)
        case AddressEnd():
            return _is_element(element, machine, True)
        case _:
            return _is_element(element, machine, False)


def _is_in_all(zones: tuple[Zone, ...], machine: Machine) -> bool:
    return all(_is_in(zone, machine) for zone in zones)


def _is_in(zone: Zone, machine: Machine) -> bool:
    """2: on one of its interfaces, with an address in its networks; both where both are given."""
    if machine.interface is None:
        return False
    return _holds(zone.interfaces, name_range(machine.interface)[0]) and _holds(
        zone.networks, _number(machine.address)
    )


def _holds(values: Ranges | None, value: int) -> bool:
    """1.9: absent means any, and empty means none."""
    return values is None or value in values


def _number(address: Address) -> int:
    number = parse_one_address(str(address))
    assert number is not None
    return number
