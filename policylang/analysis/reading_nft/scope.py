"""What surrounds a rule: its table's sets and objects, and the hooks on which its chain is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policylang.analysis.machine import Hook
from policylang.analysis.reading_nft.boxes import Box, gathered
from policylang.analysis.reading_nft.cases import Cases, NotUnderstoodError
from policylang.analysis.reading_nft.kinds import ANYTHING_ELSE, Kind, is_plain
from policylang.analysis.reading_nft.listing import Json, ListedTable, Object, flags_of
from policylang.analysis.reading_nft.phrases import phrase
from policylang.packets.values import Ranges

FAMILIES = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}  # the tables whose chains read packets here


@dataclass(slots=True)
class Scope:
    """Where rules of a chain are read.

    `places` are the hooks and priorities of the base chains that lead to it, empty where none
    does. `is_open` says of which sets the elements are not to be taken for lasting; `looked_up`
    are those that matches ask, `put_into` those that rules change; `named` is what a set is called
    in questions.
    """

    table: ListedTable
    places: frozenset[tuple[Hook, int]]
    is_open: Callable[[str], bool]
    utc_offset_s: int
    looked_up: frozenset[str]
    put_into: frozenset[str]
    named: Callable[[str], str]
    held: dict[tuple[str, tuple[Kind, ...]], list[Box]] = field(default_factory=dict)
    cases: dict[str, Cases] = field(default_factory=dict)  # of what is looked up, by its words

    @property
    def hooks(self) -> frozenset[Hook]:
        return frozenset(hook for hook, _ in self.places)

    @property
    def families(self) -> tuple[int, ...]:
        return FAMILIES[self.table.family]

    def is_lasting(self, name: str, body: Object) -> bool:
        """Whether what a set or a map holds is what it will hold for the next packet.

        nft 1.0.6 does not list that a set is dynamic; the rules that put something in tell.
        """
        flags = flags_of(body.get("flags"))
        passes = "timeout" in flags or "timeout" in body
        is_filled = "dynamic" in flags or passes or name in self.put_into
        return not is_filled and not self.is_open(name)

    def boxes(self, name: str, kinds: tuple[Kind, ...]) -> list[Box]:
        """What a named set holds, as boxes; KeyError where there is no such set."""
        key = name, kinds
        if key not in self.held:
            self.held[key] = boxes_of(elements_of(self.table.sets[name]), kinds)
        return self.held[key]


def elements_of(body: Object) -> list[Json]:
    """The elements of a set or a map as they are listed."""
    elements = body.get("elem")
    return elements if isinstance(elements, list) else []


def boxes_of(elements: list[Json], kinds: tuple[Kind, ...]) -> list[Box]:
    """Elements as boxes of the kinds of a key; raises NotUnderstoodError."""
    if ANYTHING_ELSE in elements:
        return [tuple(kind.universe for kind in kinds)]
    if len(kinds) == 1:
        merged = Ranges.merged(kinds[0].pairs(elements))
        return [(merged,)] if merged else []
    return gathered(box_of(element, kinds) for element in elements)


def box_of(element: Json, kinds: tuple[Kind, ...]) -> Box:
    """One element as a box; raises NotUnderstoodError."""
    match element:
        case {"elem": {"val": value}} if is_plain(element):
            return box_of(value, kinds)
        case {"concat": [*parts]} if len(parts) == len(kinds):
            return tuple(kind.values(part) for kind, part in zip(kinds, parts, strict=True))
    if len(kinds) != 1:
        raise NotUnderstoodError(phrase(element))
    return (kinds[0].values(element),)


def chain_name(scope: Scope, name: str) -> str:
    """The name of a chain of the same table, unique over all tables."""
    return f"{scope.table.family} {scope.table.name} {name}"
