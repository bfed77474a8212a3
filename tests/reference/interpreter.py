"""Decides single packets by reading a policy as LANGUAGE.md does, one sentence after another.

It is slow and plain on purpose: it looks at one packet at a time, and knows no cubes, no
rulesets and nothing of how the compiler goes about it. Numbers such as "1.4" in comments and
reasons are paragraphs of LANGUAGE.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network

from policylang.model.policy import Default, InvalidPolicy, Policy, Protect, Protection
from policylang.model.translations import Netmap, PortForward, Redirect, TransparentProxying
from policylang.model.types import (
    AddressEnd,
    AddTo,
    Answer,
    AnyEnd,
    Conditions,
    Direction,
    DynamicEnd,
    End,
    EndElement,
    EndList,
    Expectation,
    Group,
    GroupEnd,
    HostEnd,
    IpsecEnd,
    ListedSet,
    Owners,
    PolicyRule,
    PublishedEnd,
    RejectWith,
    SelfEnd,
    Side,
    SuffixEnd,
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

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

# 7: link-local for neighbour discovery and 0.0.0.0 for DHCP stay; :: is IPv6's 0.0.0.0.
# The kernel's own choice of a mark is the compiler's; no policy of the tests has this bit.
PROXY_BIT = 1 << 31
LOOPBACK_NETWORKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

NEVER_FORGED = (ip_network("0.0.0.0/32"), ip_network("::/128"), ip_network("fe80::/10"))


@dataclass(frozen=True, slots=True)
class Dialled:
    """What the client dialled where its connection was sent elsewhere; `port` of what has ports."""

    address: Address
    port: int | None


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet as the firewall sees it on its way, tagged with what conntrack says of it.

    `iif` is None for what this host's own processes send, `oif` None for what is delivered to
    this host. `ports` are the source and the destination port where the protocol has any.
    `helper` is the one that predicted the connection, by the name that the kernel matches.
    `mac` is the sender's where the packet arrives, `user` and `group` are those of the process
    that sends it. With `is_reply` it travels against the way its connection was opened.
    `is_routed_back` tells whether an answer would leave by the interface by which it came.
    `dialled` is None unless the destination of its connection was translated; what this host
    sends has then, as `oif`, the way to what was dialled. With `is_proxied` it goes to a local
    proxy that stands for its destination, which shows in a bit of its `mark`: `PROXY_BIT`.
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
    source_type: AddressType = AddressType.UNICAST
    is_reply: bool = False
    is_routed_back: bool = True
    is_source_routed: bool = False
    is_in_ipsec: bool = False
    tcp_flags: int = SYN
    dscp: int = 0
    size: int = 60
    mark: int = 0
    mac: int | None = None
    user: int | None = None
    group: int | None = None
    dialled: Dialled | None = None
    is_proxied: bool = False

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
class Moment:
    """What else is the case when a packet comes.

    `members` are the addresses in dynamic sets, by the names of these; `now` is in UTC;
    `within_rates` tells whether all rates and numbers of connections are kept to.
    """

    members: Mapping[str, frozenset[Address]] = field(default_factory=dict)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    within_rates: bool = True


ANY_MOMENT = Moment()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a packet, and for which sentence's sake; `answer` where it is rejected.

    `adds` are the addresses that are put into dynamic sets, with the names of these.
    """

    accepted: bool
    because: str
    answer: Answer | None = None
    adds: frozenset[tuple[str, Address]] = frozenset()


def decide(policy: Policy, packet: Packet, moment: Moment = ANY_MOMENT) -> Verdict:
    """Return what LANGUAGE.md says of a packet."""
    if LOOPBACK in (packet.iif, packet.oif) and not _is_own_sent_elsewhere(packet):
        return Verdict(True, "1.6: loopback")
    for protect in policy.protections:
        if _keeps_out(protect, policy, packet, moment):
            because = f"7: {protect.span.place} {protect.protection}"
            return Verdict(False, because, None, _added(protect.adds, packet))
    match packet.state:
        case State.ESTABLISHED if not packet.is_echo_request:
            ban = _ban(policy, packet, moment)
            return Verdict(True, "1.3: established") if ban is None else _obey(ban, packet)
        case State.RELATED if _is_error(packet):
            return Verdict(True, "1.4: an error about a connection")
        case State.RELATED if _is_reset_of_reject(policy, packet):
            return Verdict(True, "4: `reject` answers")
        case State.RELATED if (rule := _rule_that_expects(policy, packet, moment)) is not None:
            return Verdict(True, f"1.4: expected by {_name(rule)}")
        case State.INVALID if packet.direction is not Direction.OUTBOUND:
            return _decide_invalid(policy, packet, moment)
        case _:
            # 1.2 new and untracked; 1.4 the rest of what is related; 1.6 echo requests, and
            # what is invalid on the way out
            return _decide_first(policy, packet, moment)


