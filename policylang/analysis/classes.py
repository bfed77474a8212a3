"""Values that no rule tells apart, put together: diagrams of what is left are small.

A field of 128 bits of which rules name twenty ranges has some forty kinds of values. Each kind
becomes a block of values of its own, in the same order, told by the first few bits of the field.
It knows cubes and fields, and no rules.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, PORT_FIELDS, UNIVERSE, Field
from policylang.packets.values import V6_BASE, Range, Ranges

NAME_BITS, MAC_BITS, WORD_BITS, V4_BITS, V6_BITS = 128, 48, 16, 32, 128

# The fields of many values; an address has those of either family.
DOMAINS: dict[Field, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys((Field.IIF, Field.OIF, Field.CT_HELPER), ((0, NAME_BITS),)),
    **dict.fromkeys(ADDRESS_FIELDS, ((0, V4_BITS), (V6_BASE, V6_BITS))),
    **dict.fromkeys(PORT_FIELDS, ((0, WORD_BITS),)),
    Field.SMAC: ((0, MAC_BITS),),
    Field.SIZE: ((0, WORD_BITS),),
}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The values from `base` on, of so many bits: where each kind starts, and its block.

    The last block has all that is left.
    """

    base: int
    bits: int
    starts: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.base + (1 << self.bits) - 1

    @property
    def step(self) -> int:
        return 1 << (self.bits - max(1, (len(self.starts) - 1).bit_length()))

    def put(self, pair: Range) -> Range:
        """The blocks of a range that begins and ends where kinds do."""
        first = bisect_right(self.starts, pair[0]) - 1
        last = bisect_right(self.starts, pair[1]) - 1
        high = self.end if last == len(self.starts) - 1 else self._block(last + 1) - 1
        return self._block(first), high

    def back(self, pair: Range) -> Range:
        """The values whose kinds have these blocks."""
        most = len(self.starts) - 1
        first = min((pair[0] - self.base) // self.step, most)
        last = min((pair[1] - self.base) // self.step, most)
        return self.starts[first], self.end if last == most else self.starts[last + 1] - 1

    def _block(self, number: int) -> int:
        return self.base + number * self.step


class Classes:
    """The kinds of values that some cubes tell apart, and cubes in them."""

    def __init__(self, cubes: Iterable[Cube]) -> None:
        borders: dict[Field, set[int]] = {f: set() for f in DOMAINS}
        for cube in cubes:
            for f, values in cube:
                if f in borders:
                    for low, high in values:
                        borders[f] |= {low, high + 1}
        self._blocks = {
            f: tuple(_blocks(base, bits, borders[f]) for base, bits in domain)
            for f, domain in DOMAINS.items()
        }
        self._put: dict[tuple[Field, Ranges], Ranges] = {}

    def put(self, cube: Cube) -> Cube:
        """A cube whose borders are among those of the kinds, in blocks."""
        if not any(f in DOMAINS for f in cube.fields):
            return cube
        return Cube.of({f: self._values(f, v) if f in DOMAINS else v for f, v in cube})

    def back(self, cube: Cube) -> Cube:
        """The packets that a cube of blocks stands for."""
        terms = {
            f: Ranges.merged(self._of(f, low).back((low, high)) for low, high in _split(f, values))
            if f in DOMAINS
            else values
            for f, values in cube
        }
        return Cube.of(terms)

    def _values(self, f: Field, values: Ranges) -> Ranges:
        found = self._put.get((f, values))
        if found is None:
            known = values & UNIVERSE[f]  # rules of others may ask for what no packet has
            found = Ranges.merged(
                self._of(f, low).put((low, high)) for low, high in _split(f, known)
            )
            self._put[f, values] = found
        return found

    def _of(self, f: Field, value: int) -> _Blocks:
        blocks = self._blocks[f]
        return blocks[-1] if value >= blocks[-1].base else blocks[0]


def _split(f: Field, values: Ranges) -> Iterable[Range]:
    """The ranges, none of which has addresses of both families."""
    for low, high in values:
        if f in ADDRESS_FIELDS and low < V6_BASE <= high:
            yield low, (1 << V4_BITS) - 1
            yield V6_BASE, high
        else:
            yield low, high


def _blocks(base: int, bits: int, borders: set[int]) -> _Blocks:
    end = base + (1 << bits)
    return _Blocks(base, bits, tuple(sorted({base, *(b for b in borders if base < b < end)})))
