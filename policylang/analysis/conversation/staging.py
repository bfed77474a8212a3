"""From a question to a story: which conversation is meant, who plays it, and how it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from policylang.analysis.conversation import scripts
from policylang.analysis.conversation.casting import Cast, NoCastError, cast
from policylang.analysis.conversation.firewall import Firewall
from policylang.analysis.conversation.playing import Stage
from policylang.analysis.conversation.scripts import PACKET, PLAIN, Session, perform
from policylang.analysis.conversation.story import Story
from policylang.analysis.machine import Machine
from policylang.analysis.walking import ANY_MOMENT, Moment
from policylang.ir.ruleset import AddressTest
from policylang.ir.stages import Path
from policylang.lower.asked import Asked
from policylang.model.types import PolicyRule, Traffic, Zone
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UDP, Field, State
from policylang.packets.values import Ranges

# By kind (the conntrack helper that such a conversation needs): its modes, the usual one first.
MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        scripts.FTP: ("passive", "active"),
        scripts.TFTP: ("read", "write"),
        scripts.SIP: ("udp", "tcp"),
        scripts.IRC: (),
        scripts.PPTP: (),
        scripts.SANE: (),
        scripts.AMANDA: (),
        scripts.H323: (),
        scripts.NETBIOS_NS: (),
        scripts.SNMP: (),
        PLAIN: (scripts.USUAL, scripts.TOO_BIG, scripts.UNREACHABLE),
        PACKET: (),
    }
)

_OVER = MappingProxyType(
    {
        scripts.FTP: TCP,
        scripts.TFTP: UDP,
        scripts.IRC: TCP,
        scripts.PPTP: TCP,
        scripts.SANE: TCP,
        scripts.AMANDA: UDP,
        scripts.H323: TCP,
        scripts.NETBIOS_NS: UDP,
        scripts.SNMP: UDP,
    }
)
# Whose helpers know IPv4 alone; of IPv6 there is no such conversation.
_V4_ALONE = (scripts.IRC, scripts.PPTP, scripts.NETBIOS_NS, scripts.SNMP)
BROADCASTS = (scripts.NETBIOS_NS, scripts.SNMP)
HELPED = tuple(kind for kind in MODES if kind not in (PLAIN, PACKET))  # which need a helper


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be played: `kind` and `mode` are of `MODES`.

    The rest is for single packets, and None or False where nothing is said of it. `interface` is
    the one by which the first packet comes, as a number.
    """

    kind: str
    mode: str | None = None
    flags: int | None = None
    state: State | None = None
    interface: int | None = None
    is_answered: bool = False


def kind_of(rule: PolicyRule) -> str:
    """The kind of conversation that a question is about: by its helper, else by its service."""
    for traffic in rule.what:
        if traffic.helper is not None:
            return traffic.helper.name
    for traffic in rule.what:
        if traffic.service is not None and traffic.service in MODES:
            return traffic.service
    return PLAIN


def casts(asked: Asked, wanted: Wanted, zones: tuple[Zone, ...]) -> Iterator[Cast]:
    """A cast for each group of packets that a question is about, those to this host first."""
    for path in (Path.INPUT, Path.FORWARD, Path.OUTPUT):
        for cube in asked.dialled[path]:
            for family in (4, 6):
                fitting = narrowed(cube, wanted) & Cube.of({Field.FAMILY: Ranges.of(family)})
                try:
                    yield cast(zones, path, fitting, is_broadcast=wanted.kind in BROADCASTS)
                except NoCastError:
                    continue


def narrowed(cube: Cube, wanted: Wanted) -> Cube:
    """The packets by which such a conversation begins."""
    protocol = _OVER.get(wanted.kind)
    if wanted.kind == scripts.SIP:
        protocol = TCP if wanted.mode == "tcp" else UDP
    terms: dict[Field, Ranges] = {}
    if protocol is not None:
        terms[Field.L4PROTO] = Ranges.of(protocol)
    if wanted.kind in _V4_ALONE:
        terms[Field.FAMILY] = Ranges.of(4)
    if wanted.interface is not None:
        terms[Field.IIF] = Ranges.of(wanted.interface)
    return cube & Cube.of(terms)


def play(
    machine: Machine,
    cast: Cast,
    wanted: Wanted,
    rule: PolicyRule,
    *,
    address_tests: tuple[AddressTest, ...] = (),
    moment: Moment = ANY_MOMENT,
) -> Story:
    """Play one conversation with a cast; `rule` is the question that it belongs to."""
    traffic = _traffic(rule, cast)
    mode = wanted.mode
    if mode is None and MODES[wanted.kind]:
        mode = MODES[wanted.kind][0]
    session = Session(
        wanted.kind,
        mode,
        cast.protocol,
        cast.port,
        cast.client,
        cast.dialled,
        data_ports=None if traffic is None else traffic.data_ports,
        flags=wanted.flags,
        state=wanted.state,
        is_answered=wanted.is_answered,
    )
    if cast.source_port is not None:
        session = replace(session, client_port=cast.source_port)
    helper = None
    if traffic is not None and traffic.helper is not None:
        helper = traffic.helper.matches[0]
    firewall = Firewall(machine, cast.world, moment=moment, address_tests=address_tests)
    firewall.given = dict(cast.given)
    return perform(Stage(firewall, cast.hosts, helper), session)


def _traffic(rule: PolicyRule, cast: Cast) -> Traffic | None:
    """What of a question the first packet is: with a helper before without."""
    found = [
        traffic
        for traffic in rule.what
        if (traffic.protocols is None or cast.protocol in traffic.protocols)
        and (traffic.ports is None or cast.port in traffic.ports)
    ]
    return next((t for t in found if t.helper is not None), found[0] if found else None)