# --- the states ------------------------------------------------------------------------------


def _decide_first(policy: Policy, packet: Packet, moment: Moment) -> Verdict:
    """Read the rules as for the first packet of a connection (1.2)."""
    if policy.settings.essentials and _is_essential(packet):
        # 1.7: only a rule that names the ICMP type touches what IP needs.
        rule = _first_rule(policy, packet, moment, lambda traffic: traffic.names_icmp)
        return _obey(rule, packet) if rule else Verdict(True, "1.7: essential")
    statement = _first_allowing_or_not(policy, packet, moment)
    if isinstance(statement, PolicyRule):
        return _obey(statement, packet)
    if statement is not None:
        return Verdict(True, f"6: {_name(statement)}")
    default = policy.defaults[packet.direction]
    because = f"default {packet.direction}"
    return _verdict(default.verb, default.answer, default.adds, packet, because)


def _decide_invalid(policy: Policy, packet: Packet, moment: Moment) -> Verdict:
    """1.6: rules that name an ICMP type are read, then the setting decides."""
    rule = _first_rule(policy, packet, moment, lambda traffic: traffic.names_icmp)
    if rule is not None:
        return _obey(rule, packet)
    return Verdict(policy.settings.invalid is InvalidPolicy.ACCEPT, "1.6: invalid")


def _is_error(packet: Packet) -> bool:
    """1.4: an ICMP or ICMPv6 error about a tracked connection, and no redirect."""
    return packet.is_icmp and packet.icmp_type in ICMP_ERRORS[packet.protocol]


def _is_reset_of_reject(policy: Policy, packet: Packet) -> bool:
    """4: `reject` answers by a TCP reset, whatever the rules say of what this host sends."""
    deciders: tuple[PolicyRule | Default, ...] = (*policy.rules, *policy.defaults.values())
    answers = (decider.answer for decider in deciders)
    return (
        packet.direction is Direction.OUTBOUND
        and packet.protocol == TCP
        and packet.tcp_flags & RST == RST
        and any(answer is not None and answer.tcp is Answer.TCP_RESET for answer in answers)
    )


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


def helpers_due(policy: Policy, packet: Packet, moment: Moment = ANY_MOMENT) -> frozenset[str]:
    """1.5: the kernel's names of the helpers, one of which the connection gets.

    The packet is the first of a connection. None are due where the rule that lets it in asks
    for none, or for one that follows neither its protocol nor its family.
    """
    rule = _first_rule(policy, packet, moment, lambda traffic: True)
    if rule is None or rule.verb is not Verb.ALLOW:
        return frozenset()
    return frozenset(
        name
        for traffic in rule.what
        if traffic.helper is not None
        and describes(traffic, packet)
        and packet.family in traffic.helper.families
        for name, protocol in traffic.helper.assigns
        if protocol == packet.protocol
    )


# --- what a helper predicted -----------------------------------------------------------------


def _rule_that_expects(policy: Policy, packet: Packet, moment: Moment) -> Allowing | None:
    """1.4: a rule that asks for the helper which predicted this connection, between its ends.

    A rule for one family asks for helpers of that family; its other conditions are about the
    packet that opens the connection. `dnat` and `redirect` count as `allow`.
    """
    for rule in policy.statements:
        if not isinstance(rule, Allowing):
            continue
        if isinstance(rule, PolicyRule) and rule.verb is not Verb.ALLOW:
            continue
        if _holds(rule.conditions.families, packet.family):
            for traffic in rule.what:
                if _expects(policy, rule, traffic, packet, moment):
                    return rule
    return None


def _expects(
    policy: Policy, rule: Allowing, traffic: Traffic, packet: Packet, moment: Moment
) -> bool:
    helper = traffic.helper
    if helper is None or packet.helper is None or packet.helper not in helper.matches:
        return False
    as_client, as_server = _is_between(policy, rule, packet, moment)
    return any(
        _is_expected(traffic, e, packet, as_client=as_client, as_server=as_server)
        for e in helper.expects
    )


