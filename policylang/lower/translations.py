"""Translations as rules: what becomes of connections before they are routed and when they leave.

The first statement that matches decides, in the order written. Nothing that leaves inside IPsec
gets another source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import leaving, of_others
from policylang.lower.conditions import guards, terms, terms_of_predicted
from policylang.lower.deciding import Decider, Decision, log_rule
from policylang.lower.expected import predicted
from policylang.lower.forwards import Forwarding
from policylang.lower.names import log_prefix
from policylang.lower.paths import DESTINATION, SOURCE, Places, names_hosts, traffic_cube, zone_cube
from policylang.lower.placing import why_nothing
from policylang.lower.states import ORIGINAL, state
from policylang.model.policy import Policy
from policylang.model.translations import (
    Netmap,
    PortForward,
    Redirect,
    SourceTranslation,
    TransparentProxying,
    Untracked,
)
from policylang.model.types import AnyEnd, End, EndList
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    DCCP,
    FAMILY_ADDRESSES,
    SCTP,
    TCP,
    UDP,
    UNIVERSE,
    Field,
    State,
)
from policylang.packets.packetset import compact
from policylang.packets.values import Range, Ranges

PORTED = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP, DCCP, SCTP)})
PORTLESS = Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - PORTED[Field.L4PROTO]})
FIRST = state(State.NEW, State.UNTRACKED)
PLAIN = Cube.of({Field.IPSEC_OUT: Ranges.of(0)})
ANYBODY = End((EndList((AnyEnd(),)),))


def destinations(forwardings: Iterable[Forwarding], path: Path, decider: Decider) -> Iterator[Rule]:
    """The rules of DSTNAT: for all that arrives (INPUT), or for what this host sends (OUTPUT)."""
    for one in forwardings:
        statement = one.statement
        if isinstance(statement, TransparentProxying):
            continue
        decision = Decision(
            None,
            "redirect" if isinstance(statement, Redirect) else "dnat",
            (Origin(Why.WRITTEN, statement.span, statement.name),),
            log=None if isinstance(statement, Netmap) else statement.log,
            guards=guards(statement.conditions),
            does=_does(one),
        )
        if decision.log is not None:
            yield from decider.rules(decision, one.cubes(path))
            continue
        for step in decision.does:
            for cube in compact(end & step.cube for end in one.ends[path]):
                yield Rule(cube, step.action, decision.guards, decision.origins)


def proxied(policy: Policy, forwardings: Iterable[Forwarding], decider: Decider) -> Iterator[Rule]:
    """The rules of TPROXY: every packet that a client sends to what a local proxy stands for."""
    asking = [ORIGINAL]
    if any(isinstance(statement, Untracked) for statement in policy.treatments):
        asking.append(state(State.UNTRACKED))
    for one in forwardings:
        statement = one.statement
        if not isinstance(statement, TransparentProxying):
            continue
        origins = (Origin(Why.WRITTEN, statement.span, statement.name),)
        log: tuple[Rule, ...] = ()
        if statement.log is not None:
            log = (log_rule(statement.log, FIRST, origins, log_prefix("tproxy", None)),)
        decision = Decision(
            None,
            "tproxy",
            origins,
            guards=guards(statement.conditions),
            reminders=log,
            does=_does(one),
        )
        cubes = tuple(cube & way for way in asking for cube in one.cubes(Path.INPUT))
        yield from decider.rules(decision, cubes)


def _does(one: Forwarding) -> tuple[Rule, ...]:
    """What becomes of the packets of a statement, told apart by what is dialled."""
    by_action: dict[ir.Action, list[Cube]] = {}
    for way in one.ways:
        by_action.setdefault(way.action, []).append(way.cube)
    return tuple(
        Rule(cube, action) for action, cubes in by_action.items() for cube in compact(cubes)
    )


def sources(
    policy: Policy,
    forwardings: Iterable[Forwarding],
    places: Places,
    decider: Decider,
    report: Report,
) -> Iterator[Rule]:
    """The rules of SRCNAT, for all that leaves.

    What `hairpin` needs stands at the place of its statement among the others. Reports
    `matches-nothing` for `masquerade` and `snat`.
    """
    of_statement = {id(one.statement): one for one in forwardings}
    for statement in policy.treatments:
        match statement:
            case SourceTranslation():
                decision, cubes = _translation(statement, places)
            case Netmap():
                decision, cubes = _outward(statement, places)
            case PortForward(is_hairpin=True):
                decision, cubes = _hairpin(of_statement[id(statement)], statement, places)
            case _:
                continue
        rules = tuple(decider.rules(decision, compact(cube & PLAIN for cube in cubes)))
        yield from rules
        if isinstance(statement, SourceTranslation) and not rules and not names_hosts(statement):
            ends = places.between(statement.source, statement.destination)
            report.add(
                "matches-nothing",
                "no packet can meet this statement",
                statement.span,
                help=why_nothing(any((*ends[Path.FORWARD], *ends[Path.OUTPUT]))),
            )


def _translation(statement: SourceTranslation, places: Places) -> tuple[Decision, tuple[Cube, ...]]:
    families = Cube.of({Field.FAMILY: statement.families})
    found: list[Cube] = []
    for met, spoken_of in (
        (terms(statement.conditions), map(traffic_cube, statement.what)),
        (terms_of_predicted(statement.conditions), _predicted(statement)),
    ):
        ends = leaving(places, statement.source, statement.destination, met & families)
        cubes = compact(spoken_of)
        found += (end & cube for end in ends for cube in cubes)
    decision = Decision(
        None,
        "masquerade" if statement.addresses is None else "snat",
        (Origin(Why.WRITTEN, statement.span, statement.name),),
        log=statement.log,
        guards=guards(statement.conditions),
        does=tuple(_new_sources(statement)),
    )
    return decision, compact(found)


def _predicted(statement: SourceTranslation) -> Iterator[Cube]:
    """What the clients of helpers open themselves.

    A NAT part takes along what it has set up itself, which never comes here; that is not all that
    its helper predicts (H.245 goes to the address that the other end named), and some have none.
    """
    for traffic in statement.what:
        if traffic.helper is not None:
            yield from predicted(traffic.helper, traffic, by_client=True)


def _new_sources(statement: SourceTranslation) -> Iterator[Rule]:
    """What the source becomes, family by family, with ports where there are any."""
    kinds: list[tuple[Cube, Range | None]] = [(EVERYTHING, None)]
    if statement.ports is not None:
        kinds = [(PORTED, statement.ports), (PORTLESS, None)]
    for kind, ports in kinds:
        if statement.addresses is None:
            yield Rule(kind, ir.Masquerade(ports, statement.is_random))
            continue
        for family, of_it in FAMILY_ADDRESSES.items():
            for addresses in statement.addresses & of_it:
                yield Rule(
                    kind & Cube.of({Field.FAMILY: Ranges.of(family)}),
                    ir.SourceNat(addresses, ports, statement.is_random, statement.is_persistent),
                )


def _outward(netmap: Netmap, places: Places) -> tuple[Decision, tuple[Cube, ...]]:
    """The other half of `netmap`: whoever has an inner address is known by the outer one."""
    inner = Cube.of({Field.SADDR: Ranges((netmap.inner,))}) & terms(netmap.conditions)
    decision = Decision(
        None,
        "netmap",
        (Origin(Why.WRITTEN, netmap.span, netmap.name),),
        guards=guards(netmap.conditions),
        does=(Rule(EVERYTHING, ir.MapPrefix(ir.End.SOURCE, netmap.outer)),),
    )
    return decision, leaving(places, ANYBODY, netmap.on, inner)


def _hairpin(
    one: Forwarding, forward: PortForward, places: Places
) -> tuple[Decision, tuple[Cube, ...]]:
    """Where client and target share a zone, answers would go past this host: it stands between."""
    decision = Decision(
        None,
        "hairpin",
        (Origin(Why.WRITTEN, forward.span, forward.name),),
        guards=guards(forward.conditions),
        does=(Rule(EVERYTHING, ir.Masquerade()),),
    )
    seen = [cube for _, cube, _ in one.after(Path.FORWARD)]
    shared = [zone_cube(z, SOURCE) & zone_cube(z, DESTINATION) for z in places.zones]
    return decision, tuple(of_others(cube & zone) for cube in seen for zone in shared)
