"""Probes aimed at the edges of what a policy says.

The aim need not be good: what a probe is (its path, its state) is read off the kernel, and
what should become of it is the interpreter's business. Half of them are just beside the mark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

from policylang.model.policy import Policy, Protection
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    Conditions,
    Direction,
    DynamicEnd,
    End,
    EndElement,
    Group,
    GroupEnd,
    Helper,
    IpsecEnd,
    ListedSet,
    PolicyRule,
    PublishedEnd,
    SelfEnd,
    SuffixEnd,
    Traffic,
    Zone,
    ZoneEnd,
)
from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP
from policylang.packets.values import (
    V6_BASE,
    Ranges,
    format_address,
    name_range,
    parse_one_address,
)
from policylang.proving.octets import HAS_PORTS
from tests.differential.arena import ANCHORS, GROUPS, INTERFACES, OWN
from tests.differential.conntrack import Connection, Flow
from tests.differential.frames import (
    ACK,
    GRE,
    MARKS,
    MTU,
    OWNERS,
    PROBE_DSCPS,
    UNTRACKED_DSCPS,
    Probe,
    Quoted,
    packet_bytes,
)

Address = IPv4Address | IPv6Address

IGMP = 2
OWN_ADDRESSES = {
    version: [a.ip for pair in OWN.values() for a in pair if a.version == version]
    for version in (4, 6)
}
BROADCASTS = [ip_address("255.255.255.255")] + [
    a.network.broadcast_address for pair in OWN.values() for a in pair if a.version == 4
]
MULTICASTS = {
    version: [ip_address(a) for a in (*GROUPS, "224.0.0.1", "ff02::1", "ff02::2")
              if ip_address(a).version == version]
    for version in (4, 6)
}  # fmt: skip
ANCHORS_OF = {
    version: [n for a in ANCHORS if (n := ip_network(a)).version == version] for version in (4, 6)
}
PROTOCOLS = (TCP, TCP, TCP, UDP, UDP, SCTP, DCCP, ICMP, ICMPV6, IGMP, GRE, 50, 89, 0xFD)
# What conntrack calls new, errors, answers, and what the neighbours say to each other.
TYPES = {
    ICMP: (8, 0, 3, 5, 11, 12, 13, 14, 17, 9, 10),
    ICMPV6: (128, 129, 1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 137, 143, 139),
}
ESSENTIAL_TYPES = (130, 131, 132, 133, 134, 135, 136, 137, 143)
ERRORS = {4: (ICMP, (3, 4, 5, 11, 12)), 6: (ICMPV6, (1, 2, 3, 4, 137))}
LIMITS = (1023, 1024, 32767, 32768, 60999, 61000, 65535)
# Name the kernel knows -> protocol; the masters of predicted connections.
KERNEL_HELPERS = {
    "ftp": TCP,
    "tftp": UDP,
    "sip": UDP,
    "irc": TCP,
    "sane": TCP,
    "amanda": UDP,
    "pptp": TCP,
    "RAS": UDP,
    "Q.931": TCP,
    "netbios-ns": UDP,
    "snmp": UDP,
}
IPV4_HELPERS = ("irc", "pptp", "netbios-ns", "snmp")
MACS = (0x02_00_00_00_02_01, 0x52_54_00_12_34_56)  # those that policies speak of
MOST_MEMBERS = 12

Members = Mapping[str, frozenset[Address]]


@dataclass(slots=True)
class Volley:
    """Probes, and what must be there for some of them: connections, and members of sets."""

    probes: list[Probe] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    members: Members = field(default_factory=dict)


def members_of(policy: Policy, random: Random) -> Members:
    """What to put into the dynamic sets of a policy before it is shot at."""
    found: dict[str, frozenset[Address]] = {}
    for held in policy.dynamic_sets:
        addresses: set[Address] = set()
        for _ in range(random.randint(0, MOST_MEMBERS)):
            family = random.choice((4, 6))
            near = random.random()
            if near < 0.3:
                addresses.add(random.choice(OWN_ADDRESSES[family]))
            elif near < 0.35:
                addresses.add(random.choice(MULTICASTS[family]))
            else:
                anchor = random.choice(ANCHORS_OF[family])
                free = anchor.max_prefixlen - anchor.prefixlen
                addresses.add(anchor.network_address + random.getrandbits(free))
        found[held.name] = frozenset(addresses)
    return found


def aimed_at(policy: Policy, count: int, random: Random) -> Volley:
    """Probes for a policy: of every state and path, around what its rules name."""
    return _gunner(policy, random).volley(count)


def asking_for_helpers(policy: Policy, count: int, random: Random) -> Volley:
    """First packets, most of them of services that have a helper; each of a flow of its own."""
    return _gunner(policy, random).requests(count)


def _gunner(policy: Policy, random: Random) -> _Gunner:
    return _Gunner(policy, random, Volley(members=members_of(policy, random)))


@dataclass(slots=True)
class _Gunner:
    policy: Policy
    random: Random
    out: Volley = field(default_factory=Volley)
    taken: set[Flow] = field(default_factory=set)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def volley(self, count: int) -> Volley:
        while len(self.out.probes) < count:
            probe = self.one()
            if probe is not None and not probe.is_unsendable:
                self.out.probes.append(probe)
        return self.out

    def one(self) -> Probe | None:
        """A probe of any kind, or None where the connection that it is about is there already."""
        if any(rule.also_established for rule in self.policy.rules) and self.chance(0.2):
            return self.established()
        kind = self.random.random()
        if kind < 0.6:
            return self.first()
        if kind < 0.67:
            return self.invalid()
        if kind < 0.73:
            return replace(self.first(), dscp=self.random.choice(UNTRACKED_DSCPS))
        if kind < 0.8:
            return self.essential()
        if kind < 0.87:
            return self.established()
        if kind < 0.92:
            return self.error()
        return self.predicted()

    def requests(self, count: int) -> Volley:
        asking = [(rule, t) for rule in self.policy.rules for t in rule.what if t.helper]
        for _ in range(2 * count if asking else 0):
            probe = self.between(*self.random.choice(asking))
            if self.chance(0.3):
                probe = self.first()
            flow = Flow(probe.source, probe.destination, probe.protocol, probe.ports)
            if probe.protocol in (TCP, UDP) and not {flow, flow.reversed} & self.taken:
                self.taken.add(flow)
                if not probe.is_unsendable and len(self.out.probes) < count:
                    self.out.probes.append(probe)
        return self.out

    # --- the kinds --------------------------------------------------------------------------

    def first(self) -> Probe:
        """A packet that could be the first of a connection which some rule speaks of."""
        rule = self.rule()
        traffic = self.random.choice(rule.what) if rule and rule.what else None
        probe = self.between(rule, traffic)
        if self.policy.protections and self.chance(0.2):
            probe = self.forbidden(probe)
        return self.beside(probe) if self.chance(0.3) else probe

    def invalid(self) -> Probe:
        probe = self.first()
        if probe.protocol == TCP and self.chance(0.5):
            return replace(probe, tcp_flags=ACK)
        # An echo request with a broken checksum is two things at once to LANGUAGE.md.
        if (probe.protocol, probe.icmp_type) in ((ICMP, 8), (ICMPV6, 128)):
            return replace(probe, icmp_type=probe.icmp_type + 1 if probe.family == 6 else 0)
        return replace(probe, broken=probe.way_in is not None)

    def essential(self) -> Probe:
        probe = self.first()
        if probe.family == 4:
            return replace(probe, protocol=IGMP)
        return replace(
            probe,
            protocol=ICMPV6,
            icmp_type=self.random.choice(ESSENTIAL_TYPES),
            hop_limit=self.random.choice((255, 255, 255, 254, 64)),
        )

    def forbidden(self, probe: Probe) -> Probe:
        """The probe with something that `protect` may keep out."""
        wanted = self.random.choice(self.policy.protections).protection
        if wanted is Protection.BAD_FLAGS:
            ports = probe.ports if probe.protocol in HAS_PORTS else self.ports(None)
            flags = self.random.getrandbits(8)
            return replace(probe, protocol=TCP, ports=ports, tcp_flags=flags)
        if wanted is Protection.BOGONS and self.policy.bogons:
            lowest, highest = _bounds(probe.family)
            pairs = [p for p in self.policy.bogons if lowest <= p[0] <= highest]
            number = self.edge(Ranges(tuple(pairs)), lowest, highest)
            return replace(probe, source=ip_address(format_address(number)))
        zones = [zone for zone in self.policy.zones if zone.networks]
        if zones and self.chance(0.6):
            within = [ZoneEnd(self.random.choice(zones))]
            return replace(probe, source=self.other(within, probe.family))
        return replace(probe, source=self.random.choice(OWN_ADDRESSES[probe.family]))

    def established(self) -> Probe | None:
        """A packet of a connection that is open, in either direction."""
        backwards = self.chance(0.5)
        probe = self.answer() if backwards and self.chance(0.7) else self.first()
        if probe.protocol not in (TCP, UDP, SCTP, ICMP, ICMPV6):
            probe = replace(probe, protocol=UDP, ports=self.ports(None))
        if probe.protocol in (ICMP, ICMPV6):
            protocol, icmp_type = (ICMP, 8) if probe.family == 4 else (ICMPV6, 128)
            if backwards:
                icmp_type = 0 if probe.family == 4 else 129
            identifier = self.random.randint(1, 65535)
            probe = replace(probe, protocol=protocol, icmp_type=icmp_type, ports=(identifier, 0))
        flow = Flow(probe.source, probe.destination, probe.protocol, probe.ports)
        opened = flow.reversed if backwards else flow
        return replace(probe, tcp_flags=ACK) if self.open(Connection(opened)) else None

    def answer(self) -> Probe:
        """A packet that goes back, of a connection which some rule speaks of."""
        rule = self.rule()
        traffic = self.random.choice(rule.what) if rule and rule.what else None
        probe = self.between(rule, traffic, swapped=True)
        return replace(probe, ports=probe.ports[::-1])

    def error(self) -> Probe | None:
        """An ICMP error, or a redirect, about a connection that is open."""
        probe = self.first()
        protocol, types = ERRORS[probe.family]
        inner = self.random.choice((TCP, UDP))
        # The error is for whoever sent the packet that it is about.
        quoted = Quoted(probe.destination, self.address(probe.family), inner, self.ports(None))
        flow = Flow(quoted.source, quoted.destination, inner, quoted.ports)
        if not self.open(Connection(flow if self.chance(0.5) else flow.reversed)):
            return None
        icmp_type = self.random.choice(types)
        return replace(probe, protocol=protocol, icmp_type=icmp_type, ports=(0, 0), quoted=quoted)

    def predicted(self) -> Probe | None:
        """A connection that a helper predicted, mostly one which some rule asks for."""
        asking = [
            (rule, traffic, traffic.helper)
            for rule in self.policy.rules
            for traffic in rule.what
            if traffic.helper is not None
        ]
        if asking and self.chance(0.85):
            rule, traffic, helper = self.random.choice(asking)
            name, protocol = self.random.choice(helper.assigns)
            probe = self.between(rule, traffic, swapped=self.chance(0.5))
            probe = replace(
                probe,
                protocol=self.expected_protocol(helper),
                ports=(self.random.randint(1, 65535), self.data_port(traffic)),
            )
        else:
            name, protocol = self.random.choice(tuple(KERNEL_HELPERS.items()))
            probe = self.first()
            if probe.protocol not in (TCP, UDP):
                probe = replace(probe, protocol=UDP, ports=self.ports(None))
        if self.chance(0.2):
            name, protocol = self.random.choice(tuple(KERNEL_HELPERS.items()))
        if self.chance(0.2):
            probe = self.beside(probe)
        if name in IPV4_HELPERS and probe.family == 6:
            return None
        if probe.protocol not in (TCP, UDP, GRE):
            return None
        master = Flow(
            self.address(probe.family), self.address(probe.family), protocol, self.ports(None)
        )
        ports = (0, 0) if probe.protocol == GRE else (0, probe.ports[1])
        expected = Flow(probe.source, probe.destination, probe.protocol, ports)
        if expected in self.taken or not self.open(Connection(master, name, expected)):
            return None
        self.taken.add(expected)
        return probe

    def expected_protocol(self, helper: Helper) -> int:
        expectation = self.random.choice(helper.expects)
        return self.random.choice([low for low, _ in expectation.protocols])

    def data_port(self, traffic: Traffic) -> int:
        if traffic.data_ports is not None and self.chance(0.7):
            return self.edge(traffic.data_ports, 0, 65535)
        return self.random.choice(LIMITS)

    def open(self, connection: Connection) -> bool:
        """Ask for a connection, unless one of the same addresses and ports is there already."""
        flow = connection.opened
        if flow.source == flow.destination or {flow, flow.reversed} & self.taken:
            return False
        self.taken.add(flow)
        self.out.connections.append(connection)
        return True

    # --- aiming -----------------------------------------------------------------------------

    def rule(self) -> PolicyRule | None:
        rules = self.policy.rules
        return self.random.choice(rules) if rules and self.chance(0.95) else None

    def between(
        self, rule: PolicyRule | None, traffic: Traffic | None, *, swapped: bool = False
    ) -> Probe:
        """From one end of a rule to the other."""
        source = tuple(_elements(rule.source)) if rule else ()
        destination = tuple(_elements(rule.destination)) if rule else ()
        if swapped:
            source, destination = destination, source
        direction = self.direction(source, destination)
        family = self.family(rule, traffic, (*source, *destination))
        way_in, way_out = None, None
        if direction is Direction.OUTBOUND:
            sender = self.own(source, family)
            way_out = self.interface(destination)
        else:
            sender = self.other(source, family)
            way_in = self.interface(source)
        if direction is Direction.INBOUND:
            receiver = self.addressed(destination, family, way_in)
        else:
            receiver = self.other(destination, family, way_out)
        if direction is Direction.OUTBOUND and receiver in OWN_ADDRESSES[family]:
            way_out = None
        protocol = self.protocol(traffic, family)
        probe = Probe(
            way_in,
            way_out,
            sender,
            receiver,
            protocol,
            self.ports(traffic) if protocol in HAS_PORTS else (self.random.randint(1, 65535), 0),
            self.icmp_type(traffic, protocol),
            with_options=family == 6 and self.chance(0.1),
        )
        return self.meeting(rule.conditions if rule else Conditions(), probe)

    def meeting(self, conditions: Conditions, probe: Probe) -> Probe:
        """The probe as the conditions of a rule want it, most of the time."""
        dscp, mark_number, owner_number, mac = PROBE_DSCPS[0], 0, 0, None
        if conditions.dscp is None:
            dscp = self.random.choice(PROBE_DSCPS) if self.chance(0.2) else dscp
        elif wanted := [d for d in PROBE_DSCPS if d in conditions.dscp]:
            dscp = self.random.choice(wanted if self.chance(0.7) else PROBE_DSCPS)
        if conditions.mark is not None or self.chance(0.1):
            mark_number = self.random.randrange(len(MARKS))
        if conditions.users is not None or conditions.groups is not None or self.chance(0.1):
            owner_number = self.random.randrange(len(OWNERS)) if probe.way_in is None else 0
        if probe.way_in is not None and self.chance(0.7 if conditions.macs is not None else 0.1):
            mac = self.random.choice(MACS)
        if conditions.source_ports and probe.protocol in HAS_PORTS:
            probe = replace(
                probe, ports=(self.edge(conditions.source_ports, 0, 65535), probe.ports[1])
            )
        probe = replace(
            probe, dscp=dscp, mark_number=mark_number, owner_number=owner_number, mac=mac
        )
        if conditions.sizes:
            least = len(packet_bytes(probe, 0))
            padding = self.edge(conditions.sizes, least, MTU) - least
            return replace(probe, padding=padding)
        return replace(probe, padding=self.random.randint(0, 200)) if self.chance(0.1) else probe

    def direction(
        self, source: Sequence[EndElement], destination: Sequence[EndElement]
    ) -> Direction:
        from_self = [isinstance(e, (SelfEnd, AnyEnd)) for e in source]
        to_self = [isinstance(e, (SelfEnd, AnyEnd)) for e in destination]
        choices = [Direction.INBOUND, Direction.FORWARD, Direction.OUTBOUND]
        likely = []
        if not any(isinstance(e, SelfEnd) for e in source):
            if any(to_self):
                likely.append(Direction.INBOUND)
            if not any(isinstance(e, SelfEnd) for e in destination):
                likely.append(Direction.FORWARD)
        if any(from_self):
            likely.append(Direction.OUTBOUND)
        return self.random.choice(likely if likely and self.chance(0.9) else choices)

    def family(
        self, rule: PolicyRule | None, traffic: Traffic | None, ends: Sequence[EndElement]
    ) -> int:
        if rule is not None and rule.conditions.families and self.chance(0.8):
            return rule.conditions.families.pairs[0][0]
        if any(isinstance(e, SuffixEnd) for e in ends) and self.chance(0.5):
            return 6
        if traffic is not None and traffic.names_icmp and self.chance(0.9):
            return 4 if traffic.protocols == Ranges.of(ICMP) else 6
        named = {
            6 if low >= V6_BASE else 4
            for e in ends
            for ranges in self.ranges(e)
            for low, _ in ranges
        }
        return self.random.choice(sorted(named) if named and self.chance(0.9) else (4, 6))

    def edge(self, ranges: Ranges, lowest: int, highest: int) -> int:
        """A value of the set, mostly at one of its edges; now and then just beyond."""
        low, high = self.random.choice(ranges.pairs)
        low, high = max(low, lowest), min(high, highest)
        if low > high:
            return self.random.randint(lowest, highest)
        where = self.random.random()
        if where < 0.3:
            return low
        if where < 0.6:
            return high
        if where < 0.7:
            return max(lowest, low - 1)
        if where < 0.8:
            return min(highest, high + 1)
        return self.random.randint(low, high)

    def other(self, elements: Sequence[EndElement], family: int, way: str | None = None) -> Address:
        """An address of another machine that the elements may mean."""
        groups = [e for e in elements if isinstance(e, GroupEnd)]
        if groups and self.chance(0.5):
            return self.group(self.random.choice(groups).group, family, way)
        found = self.named(elements, family)
        return self.address(family) if found is None else found

    def named(self, elements: Sequence[EndElement], family: int) -> Address | None:
        lowest, highest = _bounds(family)
        suffixes = [e for e in elements if isinstance(e, SuffixEnd)]
        if suffixes and family == 6 and self.chance(0.6):
            suffix = self.random.choice(suffixes)
            return IPv6Address(int(self.address(6)) & ~suffix.mask | suffix.value)
        ranges = [
            Ranges(pairs)
            for e in elements
            for r in self.ranges(e)
            if (pairs := tuple(p for p in r if lowest <= p[0] <= highest))
        ]
        if not ranges or self.chance(0.05):
            return None
        number = self.edge(self.random.choice(ranges), lowest, highest)
        return ip_address(format_address(number))

    def own(self, elements: Sequence[EndElement], family: int) -> Address:
        """A source of what the firewall sends: its own, or whatever a raw socket may claim."""
        if self.chance(0.6):
            return self.random.choice(OWN_ADDRESSES[family])
        return self.named(elements, family) or self.address(family)

    def addressed(self, elements: Sequence[EndElement], family: int, way_in: str | None) -> Address:
        """A destination that is delivered to the firewall."""
        groups = [e for e in elements if isinstance(e, GroupEnd)]
        if groups and self.chance(0.6):
            return self.group(self.random.choice(groups).group, family, way_in)
        if self.chance(0.12):
            return self.group(self.random.choice(tuple(Group)), family, way_in)
        named = self.named(elements, family)
        if named in OWN_ADDRESSES[family]:
            return named
        return self.random.choice(OWN_ADDRESSES[family])

    def group(self, group: Group, family: int, way: str | None) -> Address:
        if group is Group.MULTICAST or family == 6:
            return self.random.choice(MULTICASTS[family])
        if way is not None and self.chance(0.7):
            return OWN[way][0].network.broadcast_address
        return self.random.choice(BROADCASTS)

    def address(self, family: int) -> Address:
        anchor = self.random.choice(ANCHORS_OF[family])
        free = anchor.max_prefixlen - anchor.prefixlen
        return anchor.network_address + self.random.getrandbits(free)

    def ranges(self, element: EndElement) -> Iterator[Ranges]:
        """Sets of addresses that an end speaks of, none of them empty."""
        if isinstance(element, AddressEnd) and element.addresses:
            yield element.addresses
        if isinstance(element, DynamicEnd) and isinstance(element.set, ListedSet):
            yield element.set.addresses
        elif isinstance(element, DynamicEnd) and (held := self.out.members[element.set.name]):
            # In the order of numbers, for that of a set is another one in each process.
            yield Ranges.merged(
                (n, n) for a in held if (n := parse_one_address(str(a))) is not None
            )
        for zone in _zones(element):
            if zone.networks:
                yield zone.networks

    def interface(self, elements: Sequence[EndElement]) -> str:
        zones = [z for e in elements for z in _zones(e) if z.interfaces is not None]
        if zones and self.chance(0.85):
            meant = self.random.choice(zones).interfaces
            fitting = [n for n in INTERFACES if meant and name_range(n)[0] in meant]
            if fitting:
                return self.random.choice(fitting)
        return self.random.choice(INTERFACES)

    def protocol(self, traffic: Traffic | None, family: int) -> int:
        if traffic is None or traffic.protocols is None or not traffic.protocols:
            return self.random.choice(PROTOCOLS)
        if self.chance(0.05):
            return self.edge(traffic.protocols, 1, 255)
        return self.random.choice([low for low, _ in traffic.protocols])

    def ports(self, traffic: Traffic | None) -> tuple[int, int]:
        source = self.random.randint(1, 65535)
        if traffic is None or not traffic.ports:
            return source, self.random.randint(1, 65535)
        return source, self.edge(traffic.ports, 0, 65535)

    def icmp_type(self, traffic: Traffic | None, protocol: int) -> int:
        if protocol not in TYPES:
            return 0
        if traffic is not None and traffic.icmp_types and self.chance(0.9):
            return self.edge(traffic.icmp_types, 0, 255)
        return self.random.choice(TYPES[protocol])

    def beside(self, probe: Probe) -> Probe:
        """The probe with one thing changed."""
        family = probe.family
        match self.random.randint(0, 5):
            case 0 if probe.way_in is not None:
                return replace(probe, way_in=self.random.choice(INTERFACES))
            case 0:
                return replace(probe, way_out=self.random.choice(INTERFACES))
            case 1:
                return replace(probe, source=self.address(family))
            case 2:
                return replace(probe, source=self.random.choice(OWN_ADDRESSES[family]))
            case 3:
                return replace(probe, destination=self.address(family))
            case 4 if probe.protocol in HAS_PORTS:
                protocol = self.random.choice(HAS_PORTS)
                return replace(probe, protocol=protocol)
            case 5 if probe.protocol in HAS_PORTS:
                return replace(probe, ports=self.ports(None))
            case _:
                protocol = self.random.choice(PROTOCOLS)
                ports = self.ports(None) if protocol in HAS_PORTS else (probe.ports[0], 0)
                icmp_type = self.icmp_type(None, protocol)
                return replace(probe, protocol=protocol, ports=ports, icmp_type=icmp_type)


def _bounds(family: int) -> tuple[int, int]:
    return (0, (1 << 32) - 1) if family == 4 else (V6_BASE, V6_BASE + (1 << 128) - 1)


def _elements(end: End) -> Iterator[EndElement]:
    for written in end.lists:
        yield from written.elements
        yield from written.exceptions


def _zones(element: EndElement) -> Iterator[Zone]:
    match element:
        case ZoneEnd(zone, within):
            yield zone
            yield from within
        case AnyEnd() | SelfEnd():
            return
        case PublishedEnd(within=within):
            yield from within
        case (
            AddressEnd(within=within)
            | GroupEnd(within=within)
            | DynamicEnd(within=within)
            | SuffixEnd(within=within)
            | IpsecEnd(within=within)
        ):
            yield from within