def _is_between(
    policy: Policy, rule: Allowing, packet: Packet, moment: Moment
) -> tuple[bool, bool]:
    """Whether a packet goes from the client to the server of a statement, or back.

    6: what is sent elsewhere is between the client and where it was sent.
    """
    sender, receiver = sender_of(packet, moment), receiver_of(packet, moment)
    match rule:
        case PolicyRule():
            as_client = names(rule.source, sender) and (
                names(rule.destination, receiver)
                or (
                    packet.direction is Direction.FORWARD
                    and _names_published(rule.destination, receiver, with_ports=False)
                )
            )
            return as_client, _answers(rule.destination, sender) and names(rule.source, receiver)
        case PortForward():
            clients = with_hairpin(rule, policy.zones)
            to_target = number_of(packet.destination) in rule.targets and not receiver.is_self
            from_target = number_of(packet.source) in rule.targets and not sender.is_self
            return (
                names(clients, sender) and to_target,
                from_target and names(clients, receiver),
            )
        case Redirect():
            return (
                names(rule.source, sender) and receiver.is_self and not sender.is_self,
                sender.is_self and names(rule.source, receiver) and not receiver.is_self,
            )
        case TransparentProxying():
            # The proxy has the address of the one that it stands for.
            stood_for = _stood_for(policy, packet.destination, moment)
            as_client = (
                receiver.is_self
                and names(rule.source, sender)
                and not sender.is_self
                and names(rule.destination, stood_for)
            )
            standing = _stood_for(policy, packet.source, moment)
            as_server = (
                sender.is_self
                and names(rule.destination, standing)
                and names(rule.source, receiver)
                and not receiver.is_self
            )
            return as_client, as_server


def _is_expected(
    traffic: Traffic,
    expectation: Expectation,
    packet: Packet,
    *,
    as_client: bool,
    as_server: bool,
) -> bool:
    if packet.protocol not in expectation.protocols:
        return False
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
    policy: Policy, packet: Packet, moment: Moment, counts: Callable[[Traffic], bool]
) -> PolicyRule | None:
    """1.2: the first rule that matches by something in its list that counts."""
    for rule in policy.rules:
        if _matches(policy, rule, packet, moment, counts):
            return rule
    return None


def _first_allowing_or_not(policy: Policy, packet: Packet, moment: Moment) -> Allowing | None:
    """6: `dnat` and `redirect` allow what they translate, at their place among the rules."""
    for rule in policy.statements:
        if isinstance(rule, PolicyRule):
            if _matches(policy, rule, packet, moment, lambda traffic: True):
                return rule
        elif isinstance(rule, Allowing) and has_sent(policy, rule, packet, moment):
            return rule
    return None


def _matches(
    policy: Policy,
    rule: PolicyRule,
    packet: Packet,
    moment: Moment,
    counts: Callable[[Traffic], bool],
) -> bool:
    return (
        _is_about(policy, rule, packet, moment, tuple(t for t in rule.what if counts(t)))
        and names(rule.source, _met_by(rule, sender_of(packet, moment)))
        and meets(rule.conditions, packet, moment)
    )


def _met_by(rule: PolicyRule, machine: Machine) -> Machine:
    """9: what hosts are not let through holds for rules that allow; others hold everywhere."""
    return machine if rule.verb is Verb.ALLOW else replace(machine, is_passed=False)


def _is_about(
    policy: Policy,
    rule: PolicyRule,
    packet: Packet,
    moment: Moment,
    what: tuple[Traffic, ...],
) -> bool:
    """Whether a packet is what a rule speaks of, and goes where it says.

    With `published` as the destination, what is spoken of is what the client dialled.
    """
    receiver = _met_by(rule, receiver_of(packet, moment))
    if _is_own_sent_elsewhere(packet):
        if packet.destination_type is AddressType.LOCAL:
            return False  # from this host to itself
        receiver = replace(receiver, all_zones=policy.zones)
    if any(describes(t, packet) for t in what) and names(rule.destination, receiver):
        return True
    return (
        packet.direction is Direction.FORWARD
        and any(describes(t, _as_dialled(packet)) for t in what)
        and _names_published(rule.destination, receiver)
    )


def _as_dialled(packet: Packet) -> Packet:
    """The packet with the destination port that the client dialled."""
    if packet.dialled is None or packet.ports is None or packet.dialled.port is None:
        return packet
    return replace(packet, ports=(packet.ports[0], packet.dialled.port))


def _is_own_sent_elsewhere(packet: Packet) -> bool:
    """Whether this host sent a packet that goes elsewhere than it was dialled."""
    return packet.direction is Direction.OUTBOUND and packet.dialled is not None


def describes(traffic: Traffic, packet: Packet) -> bool:
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
    return _verdict(rule.verb, rule.answer, rule.adds, packet, _name(rule))


def _verdict(
    verb: Verb,
    answer: RejectWith | None,
    adds: tuple[AddTo, ...],
    packet: Packet,
    because: str,
) -> Verdict:
    added = _added(adds, packet)
    if verb is Verb.ALLOW:
        return Verdict(True, because, None, added)
    if verb is Verb.DENY:
        return Verdict(False, because, None, added)
    told = answer or RejectWith()
    return Verdict(False, because, told.tcp if packet.protocol == TCP else told.other, added)


def _added(adds: tuple[AddTo, ...], packet: Packet) -> frozenset[tuple[str, Address]]:
    ends = {Side.SOURCE: packet.source, Side.DESTINATION: packet.destination}
    return frozenset((add.set.name, ends[add.side]) for add in adds)


