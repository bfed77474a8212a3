"""Conntrack helpers: which connections get one, told before they are routed and translated.

INVARIANT: assigning may be wider than what is admitted, where the way out is not known yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policylang.ir.actions import AssignHelper, Leave
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOCAL, delivered
from policylang.lower.conditions import guards, on_path, terms
from policylang.lower.forwards import Elsewhere, Forwarding
from policylang.lower.paths import Places, dialled_cube, traffic_cube
from policylang.lower.published import as_dialled
from policylang.model.policy import Policy, Statement
from policylang.model.translations import Netmap, PortForward, Redirect, TransparentProxying
from policylang.model.types import Helper, PolicyRule, Traffic, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import DADDR_TESTS, TCP, Field
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges


def assignments(
    policy: Policy, forwardings: Iterable[Forwarding], path: Path, places: Places
) -> tuple[Rule, ...]:
    """The ASSIGN_HELPER rules of a path, in the order of the policy.

    A statement that allows the same connections without the helper, and stands before, keeps the
    helper away from them; within a statement the helper goes first. Rules see what translation
    left, and helpers are assigned before it: so a rule counts for what becomes its own, too.
    """
    if not any(_has_helper(statement) for statement in policy.statements):
        return ()
    of_statement = {id(one.statement): one for one in forwardings}
    found: list[Rule] = []
    for statement in policy.statements:
        if id(statement) in of_statement:
            one = of_statement[id(statement)]
            if not isinstance(one.statement, Netmap):
                found += _of_forwarding(one, one.statement, path)
        elif isinstance(statement, PolicyRule) and statement.verb is Verb.ALLOW:
            found += _of_rule(statement, tuple(of_statement.values()), path, places)
    return _without_idle(found)


def _has_helper(statement: Statement) -> bool:
    what: tuple[Traffic, ...] = getattr(statement, "what", ())
    return any(traffic.helper is not None for traffic in what)


def _of_rule(
    rule: PolicyRule, forwardings: tuple[Forwarding, ...], path: Path, places: Places
) -> Iterator[Rule]:
    conditions = terms(rule.conditions)
    between = places.between(rule.source, rule.destination)
    published = places.published(rule.source, rule.destination)
    may_fail = bool(guards(rule.conditions))
    for traffic in sorted(rule.what, key=lambda t: t.helper is None):
        origins = (Origin(Why.HELPER_ASSIGNMENT, rule.span, rule.name, traffic.service),)
        spoken_of = traffic_cube(traffic) & conditions
        met = {p: [on_path(c & spoken_of, p) for c in cubes] for p, cubes in between.items()}
        if traffic.helper is None:
            if may_fail:
                continue  # it may not match, and a rule behind it then gives the helper
            # Where the way out is not known yet, no interface of it tells the two apart.
            exact = {p: [c for c in cs if _is_told(c, p)] for p, cs in met.items()}
            cubes = [_where_it_arrives(c, path) for c in exact[path]]
            cubes += _before_translation(exact, forwardings, path)
            yield from (Rule(c, Leave(), (), origins) for c in cubes if not c.is_empty)
            continue
        cubes = [_where_it_arrives(c, path) for c in met[path]]
        cubes += _before_translation(met, forwardings, path)
        if path is Path.INPUT:
            asked = dialled_cube(traffic) & conditions
            cubes += [as_dialled(cube & asked) for cube in published]
        yield from _assigned(traffic.helper, cubes, origins)


def _of_forwarding(
    one: Forwarding, statement: PortForward | Redirect | TransparentProxying, path: Path
) -> Iterator[Rule]:
    """What a statement sends elsewhere, and so allows, on the ports that the client dials."""
    ways = [way for way in one.ways if not way.is_predicted]
    for way in sorted(ways, key=lambda way: way.traffic.helper is None):
        origins = (
            Origin(Why.HELPER_ASSIGNMENT, statement.span, statement.name, way.traffic.service),
        )
        cubes = compact(end & way.cube for end in one.ends.get(path, ()))
        if way.traffic.helper is not None:
            yield from _assigned(way.traffic.helper, cubes, origins)
        elif not guards(statement.conditions):
            yield from (Rule(cube, Leave(), (), origins) for cube in cubes)


def _assigned(helper: Helper, cubes: Iterable[Cube], origins: tuple[Origin, ...]) -> Iterator[Rule]:
    cubes = compact(cubes)
    for kernel_name, protocol in helper.assigns:
        only = Cube.of({Field.L4PROTO: Ranges.of(protocol), Field.FAMILY: helper.families})
        for cube in cubes:
            if not (cube & only).is_empty:
                yield Rule(cube & only, AssignHelper(kernel_name, protocol), (), origins)


def _is_told(cube: Cube, path: Path) -> bool:
    return path is not Path.FORWARD or Field.OIF not in cube


def _before_translation(
    met: Mapping[Path, list[Cube]], forwardings: tuple[Forwarding, ...], path: Path
) -> list[Cube]:
    """What arrives, or is sent, and is a rule's own (`met`) once it has been translated.

    A statement whose own helper stands there already needs nobody else's.
    """
    if path is Path.FORWARD:
        return []  # all that arrives is read on INPUT
    paths = (Path.OUTPUT,) if path is Path.OUTPUT else (Path.INPUT, Path.FORWARD)
    return [
        _undone(before, seen, cube, one.statement)
        for one in forwardings
        for seen_on in paths
        for before, seen, way in one.after(seen_on)
        if way.traffic.helper is None
        for cube in met[seen_on]
        if seen.meets(cube)
    ]


def _undone(before: Cube, seen: Cube, cube: Cube, statement: Elsewhere) -> Cube:
    """The packets `before` a translation that are in `cube` when they are `seen` after it."""
    ours = seen & cube
    kept = cube.without(Field.OIF, Field.DADDR, *DADDR_TESTS, Field.DADDR_TYPE)
    kept = kept.without(Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT)
    if before[Field.DPORT] != seen[Field.DPORT]:
        kept = kept.without(Field.DPORT)
    if isinstance(statement, Netmap):
        shift = statement.outer[0] - statement.inner[0]
        moved = Ranges.merged((low + shift, high + shift) for low, high in ours[Field.DADDR])
        kept &= Cube.of({Field.DADDR: moved})
    return before & kept


def _where_it_arrives(cube: Cube, path: Path) -> Cube:
    """The packets as they can be told before routing, where the way out is not known."""
    match path:
        case Path.INPUT:
            return delivered(cube, is_tcp=cube[Field.L4PROTO] == Ranges.of(TCP))
        case Path.FORWARD:
            return cube.without(Field.OIF) & Cube.of({Field.DADDR_TYPE: NOT_LOCAL})
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
