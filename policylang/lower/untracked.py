"""`untracked`: what conntrack leaves alone, and what rules then say of the answers to it.

Conntrack tells nothing of such packets, so a rule that was read for the packet that asks is read
at the same place for the one that answers. Defaults are not: they decide what no rule allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from policylang.diagnostics import Label, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOOPBACK, arriving
from policylang.lower.conditions import (
    guards_of_answers,
    is_counted,
    on_path,
    terms,
    untold_by_answers,
)
from policylang.lower.deciding import Decision
from policylang.lower.mirroring import TURNED_PATH, mirrored, untold
from policylang.lower.paths import Places, names_hosts, traffic_cube
from policylang.lower.placing import Placed, why_nothing
from policylang.lower.states import icmp_errors, state
from policylang.model.policy import Policy
from policylang.model.translations import (
    Marking,
    PortForward,
    Redirect,
    SourceTranslation,
    Untracked,
)
from policylang.model.types import End, EndList, PolicyRule, SelfEnd, Verb
from policylang.packets.cube import EMPTY, EVERYTHING, Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    TCP,
    TCP_ACK,
    TCP_SYN,
    UNIVERSE,
    Field,
    State,
    with_flags,
)
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges
from policylang.source import Span

UNTRACKED, INVALID = state(State.UNTRACKED), state(State.INVALID)
NOT_LOCALLY = Cube.of({Field.IIF: NOT_LOOPBACK})

# Disjoint: an answer opens nothing, so it is no SYN without an ACK.
NO_OPENING = (
    Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(TCP)}),
    Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN, 0)}),
    Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK)}),
)
# What tells where a packet goes; an error about it may come from any router.
WAY_THERE = (Field.IIF, Field.OIF, Field.FAMILY, Field.DADDR, *DADDR_TESTS)


def untracking(policy: Policy, places: Places, report: Report) -> dict[Path, tuple[Rule, ...]]:
    """The rules of the UNTRACK stage: INPUT for all that arrives, OUTPUT.

    Reports `matches-nothing`.
    """
    found: dict[Path, list[Rule]] = {Path.INPUT: [], Path.OUTPUT: []}
    for statement in policy.statements:
        if not isinstance(statement, Untracked):
            continue
        there = _before_routing(statement.source, statement.destination, places)
        back = _before_routing(statement.destination, statement.source, places)
        conditions = terms(statement.conditions)
        asking = [traffic_cube(t) & conditions for t in statement.what]
        answers = [mirrored(cube) for cube in asking]
        origins = (Origin(Why.WRITTEN, statement.span, statement.name),)
        asked = guards_of_answers(statement.conditions)
        is_met = False
        for path, rules in found.items():
            cubes = [end & cube for cube in asking for end in there[path]]
            is_met = is_met or not all(cube.is_empty for cube in cubes)
            cubes += [end & cube for cube in answers for end in back[path]]
            rules += (Rule(cube, ir.Untrack(), asked, origins) for cube in compact(cubes))
        if not is_met and not names_hosts(statement):
            report.add(
                "matches-nothing",
                "no packet can meet this statement",
                statement.span,
                help=why_nothing(any(there.values())),
            )
    return {path: tuple(rules) for path, rules in found.items()}


def _before_routing(source: End, destination: End, places: Places) -> dict[Path, tuple[Cube, ...]]:
    found = arriving(places, source, destination)
    arrived = (*found[Path.INPUT], *found[Path.FORWARD])
    return {
        Path.INPUT: compact(cube & NOT_LOCALLY for cube in arrived),
        Path.OUTPUT: found[Path.OUTPUT],
    }


# --- rules ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answering:
    """A rule that meets untracked traffic, and the `answers` to that, on each path.

    `going` is the way that packets of both directions take, where the rule allows them.
    """

    rule: PolicyRule
    answers: dict[Path, tuple[Cube, ...]]
    going: dict[Path, tuple[Cube, ...]]

    def decision(self) -> Decision:
        """What the rule does with answers: what it logs and collects are first packets."""
        return Decision(
            self.rule.verb,
            self.rule.verb.value,
            (Origin(Why.ANSWER, self.rule.span, self.rule.name),),
            self.rule.answer,
            guards=guards_of_answers(self.rule.conditions),
        )


def answering(
    policy: Policy, placed: Sequence[Placed], places: Places, report: Report
) -> dict[int, Answering]:
    """The rules that hold for answers too, by the identity of the rule.

    Reports `answers-untold` where an `allow` cannot.
    """
    statements = [s for s in policy.statements if isinstance(s, Untracked)]
    if not statements:
        return {}
    opening = {
        path: compact(c for s in statements for c in opening_packets(s, places)[path])
        for path in Path
    }
    found: dict[int, Answering] = {}
    for one in placed:
        met = {
            path: compact(a & b for a in map(_untranslated, one.cubes[path]) for b in opening[path])
            for path in Path
        }
        if not any(met.values()):
            continue
        is_allowed = one.rule.verb is Verb.ALLOW
        words = _untold_words(one.rule, met)
        if words and is_allowed:
            report.add(
                "answers-untold",
                f"answers to untracked traffic do not tell of {words}, so the rule is not about "
                "them",
                one.rule.span,
                help="write a rule for the answers, if they do not pass anyway",
                labels=(
                    Label(_why(statements, met, places), "conntrack leaves the traffic alone"),
                ),
            )
        # A ban that asks for more than answers tell leaves them alone, as for open connections.
        if words or (is_counted(one.rule.conditions) and not is_allowed):
            continue
        answers = {p: tuple(_answers(met[TURNED_PATH[p]], is_allowed)) for p in Path}
        going = {p: compact(map(_way, (*met[p], *answers[p]))) if is_allowed else () for p in Path}
        found[id(one.rule)] = Answering(one.rule, answers, going)
    return found


def _why(
    statements: Sequence[Untracked], met: dict[Path, tuple[Cube, ...]], places: Places
) -> Span:
    """The first statement that has some of these packets."""
    return next(
        s.span
        for s in statements
        for path, cubes in opening_packets(s, places).items()
        if any(a.meets(b) for a in cubes for b in met[path])
    )


def errors(answering: Iterable[Answering], path: Path) -> Iterator[Rule]:
    """The rules that admit errors about untracked traffic, which conntrack calls INVALID.

    What they are about is not told, so that all errors pass that go where a packet of a rule
    may have come from.
    """
    for one in answering:
        origins = (Origin(Why.ICMP_ERROR, one.rule.span, one.rule.name),)
        for error in icmp_errors():
            for cube in one.going[path]:
                passing = cube & error & INVALID
                if not passing.is_empty:
                    yield Rule(passing, ir.Accept(), (), origins)


def opening_packets(statement: Untracked, places: Places) -> dict[Path, tuple[Cube, ...]]:
    """The packets that ask, as they are told behind routing."""
    conditions = terms(statement.conditions)
    return {
        path: compact(end & traffic_cube(t) & conditions for t in statement.what for end in ends)
        for path, ends in places.between(statement.source, statement.destination).items()
    }


def _untranslated(cube: Cube) -> Cube:
    """The packets of a cube that were not translated: nothing else is left alone by conntrack."""
    if any(field in cube for field in (Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT)):
        return EMPTY
    return cube


def _untold_words(rule: PolicyRule, met: dict[Path, tuple[Cube, ...]]) -> str:
    words = untold_by_answers(rule.conditions)
    if not words and any(untold(cube) for cubes in met.values() for cube in cubes):
        words = ("ipsec",)  # as an end
    return ", ".join(f"`{word}`" for word in words)


def _answers(asking: Iterable[Cube], is_allowed: bool) -> Iterator[Cube]:
    for cube in asking:
        answer = mirrored(cube) & UNTRACKED
        kinds = NO_OPENING if is_allowed and TCP in answer[Field.L4PROTO] else (EVERYTHING,)
        yield from (c for kind in kinds if not (c := answer & kind).is_empty)


def _way(cube: Cube) -> Cube:
    return Cube.of({field: values for field, values in cube if field in WAY_THERE})


# --- what needs conntrack ---------------------------------------------------------------------


def warn_of_needs(policy: Policy, placed: Sequence[Placed], places: Places, report: Report) -> None:
    """Report what cannot work without conntrack: `needs-tracking`."""
    for statement in policy.statements:
        if not isinstance(statement, Untracked):
            continue
        behind = opening_packets(statement, places)
        conditions = terms(statement.conditions)
        before = {
            path: [end & traffic_cube(t) & conditions for t in statement.what for end in ends]
            for path, ends in _before_routing(
                statement.source, statement.destination, places
            ).items()
        }
        for span, what in (
            *_rules_in_need(placed, behind),
            *_treatments_in_need(policy, places, behind, before),
        ):
            report.add(
                "needs-tracking",
                f"{what}, and conntrack leaves some of this traffic alone",
                span,
                labels=(Label(statement.span, "because of this"),),
            )


def _rules_in_need(
    placed: Sequence[Placed], behind: dict[Path, tuple[Cube, ...]]
) -> Iterator[tuple[Span, str]]:
    for one in placed:
        met = [a & b for path in Path for a in one.cubes[path] for b in behind[path]]
        met = [cube for cube in met if not cube.is_empty]
        helpers = {t.helper.name: t for t in one.rule.what if t.helper is not None}
        for name, traffic in helpers.items():
            if one.rule.verb is Verb.ALLOW and any(traffic_cube(traffic).meets(c) for c in met):
                yield one.rule.span, f"the helper `{name}` reads connections"
        if one.rule.conditions.connections is not None and met:
            yield one.rule.span, "this rule counts connections"


def _treatments_in_need(
    policy: Policy,
    places: Places,
    behind: dict[Path, tuple[Cube, ...]],
    before: dict[Path, list[Cube]],
) -> Iterator[tuple[Span, str]]:
    for statement in policy.statements:
        untracked: Mapping[Path, Iterable[Cube]] = before
        match statement:
            case SourceTranslation():
                ends = places.between(statement.source, statement.destination)
                untracked = behind
            case Redirect() | Marking(of_answers=True):
                ends = _before_routing(statement.source, statement.destination, places)
            case PortForward():
                own = End((EndList((SelfEnd(),)),))
                at = own if statement.at is None else statement.at
                ends = _before_routing(statement.source, at, places)
            case _:
                continue
        conditions = terms(statement.conditions)
        cubes = {
            path: [
                on_path(c & traffic_cube(t) & conditions, path) for t in statement.what for c in cs
            ]
            for path, cs in ends.items()
        }
        if any(a.meets(b) for path in cubes for a in cubes[path] for b in untracked.get(path, ())):
            is_mark = isinstance(statement, Marking)
            yield (
                statement.span,
                "answers find the mark of their connection"
                if is_mark
                else "connections are what is translated",
            )
