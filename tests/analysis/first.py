"""First packets one by one: what may become of each, as the reference interpreter has it.

Each function looks at one policy and returns how many packets it compared with answers to
questions; an AssertionError says what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from random import Random

from policylang.analysis.diagram import Packets
from policylang.analysis.first_packets import GRANTED
from policylang.analysis.machine import Condition, MarkIs
from policylang.analysis.modelled import machine_of
from policylang.analysis.parts import parts_of
from policylang.analysis.questions import Answer, Beginnings
from policylang.diagnostics import Report
from policylang.ir.ruleset import DynamicSet, HostSuffix, ListedSet
from policylang.lower.asked import Asking, asking
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.types import Conditions, Direction, PolicyRule
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    ICMP,
    ICMPV6,
    SADDR_TESTS,
    TCP,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import Ranges, format_address, name_pattern, name_range
from tests.differential.lowering import fields_of
from tests.reference.interpreter import (
    PROTOCOLS_WITH_PORTS,
    PROXY_BIT,
    Address,
    Dialled,
    Moment,
    Packet,
    _is_about,
    decide,
    meets,
    names,
    number_of,
    sender_of,
)
from tests.reference.translating import proxied, sent

NOW = datetime(2026, 11, 18, 10, 30, tzinfo=UTC)
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class World:
    """Interfaces, and the addresses of the firewall by family."""

    interfaces: tuple[str, ...]
    own: dict[int, Address]


class Court:
    """One policy, followed by diagrams, and read packet by packet."""

    def __init__(self, policy: Policy, questions: tuple[PolicyRule, ...], world: World) -> None:
        report = Report()
        self.policy, self.world = policy, world
        self.asking: Asking = asking(policy, questions, report)
        self.beginnings = Beginnings(
            machine_of(lower(policy, report)), self.asking.tests, policy.zones
        )
        assert not report.has_errors, [d.message for d in report.in_order()]

    # --- as the interpreter sees it -------------------------------------------------------------

    def arrivals(self, packet: Packet, moment: Moment) -> tuple[Packet, ...]:
        """The packet as rules see it: sent elsewhere by whatever way it may leave then."""
        if packet.iif is not None and proxied(self.policy, packet, moment) is not None:
            mark = packet.mark | PROXY_BIT
            return (replace(packet, oif=None, mark=mark, is_proxied=True),)
        goes = sent(self.policy, packet, moment)
        if goes is None:
            return (packet,)
        ports = packet.ports
        dialled = Dialled(packet.destination, None if ports is None else ports[1])
        if ports is not None and goes.port is not None:
            ports = (ports[0], goes.port)
        went = replace(packet, ports=ports, dialled=dialled)
        if goes.targets is None:
            is_own = packet.iif is None
            here = ip_address(LOOPBACK[packet.family]) if is_own else self.world.own[packet.family]
            local = replace(went, destination=here, destination_type=AddressType.LOCAL)
            return (local if is_own else replace(local, oif=None),)
        found = []
        for low, high in goes.targets:
            for number in {low, high}:
                target = ip_address(format_address(number))
                there = replace(went, destination=target, destination_type=AddressType.UNICAST)
                ways = self.ways_to(target) if packet.iif is not None else (packet.oif,)
                found += [replace(there, oif=way) for way in ways]
        return tuple(found)

    def ways_to(self, target: Address) -> tuple[str | None, ...]:
        """The interfaces by which an address may be reached, by what zones say of it."""
        zones = [
            z
            for z in self.policy.zones
            if z.interfaces is not None
            and z.networks is not None
            and number_of(target) in z.networks
        ]
        return tuple(
            name
            for name in self.world.interfaces
            if not zones or any(name_range(name)[0] in (z.interfaces or ()) for z in zones)
        )

    def is_first(self, packet: Packet) -> bool:
        """Whether a packet is one that questions are about."""
        goes_out = packet.oif is not None
        if goes_out and packet.oif not in self.ways_to(packet.destination):
            return False
        kind = packet.destination_type
        if packet.direction is Direction.FORWARD and kind is not AddressType.UNICAST:
            return False
        return kind in (AddressType.UNICAST, AddressType.LOCAL) or packet.protocol not in (
            TCP,
            33,
            132,
        )

    def is_asked(self, question: PolicyRule, packet: Packet, moment: Moment) -> bool:
        """Whether a question is about a packet, as it was dialled or as it goes on elsewhere."""

        def is_meant(one: Packet) -> bool:
            return (
                _is_about(self.policy, question, one, moment, question.what)
                and names(question.source, sender_of(one, moment))
                and meets(question.conditions, one, moment)
            )

        if is_meant(packet):
            return True
        went = (p for p in self.arrivals(packet, moment) if p.dialled is not None)
        return any(is_meant(p) for p in went if p.direction is not Direction.INBOUND)

    def verdicts(self, packet: Packet, moment: Moment, *, is_calm: bool) -> set[bool]:
        """What may become of a packet, whether rates are kept to or not, unless `is_calm`."""
        return {
            decide(self.policy, one, at).accepted
            for within in ((True,) if is_calm else (True, False))
            for at in (replace(moment, within_rates=within),)
            for one in self.arrivals(packet, at)
        }

    # --- as diagrams have it ----------------------------------------------------------------------

    def point(self, packet: Packet, moment: Moment) -> Packets:
        """The packet alone, as what questions are answered by."""
        values = {f: Ranges.of(v) for f, v in fields_of(packet).items() if f not in GRANTED}
        for tests, address in ((SADDR_TESTS, packet.source), (DADDR_TESTS, packet.destination)):
            for number, test in enumerate(self.asking.tests):
                match test:
                    case DynamicSet(name=name):
                        held = address in moment.members.get(name, ())
                    case ListedSet():
                        held = address in moment.members.get(test.source.name, ())
                    case HostSuffix(value, mask):
                        held = address.version == 6 and int(address) & mask == value
                values[tests[number]] = Ranges.of(int(held))
        values.setdefault(Field.IIF, Ranges.of(0))
        values.setdefault(Field.OIF, Ranges.of(0))
        space = self.beginnings.space
        mark = space.answered(Condition(MarkIs(packet.mark, 0xFFFFFFFF)))
        return space.of(Cube.of(values)) & mark

    def compare(
        self,
        question: PolicyRule,
        packets: Iterator[Packet],
        moment: Moment,
        *,
        is_exact: bool,
        is_calm: bool = False,
    ) -> int:
        """Compare the answer to a question with what becomes of packets.

        With `is_exact` nothing but rates decides which of several fates a packet has; with
        `is_calm` all rates are kept to.
        """
        found = self.beginnings.pieces(self.asking.asked(question))
        parts = parts_of(found, self.beginnings)
        compared = 0
        for packet in packets:
            if not self.is_first(packet):
                continue
            point = self.point(packet, moment)
            held = [part for part in parts if part.packets.meets(point)]
            is_asked = self.is_asked(question, packet, moment)
            assert len(held) == is_asked, (packet, is_asked, [p.answer for p in held])
            if not held:
                continue
            verdicts = self.verdicts(packet, moment, is_calm=is_calm)
            answer = held[0].answer
            expected = {Answer.YES: {True}, Answer.NO: {False}, Answer.PARTLY: {True, False}}
            if answer is Answer.PARTLY and not is_exact:
                verdicts = {True, False}
            assert verdicts == expected[answer], (packet, answer, verdicts)
            compared += 1
        covered = self.beginnings.space.union(part.packets for part in parts)
        assert covered == found.asked
        for n, part in enumerate(parts):
            assert not any(part.packets.meets(other.packets) for other in parts[:n])
        return compared


def packet_of(values: Mapping[Field, int]) -> Packet:
    """A packet that diagrams came up with, for the interpreter."""
    names = {
        f: None if not values.get(f) else name_pattern(values[f], values[f])
        for f in (Field.IIF, Field.OIF)
    }
    family, protocol = values[Field.FAMILY], values.get(Field.L4PROTO, 47)
    of_family = Field.ICMP_TYPE if family == 4 else Field.ICMPV6_TYPE
    ports = None
    if protocol in PROTOCOLS_WITH_PORTS:
        ports = values.get(Field.SPORT, 40000), values.get(Field.DPORT, 1)
    return Packet(
        names[Field.IIF],
        names[Field.OIF],
        ip_address(format_address(values[Field.SADDR])),
        ip_address(format_address(values[Field.DADDR])),
        protocol,
        ports,
        values.get(of_family, 8) if protocol in (ICMP, ICMPV6) else None,
        values.get(Field.HOP_LIMIT, 64),
        destination_type=AddressType(values.get(Field.DADDR_TYPE, AddressType.UNICAST)),
        source_type=AddressType(values.get(Field.SADDR_TYPE, AddressType.UNICAST)),
        is_in_ipsec=values.get(Field.IPSEC) == 1,
        tcp_flags=values.get(Field.TCP_FLAGS, 2),
        dscp=values.get(Field.DSCP, 0),
        size=values.get(Field.SIZE, 60),
        mac=values.get(Field.SMAC),
    )


def without_moments(rule: PolicyRule) -> PolicyRule:
    """The rule as a question about packets alone."""
    told = rule.conditions
    kept = Conditions(
        told.families, told.ipsec, told.macs, told.source_ports, told.dscp, told.sizes
    )
    return replace(rule, conditions=kept)


def as_first(packet: Packet, random: Random) -> Packet:
    """A packet that begins a connection, as an honest sender sends it."""
    is_discovery = packet.protocol == ICMPV6 and packet.icmp_type in range(133, 138)
    return replace(
        packet,
        state=State.NEW,
        tcp_flags=0x02,
        is_routed_back=True,
        is_source_routed=False,
        is_reply=False,
        hop_limit=255 if is_discovery else packet.hop_limit,
        helper=None,
        source_type=AddressType.LOCAL if packet.iif is None else AddressType.UNICAST,
        mark=0 if packet.iif is not None else packet.mark,
        is_in_ipsec=packet.is_in_ipsec and packet.iif is not None,
        user=None if packet.iif is not None else packet.user,
    )