def _name(rule: Allowing) -> str:
    return f"{rule.span.place} {rule.span.text}"


# --- what is sent elsewhere ------------------------------------------------------------------

Elsewhere = PortForward | Redirect | TransparentProxying
Allowing = PolicyRule | PortForward | Redirect | TransparentProxying


def has_sent(
    policy: Policy,
    rule: Elsewhere,
    packet: Packet,
    moment: Moment,
    sender: Machine | None = None,
) -> bool:
    """6: whether a packet is of a connection that a statement sends elsewhere, and so allows.

    Nothing tells afterwards whether the address that was dialled was one of this host's, or
    whether some other tool gave it another one of the ports that the statement leaves as they are.
    """
    sender = sender or sender_of(packet, moment)
    met = packet
    if isinstance(rule, TransparentProxying):
        met = replace(packet, mark=packet.mark & ~PROXY_BIT)
    if not meets(rule.conditions, met, moment):
        return False
    if isinstance(rule, TransparentProxying):
        stood_for = _stood_for(policy, packet.destination, moment)
        return (
            packet.is_proxied
            and packet.direction is Direction.INBOUND
            and packet.protocol in (TCP, UDP)
            and any(describes(traffic, packet) for traffic in rule.what)
            and names(rule.source, sender)
            and names(rule.destination, stood_for)
        )
    if packet.dialled is None:
        return False
    asked = _as_dialled(packet)
    port = None if packet.ports is None else packet.ports[1]
    if not any(
        describes(t, asked)
        and (new_port(t, rule, asked) == port or (_keeps_ports(t, rule) and describes(t, packet)))
        for t in rule.what
    ):
        return False
    if isinstance(rule, PortForward):
        return (
            packet.direction is not Direction.INBOUND
            and not _is_mapped(policy, rule, packet, moment, sender)
            and number_of(packet.destination) in rule.targets
            and names(with_hairpin(rule, policy.zones), sender)
            and (rule.at is None or is_dialled(rule.at, packet.dialled.address, policy.zones))
        )
    if packet.direction is Direction.FORWARD or not names(rule.source, sender):
        return False
    if _is_mapped(policy, rule, packet, moment, sender):
        return False
    if packet.direction is Direction.OUTBOUND:
        # Its way out is known, and what it goes to now is on this host.
        meant = Machine(packet.oif, packet.dialled.address, sets=frozenset())
        is_here = packet.destination in (network[0] for network in REDIRECTED_TO)
        return is_here and packet.oif != LOOPBACK and names(rule.destination, meant)
    to_other = Machine("", packet.dialled.address, all_zones=policy.zones)
    to_self = Machine(None, packet.dialled.address)
    return names(rule.destination, to_other) or names(rule.destination, to_self)


def _is_mapped(
    policy: Policy,
    rule: PortForward | Redirect,
    packet: Packet,
    moment: Moment,
    sender: Machine,
) -> bool:
    """Whether a `netmap` may have sent the connection where it goes, which allows nothing.

    One above has had all that was dialled at its addresses, unless a mark or the time decides.
    That one, and one below, where it depends on whether the address was this host's, lead each
    address to the one that it stands for, on the same port.
    """
    if packet.dialled is None or packet.direction is Direction.OUTBOUND:
        return False
    dialled, goes_to = number_of(packet.dialled.address), number_of(packet.destination)
    is_above, port = True, None if packet.ports is None else packet.ports[1]
    for statement in policy.treatments:
        # What is known of a connection may be less than the statement asks for.
        if statement.span == rule.span:
            is_above = False
        if not isinstance(statement, Netmap):
            continue
        (low, high), inner = statement.outer, statement.inner
        asked = replace(statement.conditions, mark=None, hours=None, until=None)
        if (
            low <= dialled <= high
            and inner[0] <= goes_to <= inner[1]
            and names(statement.on, sender)
            and meets(asked, packet, moment)
        ):
            is_its_own = dialled - low == goes_to - inner[0] and packet.dialled.port == port
            if is_above and (asked == statement.conditions or is_its_own):
                return True
            if not is_above and is_its_own and _depends_on_self(policy, rule, packet):
                return True
    return False


def _depends_on_self(policy: Policy, rule: PortForward | Redirect, packet: Packet) -> bool:
    """Whether what was dialled is a statement's own for whose address it was, not for itself."""
    assert packet.dialled is not None
    if isinstance(rule, Redirect):
        return not all(
            isinstance(e, AnyEnd) for one in rule.destination.lists for e in one.elements
        )
    if rule.at is None:
        return True
    by_address = (
        replace(
            one,
            elements=tuple(e for e in one.elements if not isinstance(e, (SelfEnd, ZoneEnd))),
        )
        for one in rule.at.lists
    )
    if any(isinstance(e, (SelfEnd, ZoneEnd)) for one in rule.at.lists for e in one.exceptions):
        return True
    return not is_dialled(End(tuple(by_address)), packet.dialled.address, policy.zones)


