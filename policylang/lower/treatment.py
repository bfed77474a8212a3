"""`clamp mss` and `offload`: what is done to both directions of connections between two ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policylang.diagnostics import Label, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOOPBACK
from policylang.lower.conditions import guards, terms
from policylang.lower.paths import Places, traffic_cube
from policylang.lower.placing import Placed, why_nothing
from policylang.lower.states import state
from policylang.model.policy import Policy
from policylang.model.translations import Clamp, Marking, Offloading, Queueing
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, TCP_RST, TCP_SYN, UDP, Field, State, with_flags
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges

OPENING = Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN | TCP_RST, TCP_SYN)})
OFFLOADED = state(State.ESTABLISHED) & Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP)})
NOT_TO_SELF = Cube.of({Field.OIF: NOT_LOOPBACK})


def clamps(policy: Policy, path: Path, places: Places, report: Report) -> Iterator[Rule]:
    """The TREAT rules of a path: what both ends offer each other, whoever opens.

    What reaches this host is not among them: it knows its own paths. Reports `matches-nothing`.
    """
    for clamp in policy.statements:
        if not isinstance(clamp, Clamp):
            continue
        ends = _both_ways(clamp, places)
        opening = OPENING & terms(clamp.conditions)
        cubes = {p: compact(end & opening for end in ends[p]) for p in ends}
        if path is Path.FORWARD and not any(cubes.values()):
            _report_nothing(clamp, any(ends.values()), report)
        origins = (Origin(Why.WRITTEN, clamp.span, clamp.name),)
        for cube in cubes[path]:
            if path is Path.OUTPUT:
                cube &= NOT_TO_SELF
            yield Rule(cube, ir.ClampMss(clamp.size), guards(clamp.conditions), origins)


def offloading(policy: Policy, places: Places, report: Report) -> Iterator[Rule]:
    """The first rules of what is forwarded: open connections that may go past the rest.

    Reports `matches-nothing`.
    """
    for offload in policy.statements:
        if not isinstance(offload, Offloading):
            continue
        cubes = _offloaded(offload, places)
        if not cubes:
            ends = _both_ways(offload, places)
            _report_nothing(offload, bool(ends[Path.FORWARD]), report)
        origins = (Origin(Why.WRITTEN, offload.span, offload.name),)
        for cube in cubes:
            asked = guards(offload.conditions)
            yield Rule(cube, ir.Offload(offload.devices), asked, origins)


def warn_of_bypasses(
    policy: Policy, placed: Sequence[Placed], places: Places, report: Report
) -> None:
    """Report statements about packets that never come by, once offloaded: `offload-bypasses`."""
    for offload in policy.statements:
        if not isinstance(offload, Offloading):
            continue
        cubes = _offloaded(offload, places)
        passed = [
            (p.rule.span, "a ban of open connections")
            for p in placed
            if p.rule.also_established
            and any(a.meets(b) for a in cubes for b in p.cubes[Path.FORWARD])
        ]
        for other in policy.statements:
            if isinstance(other, (Marking, Queueing)):
                between = places.between(other.source, other.destination)[Path.FORWARD]
                opening = [end & traffic_cube(t) for t in other.what for end in between]
                if any(a.meets(b) for a in cubes for b in opening):
                    what = "a queue" if isinstance(other, Queueing) else "a mark"
                    passed.append((other.span, what))
        for span, what in passed:
            report.add(
                "offload-bypasses",
                f"{what} never meets the packets of connections that are offloaded",
                span,
                help="leave these connections out of what is offloaded",
                labels=(Label(offload.span, "these go past the rules once they are open"),),
            )


def _offloaded(offload: Offloading, places: Places) -> tuple[Cube, ...]:
    what = OFFLOADED & terms(offload.conditions)
    return compact(end & what for end in _both_ways(offload, places)[Path.FORWARD])


def _both_ways(statement: Clamp | Offloading, places: Places) -> dict[Path, tuple[Cube, ...]]:
    there = places.between(statement.source, statement.destination)
    back = places.between(statement.destination, statement.source)
    return {path: compact((*there[path], *back[path])) for path in (Path.FORWARD, Path.OUTPUT)}


def _report_nothing(statement: Clamp | Offloading, has_ends: bool, report: Report) -> None:
    report.add(
        "matches-nothing",
        "no packet can meet this statement",
        statement.span,
        help=why_nothing(has_ends),
    )
