"""A set of integers that grows range by range; knows no rules."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from policylang.packets.values import Range


@dataclass(slots=True)
class Intervals:
    """Ranges that are apart, sorted: what it costs to ask is the logarithm of their number.

    Ranges that touch without overlapping stay apart.
    """

    pairs: list[Range] = field(default_factory=list)

    def add(self, low: int, high: int) -> None:
        """Take in a range, together with those it overlaps."""
        first = bisect_left(self.pairs, (low,))
        if first and self.pairs[first - 1][1] >= low:
            first -= 1
            low = self.pairs[first][0]
        end = first
        while end < len(self.pairs) and self.pairs[end][0] <= high:
            high = max(high, self.pairs[end][1])
            end += 1
        self.pairs[first:end] = [(low, high)]

    def overlapping(self, low: int, high: int) -> Range | None:
        """A range of the set that has something in common with this one, or None."""
        behind = bisect_left(self.pairs, (high + 1,))
        if behind and self.pairs[behind - 1][1] >= low:
            return self.pairs[behind - 1]
        return None