REDIRECTED_TO = (ip_network("127.0.0.1/32"), ip_network("::1/128"))


def new_port(traffic: Traffic, rule: PortForward | Redirect, packet: Packet) -> int | None:
    """The port that a connection goes to: its own, one for all, or the one at its place."""
    port = None if packet.ports is None else packet.ports[1]
    if traffic.ports is None or rule.ports is None or port is None:
        return port
    low, high = rule.ports
    return low if low == high else low + port - traffic.ports.pairs[0][0]


def _keeps_ports(traffic: Traffic, rule: PortForward | Redirect) -> bool:
    return rule.ports is None or traffic.ports in (None, Ranges((rule.ports,)))


def with_hairpin(rule: PortForward, zones: tuple[Zone, ...]) -> End:
    """6: `hairpin` makes it work from the other zones as well, whose hosts `from` does not name."""
    if not rule.is_hairpin:
        return rule.source
    (written,) = rule.source.lists
    named = written.elements
    others = [ZoneEnd(z) for z in zones if not any(_is_some_of(e, z) for e in named)]
    return End((replace(written, elements=(*named, *others)),))


def _is_some_of(element: EndElement, zone: Zone) -> bool:
    """Whether an element may name some machines of a zone."""
    match element:
        case AnyEnd() | SelfEnd():
            return False
        case ZoneEnd(within=within):
            return zone in within
        case AddressEnd(addresses, ()) | HostEnd(others=addresses, within=()):
            return zone.networks is None or zone.networks.meets(addresses)
        case _:
            return not element.within or zone in element.within


def is_dialled(at: End, address: Address, zones: tuple[Zone, ...]) -> bool:
    """6: whether `at` names an address, whoever has it; of this host's own nothing is told."""
    other = Machine("", address, all_zones=zones)
    if any(isinstance(e, HostEnd) for one in at.lists for e in one.elements):
        # 9: a host dials under its name what is this host's
        (written,) = at.lists
        return any(isinstance(e, HostEnd) and number_of(address) in e.own for e in written.elements)
    return all(
        any(isinstance(e, SelfEnd) or _is_element(e, other, True) for e in written.elements)
        and not any(
            not isinstance(e, (SelfEnd, ZoneEnd)) and _is_element(e, other, True)
            for e in written.exceptions
        )
        for written in at.lists
    )


# --- conditions ------------------------------------------------------------------------------


def meets(conditions: Conditions, packet: Packet, moment: Moment) -> bool:
    """4: all of them hold; what is not known of a packet is not what a condition asks for."""
    sent_from = None if packet.ports is None else packet.ports[0]
    mark, ipsec = conditions.mark, conditions.ipsec
    return (
        _holds(conditions.families, packet.family)
        and _holds(conditions.macs, packet.mac)
        and _holds(conditions.source_ports, sent_from)
        and _holds(conditions.dscp, packet.dscp)
        and _holds(conditions.sizes, packet.size)
        and (ipsec is None or ipsec is packet.is_in_ipsec)
        and (mark is None or packet.mark & mark.mask == mark.value)
        and _is_by(conditions.users, packet.user)
        and _is_by(conditions.groups, packet.group)
        and _is_time(conditions, moment)
        and _is_counted_in(conditions, moment)
    )


def _is_by(owners: Owners | None, number: int | None) -> bool:
    return owners is None or (number is not None and number in owners.ids)


def _is_time(conditions: Conditions, moment: Moment) -> bool:
    now, hours, until = moment.now, conditions.hours, conditions.until
    week_s = ((now.weekday() * 24 + now.hour) * 60 + now.minute) * 60 + now.second
    if hours is not None and week_s not in hours.week_s:
        return False
    return until is None or now.date() <= until.last_day


def _is_counted_in(conditions: Conditions, moment: Moment) -> bool:
    counts = (conditions.limit, conditions.connections)
    return all(count is None or moment.within_rates is not count.over for count in counts)


def _is_known(rule: PolicyRule) -> bool:
    """Whether a rule's rates tell of open connections what they said of the first packet."""
    counts = [c for c in (rule.conditions.limit, rule.conditions.connections) if c is not None]
    return not counts or (rule.verb is Verb.ALLOW and not any(count.over for count in counts))


# --- open connections ------------------------------------------------------------------------


