"""`also established`: rules that hold for open connections too; knows no other rule's meaning.

A packet of an open connection is judged by the rules that its first packet would meet: an
earlier rule that decides the connection otherwise keeps a ban away from it, as it does for the
first packet. Not every packet tells all of the first one. Where a ban asks for more it leaves the
packet alone; where an earlier rule asks for more, it may have decided the connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.ir.stages import Path
from policylang.lower import mirroring
from policylang.lower.conditions import guards, guards_of_answers, is_counted, without_counts
from policylang.lower.mirroring import ONE_MACHINE, TURNED_PATH
from policylang.lower.states import ORIGINAL, REPLY
from policylang.model.types import PolicyRule, Verb
from policylang.packets.cube import EMPTY, Cube
from policylang.packets.fields import Field
from policylang.packets.packetset import compact

# What the answers of an open connection have in place of what its questions have.
TURNED: dict[Field, Field] = {
    **mirroring.TURNED,
    # What the connection was, not the packet.
    Field.DNATED: Field.DNATED,
    Field.ORIG_DADDR: Field.ORIG_DADDR,
    Field.ORIG_DPORT: Field.ORIG_DPORT,
    Field.EXPECTED: Field.EXPECTED,
}


@dataclass(frozen=True, slots=True)
class Banned:
    """A rule, and its packets of open connections on one path: `asking` ones and `answers`.

    With `is_shield` it keeps the bans behind it away from them.
    """

    rule: PolicyRule
    asking: tuple[Cube, ...]
    answers: tuple[Cube, ...]
    is_shield: bool

    @property
    def cubes(self) -> tuple[Cube, ...]:
        return (*self.asking, *self.answers)


def banned(
    rules: Sequence[tuple[PolicyRule, Mapping[Path, tuple[Cube, ...]]]], path: Path
) -> Iterator[Banned]:
    """What the bans among rules say of open connections on a path, in order."""
    bans = [n for n, (rule, _) in enumerate(rules) if rule.also_established]
    if not bans:
        return
    found = {n: _ban(*rules[n], path) for n in bans}
    for number, (rule, cubes) in enumerate(rules[: bans[-1] + 1]):
        if rule.also_established:
            yield found[number]
        elif _keeps_bans_away(rule):
            behind = [cube for n, ban in found.items() if n > number for cube in ban.cubes]
            yield _shield(rule, cubes, path, behind)


def shield(one: Banned) -> Iterator[Rule]:
    """The rules that let open connections pass before a ban is read."""
    origins = (Origin(Why.IMPLIED_REPLY, one.rule.span, one.rule.name),)
    for cube in one.asking:
        yield Rule(cube, ir.Accept(), guards(without_counts(one.rule.conditions)), origins)
    for cube in one.answers:
        yield Rule(cube, ir.Accept(), guards_of_answers(one.rule.conditions), origins)


def _keeps_bans_away(rule: PolicyRule) -> bool:
    """Whether an open connection that a rule is about was decided by it, as far as can be told.

    What was over the rate of an `allow` was read against the rules behind, and is not open unless
    one of them allowed it. What a rate of any other rule said of the first packet is not known.
    """
    if not is_counted(rule.conditions):
        return True
    counts = (rule.conditions.limit, rule.conditions.connections)
    return rule.verb is Verb.ALLOW and not any(c is not None and c.over for c in counts)


def _ban(rule: PolicyRule, cubes: Mapping[Path, tuple[Cube, ...]], path: Path) -> Banned:
    answers: tuple[Cube, ...] = ()
    if guards_of_answers(rule.conditions) == guards(rule.conditions):
        turned = (_turned(c) for c in cubes[TURNED_PATH[path]] if not _untold(c))
        answers = compact(c & REPLY for c in turned)
    asking = compact(c & ORIGINAL for c in cubes[path])
    return Banned(rule, asking, answers, is_shield=False)


def _shield(
    rule: PolicyRule, cubes: Mapping[Path, tuple[Cube, ...]], path: Path, behind: Sequence[Cube]
) -> Banned:
    turned = (_turned(c.without(*_untold(c))) for c in cubes[TURNED_PATH[path]])
    answers = compact(c & REPLY for c in turned)
    # Later packets of a connection have other sizes than the first one.
    asking = compact(c.without(Field.SIZE) & ORIGINAL for c in cubes[path])
    return Banned(rule, _near(asking, behind), _near(answers, behind), is_shield=True)


def _near(cubes: tuple[Cube, ...], others: Sequence[Cube]) -> tuple[Cube, ...]:
    return tuple(c for c in cubes if any(c.meets(other) for other in others))


def _untold(cube: Cube) -> tuple[Field, ...]:
    """The fields of a cube of which answers to its packets do not tell."""
    return tuple(f for f in cube.fields if f not in TURNED and f is not Field.DADDR_TYPE)


def _turned(cube: Cube) -> Cube:
    """The answers to the packets of a cube: none to what went to a group."""
    if not cube[Field.DADDR_TYPE].meets(ONE_MACHINE):
        return EMPTY
    terms = cube.without(Field.DADDR_TYPE)
    return Cube.of({TURNED[field]: values for field, values in terms})
