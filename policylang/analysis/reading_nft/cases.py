"""What a match lets through, as disjoint cases: packets, and questions that must be answered so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policylang.analysis.machine import Condition, Unknown, WeekTimeIs
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

MOST_CASES = 250_000  # beyond it a rule would take more memory than it is worth


@dataclass(frozen=True, slots=True)
class Case:
    """Packets in a cube for which all conditions hold."""

    cube: Cube = EVERYTHING
    conditions: tuple[Condition, ...] = ()


Cases = tuple[Case, ...]  # disjoint; none of them: no packet

ALWAYS: Cases = (Case(),)
NEVER: Cases = ()


class NotUnderstoodError(Exception):
    """Something in a listing that this reader does not know; `text` is how nft would say it.

    All packets outside `packets` fail it, that much is known.
    """

    def __init__(self, text: str, packets: Cube = EVERYTHING) -> None:
        super().__init__(text)
        self.text = text
        self.packets = packets


def of_cube(cube: Cube) -> Cases:
    """The packets of a cube."""
    return () if cube.is_empty else (Case(cube),)


def asked(*conditions: Condition) -> Cases:
    """Packets for which these conditions hold."""
    return (Case(EVERYTHING, conditions),)


def unknown(text: str, *, holds: bool = True) -> Cases:
    """Packets for which something that is not understood holds, or does not."""
    return asked(Condition(Unknown(text), holds))


def both(one: Cases, other: Cases) -> Cases:
    """The packets that are in both; raises NotUnderstoodError where that are too many cases."""
    if one is ALWAYS:
        return other
    if other is ALWAYS:
        return one
    if len(one) * len(other) > MOST_CASES:
        raise NotUnderstoodError("a combination of too many elements")
    return tuple(_joined(one, other))


def all_of(parts: Sequence[Cases]) -> Cases:
    """The packets that are in all parts; as `both` of them, and quicker where each is one case.

    Raises NotUnderstoodError where that are too many cases.
    """
    if not all(parts):
        return NEVER
    parts = [part for part in parts if part is not ALWAYS]
    if len(parts) < 2:
        return parts[0] if parts else ALWAYS
    found = _single([part[0] for part in parts if len(part) == 1])
    for part in sorted((part for part in parts if len(part) != 1), key=len):
        found = both(found, part)
    return found


def _single(parts: Sequence[Case]) -> Cases:
    """The one case of packets that are in all of some."""
    terms: dict[Field, Ranges] = {}
    conditions: tuple[Condition, ...] = ()
    for part in parts:
        for field, values in part.cube.terms:
            terms[field] = terms[field] & values if field in terms else values
        if part.conditions:
            joined = conjunction(conditions, part.conditions)
            if joined is None:
                return NEVER
            conditions = joined
    if not terms and not conditions:
        return ALWAYS
    cube = Cube.of(terms) if terms else EVERYTHING
    return NEVER if cube.is_empty else (Case(cube, conditions),)


def _joined(one: Cases, other: Cases) -> Iterator[Case]:
    for a in one:
        for b in other:
            cube = a.cube & b.cube
            if cube.is_empty:
                continue
            conditions = conjunction(a.conditions, b.conditions)
            if conditions is not None:
                yield Case(cube, conditions)


def conjunction(
    one: tuple[Condition, ...], other: tuple[Condition, ...]
) -> tuple[Condition, ...] | None:
    """All conditions of both, each once; None where they contradict each other in so many words."""
    if not one or not other:
        return one or other
    found = list(one)
    for condition in other:
        if condition in found:
            continue
        if Condition(condition.question, not condition.holds) in found:
            return None
        if isinstance(condition.question, WeekTimeIs):
            if not _put_time(found, condition.question):
                return None
        else:
            found.append(condition)
    return tuple(found)


def _put_time(found: list[Condition], asked: WeekTimeIs) -> bool:
    """Join a time of the week with another; whether any second is left."""
    for place, other in enumerate(found):
        question = other.question
        if isinstance(question, WeekTimeIs) and question.is_local is asked.is_local:
            found[place] = Condition(WeekTimeIs(question.week_s & asked.week_s, asked.is_local))
            return bool(question.week_s & asked.week_s)
    found.append(Condition(asked))
    return True


def by_conditions(
    cases: Iterable[Case],
) -> Iterator[tuple[tuple[Condition, ...], tuple[Cube, ...]]]:
    """The cubes of the cases by what they ask."""
    alike: dict[tuple[Condition, ...], list[Cube]] = {}
    for case in cases:
        alike.setdefault(case.conditions, []).append(case.cube)
    return ((conditions, tuple(cubes)) for conditions, cubes in alike.items())