def _ban(policy: Policy, packet: Packet, moment: Moment) -> PolicyRule | None:
    """4: the rule with `also established` that holds for a packet of an open connection.

    The packet is judged as its first packet would be, as far as it tells. Of the first packet an
    answer tells the family, the addresses, the ports and the interfaces. Where a ban asks for
    more it leaves the answers alone; where an earlier rule asks for more, it may well have
    decided the connection, which then stays. An `allow` up to a rate or a count decided what is
    open. What other rates said of the first packet nobody knows: they keep no ban away.
    """
    for rule in policy.statements:
        if isinstance(rule, PolicyRule) and rule.also_established:
            if _bans(policy, rule, packet, moment):
                return rule
        elif isinstance(rule, PolicyRule):
            if _is_known(rule) and _may_have_decided(policy, rule, packet, moment):
                return None
        elif isinstance(rule, Allowing) and _may_have_sent(policy, rule, packet, moment):
            return None
    return None


def _bans(policy: Policy, rule: PolicyRule, packet: Packet, moment: Moment) -> bool:
    first, what = packet, rule.what
    if packet.is_reply:
        first, what = _opening(packet), tuple(t for t in what if not t.names_icmp)
        if rule.conditions != _told_by_answers(rule.conditions, first):
            return False
    return (
        _is_about(policy, rule, first, moment, what)
        and all(names(rule.source, sender) for sender in _senders(packet, moment))
        and meets(rule.conditions, first, moment)
    )


def _may_have_decided(policy: Policy, rule: PolicyRule, packet: Packet, moment: Moment) -> bool:
    """Whether the first packet of a connection may have met a rule, for all that is known."""
    first, what = packet, rule.what
    told = replace(rule.conditions, sizes=None)  # later packets have others than the first one
    told = replace(told, limit=None, connections=None)
    if packet.is_reply:
        first, what = _opening(packet), tuple(replace(t, icmp_types=None) for t in what)
        told = _told_by_answers(told, first)
    return (
        _is_about(policy, rule, first, moment, what)
        and any(names(rule.source, sender) for sender in _senders(packet, moment))
        and meets(told, first, moment)
    )


def _may_have_sent(policy: Policy, rule: Elsewhere, packet: Packet, moment: Moment) -> bool:
    """Whether a connection may have been sent elsewhere by a statement, for all that is known."""
    first, what = packet, rule.what
    told = replace(rule.conditions, sizes=None)
    if packet.is_reply:
        first, what = _opening(packet), tuple(replace(t, icmp_types=None) for t in what)
        told = _told_by_answers(told, first)
        if isinstance(rule, TransparentProxying):
            first = replace(first, is_proxied=True)  # an answer does not tell
    known = replace(rule, what=what, conditions=told)
    return any(
        has_sent(policy, known, first, moment, sender) for sender in _senders(packet, moment)
    )


def _senders(packet: Packet, moment: Moment) -> tuple[Machine, ...]:
    """Who may have sent the first packet: an answer does not tell whether that was in IPsec."""
    if not packet.is_reply:
        return (sender_of(packet, moment),)
    sender = sender_of(_opening(packet), moment)
    return (sender, replace(sender, is_in_ipsec=not sender.is_self))


def _opening(answer: Packet) -> Packet:
    """The first packet of the connection that an answer belongs to, as far as that tells."""
    return Packet(
        answer.oif,
        answer.iif,
        answer.destination,
        answer.source,
        answer.protocol,
        None if answer.ports is None else (answer.ports[1], answer.ports[0]),
        dialled=answer.dialled,
    )


def _told_by_answers(conditions: Conditions, first: Packet) -> Conditions:
    """The conditions less those that an answer does not tell of the first packet.

    What this host itself sent came from no MAC address and out of no tunnel.
    """
    is_own = first.iif is None
    return Conditions(
        families=conditions.families,
        source_ports=conditions.source_ports,
        hours=conditions.hours,
        until=conditions.until,
        macs=conditions.macs if is_own else None,
        ipsec=conditions.ipsec if is_own else None,
    )


# --- protection ------------------------------------------------------------------------------


def _keeps_out(protect: Protect, policy: Policy, packet: Packet, moment: Moment) -> bool:
    """7: whether a packet is what a zone is protected from."""
    ways = list(_comes_from(protect.source, packet))
    if not ways:
        return False
    flags = packet.tcp_flags
    match protect.protection:
        case Protection.SPOOFING:
            return any(_is_forged(policy, packet, zone) for zone in ways)
        case Protection.BOGONS:
            return not _is_never_forged(packet) and number_of(packet.source) in policy.bogons
        case Protection.BAD_FLAGS:
            return packet.protocol == TCP and (
                _is_impossible(flags) or (packet.state is State.NEW and flags & (SYN | ACK) != SYN)
            )
        case Protection.SOURCE_ROUTING:
            return packet.is_source_routed
        case Protection.SYN_FLOOD:
            opens = packet.protocol == TCP and flags & (SYN | ACK | RST | FIN) == SYN
            return opens and not moment.within_rates


