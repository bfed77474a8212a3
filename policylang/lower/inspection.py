"""`queue`: which packets of what passed are handed to programs, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOOPBACK
from policylang.lower.conditions import (
    guards,
    guards_of_answers,
    on_path,
    terms,
    terms_of_predicted,
    untold_by_answers,
)
from policylang.lower.mirroring import TURNED_PATH, mirrored, untold
from policylang.lower.paths import Places, names_hosts, traffic_cube
from policylang.lower.placing import why_nothing
from policylang.lower.states import EXPECTED, ORIGINAL, REPLY, predicted_by, without_connection
from policylang.model.policy import Policy
from policylang.model.translations import Queueing
from policylang.model.types import End, Traffic
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.packetset import compact

# What this host sends to itself passes, whatever it is.
NOT_TO_ITSELF = {
    Path.INPUT: Cube.of({Field.IIF: NOT_LOOPBACK}),
    Path.FORWARD: EVERYTHING,
    Path.OUTPUT: Cube.of({Field.OIF: NOT_LOOPBACK}),
}


def queues(
    policy: Policy, places: Places, report: Report, *, has_helpers: bool
) -> dict[Path, tuple[Rule, ...]]:
    """The INSPECT rules of each path, in the order of the policy: the first that matches decides.

    `has_helpers` says whether any connection may be predicted. Reports `matches-nothing`, and
    `answers-untold` where answers do not tell of what the statement asks.
    """
    found: dict[Path, list[Rule]] = {path: [] for path in Path}
    for statement in policy.statements:
        if isinstance(statement, Queueing):
            queue = _Queue(statement, places, has_helpers)
            queue.check(report)
            for path in Path:
                found[path] += queue.rules(path)
    return {path: tuple(rules) for path, rules in found.items()}


@dataclass(frozen=True, slots=True)
class _Queue:
    """One statement, read path by path."""

    statement: Queueing
    places: Places
    has_helpers: bool

    def rules(self, path: Path) -> Iterator[Rule]:
        statement = self.statement
        low, high = statement.queues
        action = ir.Queue(low, high, statement.may_bypass)
        origins = (Origin(Why.WRITTEN, statement.span, statement.name),)
        here = NOT_TO_ITSELF[path]
        for cube in compact(c & here for c in self._asking(path)):
            yield Rule(cube, action, guards(statement.conditions), origins)
        if not untold_by_answers(statement.conditions):
            for cube in compact(c & here for c in self._answers(path)):
                yield Rule(cube, action, guards_of_answers(statement.conditions), origins)

    def _between(self, source: End, destination: End) -> dict[Path, tuple[Cube, ...]]:
        return self.places.between(source, destination, is_whole=True)

    def check(self, report: Report) -> None:
        statement = self.statement
        opening = [c for path in Path for c, _ in self._opening(path)]
        if not opening and not names_hosts(statement):
            ends = self._between(statement.source, statement.destination)
            report.add(
                "matches-nothing",
                "no packet can meet this statement",
                statement.span,
                help=why_nothing(any(ends.values())),
            )
        words = dict.fromkeys(untold_by_answers(statement.conditions))
        if any(untold(c) for c in opening) and not words:
            words["ipsec"] = None
        if words:
            report.add(
                "answers-untold",
                "answers do not tell of " + ", ".join(f"`{word}`" for word in words) + ": they are "
                "not handed on",
                statement.span,
            )

    def _opening(self, path: Path) -> Iterator[tuple[Cube, Traffic]]:
        statement = self.statement
        conditions = terms(statement.conditions)
        for end in self._between(statement.source, statement.destination)[path]:
            for traffic in statement.what:
                cube = on_path(end & traffic_cube(traffic) & conditions, path)
                if not cube.is_empty:
                    yield cube, traffic

    def _asking(self, path: Path) -> Iterator[Cube]:
        statement = self.statement
        for cube, traffic in self._opening(path):
            yield cube & ORIGINAL
            yield from _loose(cube, traffic, path)
        conditions = terms_of_predicted(statement.conditions)
        there = self._between(statement.source, statement.destination)[path]
        for predicted in self._predicted():
            yield from (on_path(end & predicted & conditions, path) for end in there)

    def _answers(self, path: Path) -> Iterator[Cube]:
        statement = self.statement
        for cube, traffic in self._opening(TURNED_PATH[path]):
            if not untold(cube):
                answers = mirrored(cube)
                yield answers & REPLY
                yield from _loose(answers, traffic, path)
        conditions = Cube.of(
            {Field.FAMILY: statement.conditions.families or UNIVERSE[Field.FAMILY]}
        )
        back = self._between(statement.destination, statement.source)[path]
        for predicted in self._predicted():
            yield from (end & predicted & conditions for end in back)

    def _predicted(self) -> Iterator[Cube]:
        """What helpers predict: whichever end opens it, the ends tell which way a packet goes."""
        for traffic in self.statement.what:
            if traffic.helper is not None:
                yield predicted_by(traffic.helper)
            elif traffic == Traffic() and self.has_helpers:
                yield EXPECTED


def _loose(cube: Cube, traffic: Traffic, path: Path) -> tuple[Cube, ...]:
    """The packets without a connection; what the network itself needs is never forwarded."""
    return without_connection(cube, names_icmp=traffic.names_icmp or path is Path.FORWARD)
