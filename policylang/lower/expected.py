"""Connections that conntrack helpers predict: which of them may pass, and between whom.

INVARIANT: what is admitted lies between the two ends that a statement names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from policylang.ir.actions import Accept, ConnectionMarkGuard, Guard
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import arriving
from policylang.lower.by_address import by_address
from policylang.lower.hairpin import clients
from policylang.lower.paths import Places
from policylang.lower.published import machines
from policylang.lower.states import predicted_by, state
from policylang.model.policy import Statement
from policylang.model.translations import PortForward, Redirect, TransparentProxying
from policylang.model.types import (
    AddressEnd,
    End,
    EndList,
    Expectation,
    Helper,
    PolicyRule,
    SelfEnd,
    Traffic,
    Verb,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UDP, Field, State
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges

# Linux's net.ipv4.ip_local_port_range unless changed.
EPHEMERAL_PORTS = Ranges.between(32768, 60999)
UNPRIVILEGED_PORTS = Ranges.between(1024, 65535)
PORTED = Ranges.of(TCP, UDP)

Asking = PolicyRule | PortForward | Redirect | TransparentProxying
ByPath = Mapping[Path, tuple[Cube, ...]]
SELF = EndList((SelfEnd(),))


@dataclass(frozen=True, slots=True)
class Ways:
    """The packets between the two ends of a statement: from its client, and from its server."""

    there: ByPath
    back: ByPath
    published: tuple[Cube, ...] = ()  # what is forwarded from machines that may be published


def expectations(
    statements: Iterable[Statement],
    path: Path,
    places: Places,
    of_published: ConnectionMarkGuard | None = None,
) -> Iterator[Rule]:
    """The FILTER rules that admit what helpers predict, on one path.

    `of_published` tells what was predicted by connections to published machines.
    """
    for statement in statements:
        match statement:
            case PolicyRule(verb=Verb.ALLOW) | PortForward() | Redirect() | TransparentProxying():
                asked = [(t, t.helper) for t in statement.what if t.helper is not None]
                ways = _ways(statement, places) if asked else None
                for traffic, helper in asked:
                    if ways is not None:
                        yield from _admitted(statement, traffic, helper, ways, path, of_published)
            case _:
                pass


def predicted(
    helper: Helper, traffic: Traffic, *, by_client: bool, to_self_as_client: bool = False
) -> tuple[Cube, ...]:
    """The first packets of connections that one end of a helper's connection opens.

    Told by the helper and by protocols and ports; those without ports have no bound.
    """
    opening = state(State.RELATED) & predicted_by(helper)
    found: list[Cube] = []
    for expectation in helper.expects:
        if expectation.by_client if by_client else expectation.by_server:
            found += (opening & c for c in _opened(expectation, traffic, to_self_as_client))
    return tuple(cube for cube in found if not cube.is_empty)


def _admitted(
    statement: Asking,
    traffic: Traffic,
    helper: Helper,
    ways: Ways,
    path: Path,
    of_published: ConnectionMarkGuard | None,
) -> Iterator[Rule]:
    origins = (Origin(Why.HELPER_EXPECTATION, statement.span, statement.name, traffic.service),)
    families = statement.conditions.families
    # The other conditions are about the packet that opens the connection.
    only = Cube.of({} if families is None else {Field.FAMILY: families})
    to_self = path is Path.INPUT
    by_client = predicted(helper, traffic, by_client=True)
    by_server = predicted(helper, traffic, by_client=False, to_self_as_client=to_self)
    admitted: list[tuple[tuple[Cube, ...], tuple[Cube, ...], tuple[Guard, ...]]] = [
        (ways.there[path], by_client, ()),
        (ways.back[path], by_server, ()),
    ]
    if of_published is not None and path is Path.FORWARD:
        admitted.append((ways.published, by_server, (of_published,)))
    for ends, packets, guards in admitted:
        for end in ends:
            for what in packets:
                cube = what & end & only
                if not cube.is_empty:
                    yield Rule(cube, Accept(), guards, origins)


def _opened(
    expectation: Expectation, traffic: Traffic, to_self_as_client: bool
) -> tuple[Cube, ...]:
    if traffic.data_ports is not None:
        ports = traffic.data_ports
    else:
        ports = EPHEMERAL_PORTS if to_self_as_client else UNPRIVILEGED_PORTS
    ported = expectation.protocols & PORTED
    portless = expectation.protocols - PORTED
    return (
        Cube.of({Field.L4PROTO: ported, Field.DPORT: ports}),
        Cube.of({Field.L4PROTO: portless}),
    )


def _ways(statement: Asking, places: Places) -> Ways | None:
    """None where the ends name nobody: turned round, groups that exclude each other would."""
    match statement:
        case PolicyRule():
            ways = _of_rule(statement, places)
        case PortForward():
            ways = _of_forward(statement, places)
        case Redirect():
            to_self = End((SELF,))
            ways = Ways(
                places.between(statement.source, to_self),
                places.between(to_self, statement.source),
            )
        case TransparentProxying():
            ways = _of_proxy(statement, places)
    return ways if any(ways.there.values()) else None


def _of_rule(rule: PolicyRule, places: Places) -> Ways:
    there = places.between(rule.source, rule.destination)
    back = places.between(rule.destination, rule.source)
    published = places.published(rule.source, rule.destination)
    if not published:
        return Ways(there, back)
    # The port that was dialled is the first connection's.
    forward = (*there[Path.FORWARD], *(c.without(Field.ORIG_DPORT) for c in published))
    called_back = places.between(machines(rule.destination), rule.source)[Path.FORWARD]
    return Ways({**there, Path.FORWARD: compact(forward)}, back, called_back)


def _of_forward(forward: PortForward, places: Places) -> Ways:
    """Between the clients and the targets, which rules see in place of what was dialled."""
    source = clients(forward, places.zones)
    targets = End((EndList((AddressEnd(forward.targets),)),))
    return Ways(places.between(source, targets), places.between(targets, source))


def _of_proxy(proxying: TransparentProxying, places: Places) -> Ways:
    """The proxy has the addresses of those whom it stands for."""
    nobody: ByPath = dict.fromkeys(Path, ())
    met = arriving(places, proxying.source, proxying.destination)[Path.FORWARD]
    there = compact(cube.without(Field.DADDR_TYPE) for cube in met)
    server = by_address(proxying.destination, places.zones)
    back = places.between(server, proxying.source)[Path.FORWARD]
    return Ways({**nobody, Path.INPUT: there}, {**nobody, Path.OUTPUT: back})