def _comes_from(end: End, packet: Packet) -> Iterator[Zone | None]:
    """The zones that a packet comes from by its interface, None for `any`.

    A zone without interfaces is told by its networks.
    """
    (written,) = end.lists
    if any(_arrives(e, packet) for e in written.exceptions):
        return
    for element in written.elements:
        if _arrives(element, packet):
            yield element.zone if isinstance(element, ZoneEnd) else None


def _arrives(element: EndElement, packet: Packet) -> bool:
    if packet.iif is None:
        return False
    match element:
        case AnyEnd():
            return True
        case ZoneEnd(zone=Zone(interfaces=None, networks=networks)):
            return _holds(networks, number_of(packet.source))
        case ZoneEnd(zone=zone):
            return _is_by_interface(zone, packet)
        case _:
            raise AssertionError("`protect` is about zones")


def _is_by_interface(zone: Zone, packet: Packet) -> bool:
    assert packet.iif is not None
    return zone.interfaces is not None and name_range(packet.iif)[0] in zone.interfaces


def _is_never_forged(packet: Packet) -> bool:
    return any(packet.source in network for network in NEVER_FORGED)


def _is_forged(policy: Policy, packet: Packet, comes_from: Zone | None) -> bool:
    """7: sources that are not routed back, are this host's, another zone's or not the zone's own.

    What came inside IPsec has another zone's addresses by right.
    """
    if _is_never_forged(packet):
        return False
    # A broadcast address is no machine's.
    own = (AddressType.LOCAL, AddressType.BROADCAST)
    if packet.source_type in own or not packet.is_routed_back:
        return True
    if packet.is_in_ipsec:
        return False
    source = number_of(packet.source)
    here = [zone for zone in policy.zones if _is_by_interface(zone, packet)]
    if any(zone.networks is not None and source in zone.networks for zone in here):
        return False  # a zone's own, even where networks of zones overlap
    for zone in policy.zones:
        claimed = zone.networks is not None and source in zone.networks
        if claimed and zone != comes_from and (here or zone.interfaces is not None):
            return True
    return bool(here) and all(zone.networks is not None for zone in here)


def _is_impossible(flags: int) -> bool:
    """RFC 9293 section 3.10: what no TCP sends."""
    together = [SYN | FIN, SYN | RST, FIN | RST]
    needs_ack = [FIN, PSH, URG]
    return (
        any(flags & pair == pair for pair in together)
        or any(flags & one and not flags & ACK for one in needs_ack)
        or not flags & (FIN | SYN | RST | PSH | ACK | URG)
    )


# --- ends ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Machine:
    """One of the two that a packet travels between; `interface` leads to it (None: this host).

    `group` is the one that it is addressed by, `sets` the dynamic sets that its address is in.
    `all_zones` are given where no interface is known, so that zones are told by addresses (6).
    `dialled` is what it was reached by, where that is something else. `is_passed`: this host is
    neither of the two.
    """

    interface: str | None
    address: Address
    group: Group | None = None
    sets: frozenset[str] = frozenset()
    is_in_ipsec: bool = False
    all_zones: tuple[Zone, ...] | None = None
    dialled: Dialled | None = None
    is_passed: bool = False

    @property
    def is_self(self) -> bool:
        return self.interface is None


def sender_of(packet: Packet, moment: Moment) -> Machine:
    sets = _sets_with(packet.source, moment)
    is_passed = packet.direction is Direction.FORWARD
    return Machine(packet.iif, packet.source, None, sets, packet.is_in_ipsec, is_passed=is_passed)


def _sets_with(address: Address, moment: Moment) -> frozenset[str]:
    return frozenset(name for name, held in moment.members.items() if address in held)


def _stood_for(policy: Policy, address: Address, moment: Moment) -> Machine:
    """Whom a proxy stands for: told before routing, by the address alone."""
    return Machine("", address, sets=_sets_with(address, moment), all_zones=policy.zones)


def receiver_of(packet: Packet, moment: Moment) -> Machine:
    group = None
    if any(packet.destination in network for network in MULTICAST):
        group = Group.MULTICAST
    elif packet.destination_type is AddressType.BROADCAST:
        group = Group.BROADCAST
    sets = _sets_with(packet.destination, moment)
    is_passed = packet.direction is Direction.FORWARD
    return Machine(
        packet.oif,
        packet.destination,
        group,
        sets,
        dialled=packet.dialled,
        is_passed=is_passed,
    )


def names(end: End, machine: Machine) -> bool:
    """Whether every list of an end names a machine, otherwise than as `published`."""
    return all(
        any(_is_element(e, machine, own) for e in written.elements)
        and not any(_is_exception(e, machine) for e in written.exceptions)
        for written, own in _with_self_of_others(end)
    )


