"""What becomes of the packets of one way on one side, with and without what is open about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Generic, TypeVar

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.sides import Piece, Verdict, Ways

T = TypeVar("T")


class Tree(Generic[T]):
    """Sets of packets by halves, so that those that meet another set are found quickly."""

    def __init__(self, items: list[tuple[Packets, T]], space: Space) -> None:
        self.item = items[0][1] if len(items) == 1 else None
        self.halves: tuple[Tree[T], ...] = ()
        if len(items) == 1:
            self.all = items[0][0]
            return
        middle = len(items) // 2
        self.halves = tuple(Tree(half, space) for half in (items[:middle], items[middle:]) if half)
        self.all = space.union(half.all for half in self.halves)

    def meeting(self, packets: Packets) -> Iterator[tuple[T, Packets]]:
        """The items that meet a set, each with what it has of it."""
        if common := self.all & packets:
            if not self.halves and self.item is not None:
                yield self.item, common
            for half in self.halves:
                yield from half.meeting(common)


class Judged:
    """What becomes of the packets of a way on one side.

    `may_pass` and `may_fail` have every question left out; `accepted` has them. Of thousands of
    pieces only those are taken in halves that somebody means to `look_at`.
    """

    def __init__(
        self, ways: Ways, space: Space, plain: Callable[[Packets], Packets], *, is_open: bool
    ) -> None:
        self.ways, self.space = ways, space
        self._tree = Tree[Piece]([], space)
        accepted = (p.packets for p in ways.pieces if p.verdict is Verdict.ACCEPTED)
        self.accepted = space.union(accepted)
        denied = space.union(p.packets for p in ways.pieces if p.verdict is not Verdict.ACCEPTED)
        self.may_pass = plain(self.accepted)
        # Where something may be open and nothing of it matters, denials need no second look.
        is_plain = is_open and self.may_pass == self.accepted
        self.may_fail = denied if is_plain else plain(denied)
        self.sometimes = space.nothing if is_plain else self.may_pass & self.may_fail
        self.screened = plain(space.union(p.packets for p in ways.pieces if p.is_screened))

    def look_at(self, packets: Packets) -> None:
        """Make ready for `meeting` with sets that are within this one."""
        self._tree = Tree([(one.packets, one) for one in self._within(packets)], self.space)

    def keep(self, packets: Packets) -> None:
        """Forget which pieces all others are in, and what is done to packets."""
        self.ways = Ways(self._within(packets), ())
        self.look_at(packets)

    def meeting(self, packets: Packets) -> Iterator[tuple[Piece, Packets]]:
        """The pieces that have some of a set, and what they have of it."""
        yield from self._tree.meeting(packets)

    def _within(self, packets: Packets) -> tuple[Piece, ...]:
        commons = ((piece, piece.packets & packets) for piece in self.ways.pieces)
        return tuple(replace(piece, packets=common) for piece, common in commons if common)

    @cached_property
    def always(self) -> Packets:
        return self.may_pass - self.may_fail if self.sometimes else self.may_pass

    @cached_property
    def never(self) -> Packets:
        return self.may_fail - self.may_pass if self.sometimes else self.may_fail
