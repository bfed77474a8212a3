"""What rules make of addresses, against what LANGUAGE.md says; and what comes to FILTER then.

A packet that a statement sends elsewhere is followed: the filter sees what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from random import Random

from policylang.ir import actions as ir
from policylang.ir.ruleset import Ruleset
from policylang.ir.stages import Path, Stage
from policylang.model.policy import Policy
from policylang.model.translations import (
    Netmap,
    PortForward,
    Redirect,
    SourceTranslation,
    TransparentProxying,
)
from policylang.model.types import (
    AddressEnd,
    End,
    EndList,
    PolicyRule,
    SelfEnd,
    Traffic,
    Verb,
)
from policylang.packets.fields import TCP, AddressType, Field, State
from policylang.packets.values import Ranges, format_address
from tests.differential.arena import INTERFACES, Address
from tests.differential.probes import OWN_ADDRESSES
from tests.properties.evaluate import Tags, World, evaluate
from tests.reference.interpreter import (
    PROXY_BIT,
    Dialled,
    Moment,
    Packet,
    number_of,
    with_hairpin,
)
from tests.reference.translating import Seeming, Sent, proxied, seeming, sent

REDIRECTED_TO = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
NO_INTERFACE = 0  # what the kernel compares with the name of the interface of its own packets


@dataclass(frozen=True, slots=True)
class Mistranslation:
    """A packet of which a stage of the rules makes something else than the language says."""

    policy: str
    packet: Packet
    moment: Moment
    stage: Stage
    said: object
    done: ir.Action | None
    is_optimised: bool

    def __str__(self) -> str:
        rules = "optimised rules" if self.is_optimised else "lowered rules"
        return (
            f"{rules} have {self.done} on {self.stage}, and the reference {self.said}\n"
            f"{self.packet}\n{self.moment}\n{self.policy}"
        )


def aims(policy: Policy) -> Policy:
    """The policy with rules in place of its translations, for probes to be aimed at both ends."""
    statements: list[PolicyRule] = list(policy.rules)
    for treatment in policy.treatments:
        match treatment:
            case PortForward():
                clients = with_hairpin(treatment, policy.zones)
                targets = End((EndList((AddressEnd(treatment.targets),)),))
                at = treatment.at or End((EndList((SelfEnd(),)),))
                statements += (_aim(treatment, treatment.what, clients, e) for e in (at, targets))
            case Redirect() | TransparentProxying() | SourceTranslation():
                ends = treatment.source, treatment.destination
                statements.append(_aim(treatment, treatment.what, *ends))
            case Netmap():
                for named, other in ((treatment.outer, True), (treatment.inner, False)):
                    addressed = End((EndList((AddressEnd(Ranges((named,))),)),))
                    pair = (treatment.on, addressed) if other else (addressed, treatment.on)
                    statements.append(_aim(treatment, (Traffic(),), *pair))
            case _:
                pass
    return replace(policy, statements=tuple(statements))


def _aim(
    treatment: PortForward | Redirect | TransparentProxying | SourceTranslation | Netmap,
    what: tuple[Traffic, ...],
    source: End,
    destination: End,
) -> PolicyRule:
    conditions = treatment.conditions
    none = (None, None, treatment.name, treatment.span)
    return PolicyRule(Verb.ALLOW, what, source, destination, *none, conditions=conditions)


# --- what the rules do --------------------------------------------------------------------------


def mistranslation(
    ruleset: Ruleset,
    policy: Policy,
    packet: Packet,
    fields: Mapping[Field, int],
    moment: Moment,
    world: World,
) -> tuple[Stage, object, ir.Action | None] | None:
    """The first stage that makes something else of the first packet of a connection.

    With what should become of it, and what does.
    """
    if packet.is_reply or _is_for_several(packet):
        return None
    tags = Tags(packet.mark, packet.user, packet.group, moment.now, moment.within_rates)
    tested = world.tested(ruleset, fields)

    def action(stage: Stage, path: Path, known: Mapping[Field, int]) -> ir.Action | None:
        return evaluate(ruleset, stage, path, known, guards_hold=tags.meet).action

    arrives = packet.iif is not None
    unrouted = {f: v for f, v in tested.items() if f is not Field.OIF or not arrives}
    if arrives:
        done = action(Stage.TPROXY, Path.INPUT, unrouted)
        port = proxied(policy, packet, moment)
        if (done.port if isinstance(done, ir.TransparentProxy) else None) != port:
            return Stage.TPROXY, port, done
    done = action(Stage.DSTNAT, Path.INPUT if arrives else Path.OUTPUT, unrouted)
    goes = sent(policy, packet, moment)
    if not _sends(done, goes, packet):
        return Stage.DSTNAT, goes, done
    if packet.oif is None:
        return None
    for is_inside in (False, True):
        leaving = {Field.IIF: NO_INTERFACE, **tested, Field.IPSEC_OUT: int(is_inside)}
        leaving |= {Field.SADDR_TYPE: AddressType.UNICAST if arrives else AddressType.LOCAL}
        done = action(Stage.SRCNAT, Path.FORWARD, leaving)
        seems = None if is_inside else seeming(policy, packet, moment)
        if not _seems(done, seems, packet):
            return Stage.SRCNAT, seems, done
    return None


def _is_for_several(packet: Packet) -> bool:
    """Whether it is something that no TCP sends: to a group, which rules do not tell apart then."""
    several = (AddressType.BROADCAST, AddressType.MULTICAST)
    return packet.protocol == TCP and packet.destination_type in several


def _sends(done: ir.Action | None, said: Sent | None, packet: Packet) -> bool:
    dialled = None if packet.ports is None else packet.ports[1]
    match done:
        case None:
            return said is None
        case ir.DestinationNat(targets, port, by_source):
            port = dialled if port is None else port
            return said == Sent(targets, port, by_source)
        case ir.RedirectToSelf(port):
            return said == Sent(None, port)
        case ir.MapPrefix(ir.End.DESTINATION, prefix):
            return said == Sent(_mapped(number_of(packet.destination), prefix), dialled)
        case _:
            return False


def _seems(done: ir.Action | None, said: Seeming | None, packet: Packet) -> bool:
    match done:
        case None:
            return said is None
        case ir.Masquerade(ports, is_random):
            return said == Seeming(None, ports, is_random)
        case ir.SourceNat(addresses, ports, is_random, is_persistent):
            return said == Seeming(Ranges((addresses,)), ports, is_random, is_persistent)
        case ir.MapPrefix(ir.End.SOURCE, prefix):
            return said == Seeming(_mapped(number_of(packet.source), prefix))
        case _:
            return False


def _mapped(number: int, prefix: tuple[int, int]) -> Ranges:
    """The address of `prefix` with the low bits of a number."""
    low, high = prefix
    return Ranges.of(low | number & (high - low))


# --- what comes to FILTER -----------------------------------------------------------------------


def sent_elsewhere(policy: Policy, packet: Packet, moment: Moment, random: Random) -> Packet:
    """The packet as FILTER sees it, once a statement has sent its connection elsewhere.

    Now and then it is a later packet of that connection, or one that some other tool's rules
    sent elsewhere.
    """
    if packet.state is not State.NEW or _is_for_several(packet):
        return packet
    if packet.iif is not None and proxied(policy, packet, moment) is not None:
        mark = packet.mark | PROXY_BIT
        return replace(packet, oif=None, mark=mark, is_proxied=True)
    goes = sent(policy, packet, moment)
    port = None if packet.ports is None else packet.ports[1]
    dialled = Dialled(packet.destination, port)
    is_foreign = goes is None
    if goes is None:
        if packet.iif is None or random.random() > 0.1:
            return packet
        goes = Sent(Ranges.of(number_of(packet.destination)), _other_port(port, random))
        dialled = Dialled(random.choice(OWN_ADDRESSES[packet.family]), port)
    arrived = _arrived(packet, goes, random)
    is_same = arrived.destination == packet.destination and arrived.ports == packet.ports
    if is_same and not is_foreign:
        return packet  # what changes nothing is no translation
    followed = replace(arrived, dialled=dialled)
    return _later(followed, random) if random.random() < 0.2 else followed


def _other_port(port: int | None, random: Random) -> int | None:
    return None if port is None else random.choice((port, 80, 443, 8080))


def _arrived(packet: Packet, goes: Sent, random: Random) -> Packet:
    ports = packet.ports
    if ports is not None and goes.port is not None:
        ports = (ports[0], goes.port)
    if goes.targets is None:
        here = random.choice(OWN_ADDRESSES[packet.family])
        if packet.iif is None:
            here = REDIRECTED_TO[packet.family]
        kind, oif = AddressType.LOCAL, packet.oif
        arrived = replace(packet, destination=here, ports=ports, destination_type=kind)
        return arrived if packet.iif is None else replace(arrived, oif=None)
    low, high = random.choice(goes.targets.pairs)
    target: Address = ip_address(format_address(random.randint(low, high)))
    is_own = target in OWN_ADDRESSES[packet.family]
    kind = AddressType.LOCAL if is_own else AddressType.UNICAST
    oif = packet.oif
    if packet.iif is not None:
        oif = None if is_own else random.choice(INTERFACES)
    return replace(packet, oif=oif, destination=target, ports=ports, destination_type=kind)


def _later(packet: Packet, random: Random) -> Packet:
    """A packet of the same connection once it is open, one way or the other."""
    later = replace(packet, state=State.ESTABLISHED)
    if packet.is_icmp or random.random() < 0.5 or packet.oif == "lo":
        return later
    is_own = packet.iif is None
    return replace(
        later,
        is_reply=True,
        iif=packet.oif,
        oif=packet.iif,
        source=packet.destination,
        destination=packet.source,
        ports=None if packet.ports is None else packet.ports[::-1],
        destination_type=AddressType.LOCAL if is_own else AddressType.UNICAST,
        source_type=AddressType.UNICAST,
        user=None,
        group=None,
        mac=None,
        is_in_ipsec=False,
    )