def _names_published(end: End, machine: Machine, *, with_ports: bool = True) -> bool:
    """Whether every list of an end names a machine, one of them at least as `published`."""
    found = False
    for written, own in _with_self_of_others(end):
        published = any(_is_published(e, machine, with_ports) for e in written.elements)
        if not published and not any(_is_element(e, machine, own) for e in written.elements):
            return False
        if any(_is_exception(e, machine) for e in written.exceptions):
            return False
        found = found or published
    return found


def _is_published(element: EndElement, machine: Machine, with_ports: bool = True) -> bool:
    """Whether a machine is one that another tool forwards to, as an element says."""
    if not isinstance(element, PublishedEnd) or machine.dialled is None or machine.is_self:
        return False
    return (
        (not with_ports or _holds(element.ports, machine.dialled.port))
        and _holds(element.addresses, number_of(machine.dialled.address))
        and _is_in_all(element.within, machine)
    )


def _answers(end: End, sender: Machine) -> bool:
    """Whether an end named a machine that now sends: by its address, or by some group.

    Who was addressed by a broadcast or a multicast answers from an address of its own. An end
    that is narrowed to addresses, none of which is a multicast one, was addressed by none.
    """
    groups: list[Group | None] = [None]
    if sender.address.version == 4:
        groups.append(Group.BROADCAST)
    if all(_may_be_multicast(written) for written in end.lists):
        groups.append(Group.MULTICAST)
    return any(names(end, replace(sender, group=group)) for group in groups)


def _may_be_multicast(written: EndList) -> bool:
    groups = Ranges.merged((number_of(network[0]), number_of(network[-1])) for network in MULTICAST)
    return any(not isinstance(e, AddressEnd) or e.addresses.meets(groups) for e in written.elements)


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
                and number_of(machine.address) in addresses
                and _is_in_all(within, machine)
            )
        case GroupEnd(group, within):
            return (
                (own or not machine.is_self)
                and machine.group is group
                and _is_in_all(within, machine)
            )
        case DynamicEnd(ListedSet(addresses=held), within):
            return (
                (own or not machine.is_self)
                and number_of(machine.address) in held
                and _is_in_all(within, machine)
            )
        case DynamicEnd(held, within):
            return (
                (own or not machine.is_self)
                and held.name in machine.sets
                and _is_in_all(within, machine)
            )
        case SuffixEnd(value, mask, within):
            return (
                (own or not machine.is_self)
                and machine.address.version == 6
                and int(machine.address) & mask == value
                and _is_in_all(within, machine)
            )
        case IpsecEnd(within):
            is_inside = machine.is_in_ipsec and not machine.is_self
            return is_inside and _is_in_all(within, machine)
        case HostEnd(held, others, within, is_gateway):
            # 9: each host by its addresses; gateways alone pass on what goes between others
            if machine.is_self:
                return number_of(machine.address) in held and not within
            is_here = number_of(machine.address) in others and _is_in_all(within, machine)
            return is_here and (is_gateway or not machine.is_passed)
        case PublishedEnd():
            return False  # what is spoken of is another port then: `_names_published`


def _is_exception(element: EndElement, machine: Machine) -> bool:
    """Whether an exception takes a machine away, whoever it is; a zone is never this host."""
    match element:
        case GroupEnd(group, within):
            return machine.group is group and _is_in_all(within, machine)
        case AddressEnd() | DynamicEnd() | SuffixEnd():
            return _is_element(element, machine, True)
        case PublishedEnd():
            return _is_published(element, machine)
        case HostEnd():
            return _is_element(element, replace(machine, is_passed=False), False)
        case _:
            return _is_element(element, machine, False)


def _is_in_all(zones: tuple[Zone, ...], machine: Machine) -> bool:
    return all(_is_in(zone, machine) for zone in zones)


def _is_in(zone: Zone, machine: Machine) -> bool:
    """2: on one of its interfaces, with an address in its networks; both where both are given."""
    if machine.interface is None:
        return False
    if machine.all_zones is not None:
        return _is_in_by_address(zone, machine.address, machine.all_zones)
    return _holds(zone.interfaces, name_range(machine.interface)[0]) and _holds(
        zone.networks, number_of(machine.address)
    )


def _is_in_by_address(zone: Zone, address: Address, zones: tuple[Zone, ...]) -> bool:
    """6: a zone means its networks or, where it has none, every address in no other's networks."""
    if zone.interfaces is not None and not zone.interfaces:
        return False
    number = number_of(address)
    if zone.networks is not None:
        return number in zone.networks
    others = [z.networks for z in zones if z != zone and z.networks is not None]
    return not any(number in networks for networks in others)


def _holds(values: Ranges | None, value: int | None) -> bool:
    """1.9: absent means any, and empty means none; what a packet has not is in no values."""
    return values is None or (value is not None and value in values)


def number_of(address: Address) -> int:
    number = parse_one_address(str(address))
    assert number is not None
    return number
