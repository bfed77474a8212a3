"""What the matches of a rule ask of a packet, as fields and conditions; knows no match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policylang.analysis.machine import ALL, Condition, Question, Unknown
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Ranges

Terms = Mapping[Field, Ranges]


class NotUnderstoodError(Exception):
    """A match, or a part of it, for which there are no fields and no question."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Packets that have the values of all fields of any of `ways`, and meet all `conditions`.

    Cubes are made of it at the end: it is put together of many parts.
    """

    ways: tuple[Terms, ...] = ({},)
    conditions: tuple[Condition, ...] = ()

    @property
    def cubes(self) -> tuple[Cube, ...]:
        """The cubes of all ways, none of them empty."""
        if self.ways == ({},):
            return ALL
        cubes = (Cube.of(terms) for terms in self.ways)
        return tuple(cube for cube in cubes if not cube.is_empty)

    def but_unknown(self, text: str) -> Asked:
        """The same, where beside it something holds that is not understood."""
        return Asked(self.ways, (*self.conditions, Condition(Unknown(text))))


EVERY = Asked()
NONE = Asked(())


def of(field: Field, values: Ranges) -> Asked:
    """Packets that have one of these values."""
    return Asked(({field: values},)) if values else NONE


def any_of(ways: Iterable[Terms]) -> Asked:
    """Packets that have the values of all fields in any of the ways."""
    return Asked(tuple(ways))


def where(question: Question, *, holds: bool = True) -> Asked:
    """Packets for which a question has this answer."""
    return Asked(EVERY.ways, (Condition(question, holds),))


def turned(values: Ranges, field: Field, *, negated: bool) -> Ranges:
    """The values, or with `negated` all others that the field has."""
    return UNIVERSE[field] - values if negated else values


def all_of(parts: Iterable[Asked]) -> Asked:
    """Packets that meet every part."""
    conditions: dict[Condition, None] = {}
    terms: dict[Field, Ranges] = {}
    several: list[tuple[Terms, ...]] = []
    for part in parts:
        if part.conditions:
            conditions |= dict.fromkeys(part.conditions)
        if len(part.ways) == 1:
            _narrow(terms, part.ways[0])
        else:
            several.append(part.ways)
    ways: tuple[Terms, ...] = (terms,)
    for others in several:
        ways = tuple(_both(mine, theirs) for mine in ways for theirs in others)
    return Asked(ways, tuple(conditions))


def _narrow(terms: dict[Field, Ranges], more: Terms) -> None:
    for field, values in more.items():
        terms[field] = terms[field] & values if field in terms else values


def _both(mine: Terms, theirs: Terms) -> Terms:
    terms = dict(mine)
    _narrow(terms, theirs)
    return terms
