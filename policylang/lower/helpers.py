"""Conntrack helpers: who gets one, and which of the connections it predicts may pass.

INVARIANT: assigning may be wider than what is admitted, where the way out is not known yet;
accepting never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policylang.ir.actions import Accept, AssignHelper, Leave
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.conditions import guards, on_path, terms
from policylang.lower.paths import Places, traffic_cube
from policylang.model.types import Expectation, Helper, PolicyRule, Traffic, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UDP, UNIVERSE, AddressType, Field, State
from policylang.packets.values import Ranges, name_range

# Linux's net.ipv4.ip_local_port_range unless changed.
EPHEMERAL_PORTS = Ranges.between(32768, 60999)
UNPRIVILEGED_PORTS = Ranges.between(1024, 65535)
PORTED = Ranges.of(TCP, UDP)

# What the routing table calls the destinations of packets that this host receives.
DELIVERED = Ranges.of(AddressType.LOCAL, AddressType.BROADCAST, AddressType.MULTICAST)
LOCAL = Ranges.of(AddressType.LOCAL)


def assignments(rules: tuple[PolicyRule, ...], path: Path, places: Places) -> tuple[Rule, ...]:
    """The ASSIGN_HELPER rules of a path, in the order of the policy.

    A rule that allows the same connections without the helper, and stands before, keeps the
    helper away from them; within a rule the helper goes first.
    """
    found: list[Rule] = []
    for rule in rules:
        if rule.verb is not Verb.ALLOW:
            continue
        conditions = terms(rule.conditions)
        between = places.between(rule.source, rule.destination)[path]
        ends = [e for c in between if not (e := on_path(c & conditions, path)).is_empty]
        for traffic in sorted(rule.what, key=lambda t: t.helper is None):
            cubes = [end & traffic_cube(traffic) for end in ends]
            origins = (Origin(Why.HELPER_ASSIGNMENT, rule.span, rule.name, traffic.service),)
            if traffic.helper is None:
                if guards(rule.conditions):
                    continue  # it may not match, and a rule behind it then gives the helper
                is_exact = path is not Path.FORWARD  # where the way out is not known yet
                exact = (
                    _where_it_arrives(c, path) for c in cubes if is_exact or Field.OIF not in c
                )
                found += (Rule(c, Leave(), (), origins) for c in exact if not c.is_empty)
                continue
            for kernel_name, protocol in traffic.helper.assigns:
                only = Cube.of(
                    {
                        Field.L4PROTO: Ranges.of(protocol),
                        Field.FAMILY: traffic.helper.families,
                    }
                )
                for cube in cubes:
                    arriving = _where_it_arrives(cube & only, path)
                    if not arriving.is_empty:
                        action = AssignHelper(kernel_name, protocol)
                        found.append(Rule(arriving, action, (), origins))
    return _without_idle(found)


def _where_it_arrives(cube: Cube, path: Path) -> Cube:
    """The packets as they can be told before routing, where the way out is not known."""
    match path:
        case Path.INPUT:
            if Field.DADDR_TYPE in cube:
                return cube
            delivered = LOCAL if cube[Field.L4PROTO] == Ranges.of(TCP) else DELIVERED
            return cube & Cube.of({Field.DADDR_TYPE: delivered})
        case Path.FORWARD:
            other = UNIVERSE[Field.DADDR_TYPE] - LOCAL
            return cube.without(Field.OIF) & Cube.of({Field.DADDR_TYPE: other})
        case Path.OUTPUT:
            return cube


def _without_idle(rules: list[Rule]) -> tuple[Rule, ...]:
    """The rules less those that only keep a helper away that nothing behind them assigns."""
    kept: list[Rule] = []
    assigned: list[Cube] = []
    for rule in reversed(rules):
        if isinstance(rule.action, AssignHelper):
            assigned.append(rule.cube)
        elif not any(rule.cube.meets(cube) for cube in assigned):
            continue
        kept.append(rule)
    return tuple(reversed(kept))


def expectations(rules: Iterable[PolicyRule], path: Path, places: Places) -> Iterator[Rule]:
    """The FILTER rules that admit what helpers predict, on one path."""
    for rule in rules:
        if rule.verb is not Verb.ALLOW:
            continue
        for traffic in rule.what:
            if traffic.helper is not None:
                yield from _expected(rule, traffic, traffic.helper, path, places)


def _expected(
    rule: PolicyRule, traffic: Traffic, helper: Helper, path: Path, places: Places
) -> Iterator[Rule]:
    opening = places.between(rule.source, rule.destination)
    if not any(opening.values()):
        return  # ends that name nobody; turned round, groups that exclude each other would
    origins = (Origin(Why.HELPER_EXPECTATION, rule.span, rule.name, traffic.service),)
    state = Cube.of(
        {
            Field.CT_STATE: Ranges.of(State.RELATED),
            Field.CT_HELPER: Ranges.merged(name_range(name) for name in helper.matches),
            Field.FAMILY: helper.families,
        }
    )
    if rule.conditions.families is not None:
        # The other conditions are about the packet that opens the connection.
        state &= Cube.of({Field.FAMILY: rule.conditions.families})
    for expectation in helper.expects:
        directions = []
        if expectation.by_client:
            directions.append((opening, False))
        if expectation.by_server:
            back = places.between(rule.destination, rule.source)
            directions.append((back, path is Path.INPUT))
        for ends, to_self_as_client in directions:
            for end in ends[path]:
                for what in _predicted(expectation, traffic, to_self_as_client):
                    cube = state & end & what
                    if not cube.is_empty:
                        yield Rule(cube, Accept(), (), origins)


def _predicted(
    expectation: Expectation, traffic: Traffic, to_self_as_client: bool
) -> tuple[Cube, ...]:
    """The protocols and ports of predicted connections; those without ports have no bound."""
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
