"""Random policies, lowered and optimised, against the interpreter, without any kernel.

What a probe meets is made up as the kernel might have it: each is judged on the path, in the
state and with the routes that a firewall of the arena could know. So far more is tried than in
the same time in the kernel, and what no probe can be (what came inside IPsec, what answers a
question) as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import Ruleset
from policylang.ir.stages import Path
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.types import Direction
from policylang.optimise import optimise
from policylang.packets.fields import TCP, AddressType, Field, FlowDirection, State
from policylang.packets.values import name_range, parse_one_address
from tests.differential.arena import INTERFACES, Address, Facts
from tests.differential.campaign import is_predicted, packet_of
from tests.differential.conntrack import Connection, Flow
from tests.differential.frames import ACK, Probe
from tests.differential.probes import (
    BROADCASTS,
    OWN_ADDRESSES,
    Volley,
    aimed_at,
)
from tests.differential.translating import (
    Mistranslation,
    aims,
    mistranslation,
    sent_elsewhere,
)
from tests.properties.evaluate import Fate, Tags, World, filtered
from tests.reference.interpreter import MULTICAST, Moment, Packet, Verdict, decide

REFUSED = ("dialled-set",)  # errors that the lowering alone finds, in what a policy may well say
FIRST_MOMENT = datetime(2026, 11, 16, tzinfo=UTC)  # a Monday
PATHS = {
    Direction.INBOUND: Path.INPUT,
    Direction.FORWARD: Path.FORWARD,
    Direction.OUTBOUND: Path.OUTPUT,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A packet of which the rules do otherwise than the interpreter says."""

    policy: str
    packet: Packet
    moment: Moment
    verdict: Verdict
    fate: Fate
    is_optimised: bool

    def __str__(self) -> str:
        rules = "optimised rules" if self.is_optimised else "lowered rules"
        return (
            f"{rules} have {self.fate}, and the interpreter {self.verdict}\n{self.packet}\n"
            f"{self.moment}\n{self.policy}"
        )


def differences(
    text: str, policy: Policy, probes: int, random: Random
) -> Iterator[Difference | Mistranslation]:
    """What differs for probes aimed at a policy, each with what might be the case around it."""
    report = Report()
    lowered = lower(policy, report)
    if any(d.code in REFUSED for d in report.diagnostics):
        return
    assert not report.has_errors, [d.message for d in report.in_order()]
    rulesets = {False: lowered, True: optimise(lowered, Report())}
    volley = aimed_at(aims(policy), probes, random)
    opened = {c.opened for c in volley.connections}
    for probe in volley.probes:
        packet = _made_up(probe, volley.connections, opened, random)
        moment = _moment(volley, random)
        if policy.treatments:
            first = replace(packet, state=State.NEW)
            for is_optimised, ruleset in rulesets.items():
                world = World(_members(moment))
                found = mistranslation(ruleset, policy, first, fields_of(first), moment, world)
                if found is not None:
                    yield Mistranslation(text, first, moment, *found, is_optimised)
                    break
            packet = sent_elsewhere(policy, packet, moment, random)
        verdict = decide(policy, packet, moment)
        for is_optimised, ruleset in rulesets.items():
            fate = fate_of(ruleset, packet, moment)
            if not fits(fate, verdict, packet):
                yield Difference(text, packet, moment, verdict, fate, is_optimised)
                break


def fits(fate: Fate, verdict: Verdict, packet: Packet) -> bool:
    """Whether a packet's fate is what the interpreter says, the sets included that it is put in."""
    ends = {ir.End.SOURCE: packet.source, ir.End.DESTINATION: packet.destination}
    adds = {(e.set, ends[e.end]) for e in fate.effects if isinstance(e, ir.AddToSet)}
    match fate.action:
        case ir.Accept():
            said = Verdict(True, verdict.because, None, frozenset(adds))
        case ir.Drop():
            said = Verdict(False, verdict.because, None, frozenset(adds))
        case ir.Reject(answer):
            told = verdict.answer
            if told is None or told.value != answer.value:
                return False
            said = Verdict(False, verdict.because, told, frozenset(adds))
        case other:
            raise AssertionError(f"{other} decides nothing")
    return said == verdict


def fate_of(ruleset: Ruleset, packet: Packet, moment: Moment) -> Fate:
    """What rules do with a packet, screens included."""
    members = _members(moment)
    tags = Tags(packet.mark, packet.user, packet.group, moment.now, moment.within_rates)
    path = PATHS[packet.direction]
    return filtered(ruleset, path, fields_of(packet), tags, World(members))


def _members(moment: Moment) -> dict[str, frozenset[int]]:
    return {
        name: frozenset(_number(address) for address in held)
        for name, held in moment.members.items()
    }


def fields_of(packet: Packet) -> Mapping[Field, int]:
    """A packet as the ir sees it; what a packet has not is left out."""
    found: dict[Field, int | None] = {
        Field.IIF: None if packet.iif is None else name_range(packet.iif)[0],
        Field.OIF: None if packet.oif is None else name_range(packet.oif)[0],
        Field.CT_STATE: packet.state,
        Field.CT_HELPER: None if packet.helper is None else name_range(packet.helper)[0],
        Field.FAMILY: packet.family,
        Field.SADDR: _number(packet.source),
        Field.DADDR: _number(packet.destination),
        Field.DADDR_TYPE: packet.destination_type,
        Field.HOP_LIMIT: packet.hop_limit if packet.family == 6 else None,
        Field.L4PROTO: packet.protocol,
        Field.SPORT: packet.ports and packet.ports[0],
        Field.DPORT: packet.ports and packet.ports[1],
        Field.TCP_FLAGS: packet.tcp_flags if packet.protocol == TCP else None,
        Field.SMAC: packet.mac,
        Field.DSCP: packet.dscp,
        Field.SIZE: packet.size,
        Field.SADDR_TYPE: packet.source_type,
        Field.SOURCE_ROUTED: packet.is_source_routed,
        Field.ANSWER: 0,
        Field.TO_ASKER: 0,
        Field.DNATED: packet.dialled is not None,
        Field.ORIG_DADDR: _number(packet.dialled.address if packet.dialled else packet.destination),
        Field.ORIG_DPORT: packet.dialled.port
        if packet.dialled
        else packet.ports and packet.ports[1],
        Field.EXPECTED: 0,
    }
    if packet.is_icmp:
        found[Field.ICMP_TYPE if packet.family == 4 else Field.ICMPV6_TYPE] = packet.icmp_type
    if packet.iif is not None:
        found[Field.IPSEC] = packet.is_in_ipsec
        found[Field.REVERSE_PATH] = packet.is_routed_back
    if packet.state in (State.ESTABLISHED, State.RELATED, State.NEW):
        way = FlowDirection.REPLY if packet.is_reply else FlowDirection.ORIGINAL
        found[Field.CT_DIRECTION] = way
    return {field: int(value) for field, value in found.items() if value is not None}


# --- making up ---------------------------------------------------------------------------------


def _moment(volley: Volley, random: Random) -> Moment:
    seconds = random.randrange(7 * 86_400)
    now = FIRST_MOMENT + timedelta(days=random.choice((0, 0, 0, 3700)), seconds=seconds)
    return Moment(volley.members, now, random.random() < 0.8)


def _made_up(
    probe: Probe, connections: Sequence[Connection], opened: set[Flow], random: Random
) -> Packet:
    """A probe with facts that could be, and now and then with something no probe has."""
    flow = Flow(probe.source, probe.destination, probe.protocol, probe.ports)
    destination = probe.destination
    kind = AddressType.UNICAST
    if destination in OWN_ADDRESSES[probe.family]:
        kind = AddressType.LOCAL
    elif destination in BROADCASTS:
        kind = AddressType.BROADCAST
    elif any(destination in network for network in MULTICAST):
        kind = AddressType.MULTICAST
    is_for_self = kind is not AddressType.UNICAST
    oif: str | None = probe.way_out or random.choice(INTERFACES)
    if probe.way_in is not None and is_for_self:
        oif = None
    if probe.way_in is None and kind is AddressType.LOCAL:
        oif = "lo"
    is_own = probe.source in OWN_ADDRESSES[probe.family]
    facts = Facts(
        probe.way_in,
        oif,
        _state(probe, flow, opened, connections),
        kind,
        AddressType.LOCAL if is_own else AddressType.UNICAST,
        flow.reversed in opened,
        probe.way_in is None or random.random() < 0.85,
    )
    packet = packet_of(probe, facts, connections)
    if probe.way_in is None:
        return packet
    return replace(
        packet,
        is_in_ipsec=random.random() < 0.15,
        is_source_routed=random.random() < 0.1,
    )


def _state(probe: Probe, flow: Flow, opened: set[Flow], connections: Sequence[Connection]) -> State:
    if probe.untracked:
        return State.UNTRACKED
    if probe.quoted is not None:
        return State.RELATED
    if probe.broken:
        return State.INVALID
    if {flow, flow.reversed} & opened:
        return State.ESTABLISHED
    if any(is_predicted(probe, c) for c in connections):
        return State.RELATED
    return State.INVALID if probe.tcp_flags == ACK and probe.protocol == TCP else State.NEW


def _number(address: Address) -> int:
    number = parse_one_address(str(address))
    assert number is not None
    return number
