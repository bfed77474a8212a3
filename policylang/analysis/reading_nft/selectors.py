"""What the left side of a match reads of a packet, and which packets have which values there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from policylang.analysis.machine import Condition, Question
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    NEVER,
    Cases,
    NotUnderstoodError,
    asked,
    of_cube,
)
from policylang.analysis.reading_nft.kinds import Kind
from policylang.packets.cube import EMPTY, EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Range, Ranges

MOST_NUMBERS = 1 << 16  # as many as are tried one by one
MOST_BLOCKS = 1 << 12  # ranges that a mask with holes may come to
ADDRESS_BITS = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Selector:
    """An expression that yields a number.

    `meaning` says which packets have one of some numbers there, of those in `needs`; the others
    fail every test of it. `field` is the field that the number is, where it is just that; in
    `elsewhere` the expression reads what no field holds. With `are_bits` the operators `in` and
    `!` ask for bits. `question` asks for a number under a mask, where no field tells.
    """

    words: str
    kind: Kind
    meaning: Callable[[Ranges], Cases]
    needs: Cube = EVERYTHING
    field: Field | None = None
    elsewhere: Cube = EMPTY
    are_bits: bool = False
    question: Callable[[int, int], Question] | None = None

    def having(self, values: Ranges) -> Cases:
        """The packets with one of these numbers, as far as fields tell."""
        values = values & self.kind.universe
        return self.meaning(values) if values else NEVER


def of_field(
    words: str,
    kind: Kind,
    field: Field,
    needs: Cube = EVERYTHING,
    *,
    elsewhere: Cube = EMPTY,
    are_bits: bool = False,
    question: Callable[[int, int], Question] | None = None,
) -> Selector:
    """An expression that yields a field as it is."""

    def meaning(values: Ranges) -> Cases:
        return of_cube(Cube.of({field: values}))

    return Selector(words, kind, meaning, needs, field, elsewhere, are_bits, question)


def mapped(
    words: str,
    kind: Kind,
    numbers: dict[int, int],
    field: Field,
    needs: Cube = EVERYTHING,
    *,
    are_bits: bool = False,
) -> Selector:
    """An expression that yields a field in other numbers: `numbers` by those of nft."""

    def meaning(values: Ranges) -> Cases:
        held = Ranges.of(*(ours for theirs, ours in numbers.items() if theirs in values))
        return of_cube(Cube.of({field: held}))

    return Selector(words, kind, meaning, needs, None, are_bits=are_bits)


def constant(words: str, kind: Kind, number: int) -> Selector:
    """An expression that yields the same for all packets here."""
    return Selector(words, kind, lambda values: ALWAYS if number in values else NEVER)


def of_word(
    words: str, kind: Kind, question: Callable[[int, int], Question], needs: Cube = EVERYTHING
) -> Selector:
    """An expression that yields a word of bits that no field holds, such as a mark."""

    def meaning(values: Ranges) -> Cases:
        return _asked(kind, values, question)

    return Selector(words, kind, meaning, needs, question=question)


def _asked(kind: Kind, values: Ranges, question: Callable[[int, int], Question]) -> Cases:
    """A number within some ranges as questions for bits; the complement where it is shorter."""
    if values == kind.universe:
        return ALWAYS
    mine = list(blocks(values, kind.bits))
    others = list(blocks(kind.universe - values, kind.bits))
    if len(others) < len(mine):
        return asked(*(Condition(question(*block), holds=False) for block in others))
    return tuple(case for block in mine for case in asked(Condition(question(*block))))


def blocks(values: Ranges, bits: int) -> Iterator[tuple[int, int]]:
    """The disjoint `(value, mask)` pairs whose numbers make up some ranges."""
    every = (1 << bits) - 1
    for low, high in values:
        while low <= high:
            size = min(low & -low or every + 1, 1 << ((high - low + 1).bit_length() - 1))
            yield low, every & ~(size - 1)
            low += size


# --- operations on the left side ----------------------------------------------------------------


def computed(selector: Selector, operator: str, number: int, words: str) -> Selector:
    """The selector of an expression that an operation changes; raises NotUnderstoodError."""
    universe = selector.kind.universe
    if operator == "&" and universe.count > MOST_NUMBERS:
        return _masked(selector, number & ADDRESS_BITS, words)
    if universe.count > MOST_NUMBERS or operator not in OPERATIONS:
        raise NotUnderstoodError(words, selector.needs)
    operation = OPERATIONS[operator]
    results: dict[int, list[Range]] = {}
    for low, high in universe:
        for n in range(low, high + 1):
            results.setdefault(operation(n, number), []).append((n, n))

    def meaning(values: Ranges) -> Cases:
        held = (pair for result, pairs in results.items() if result in values for pair in pairs)
        return selector.having(Ranges.merged(held))

    kind = replace(selector.kind, universe=Ranges.of(*results))
    return replace(selector, words=words, kind=kind, meaning=meaning, field=None, question=None)


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    ">>": lambda a, b: a >> b,
    "<<": lambda a, b: a << b,
}


def _masked(selector: Selector, mask: int, words: str) -> Selector:
    """The selector of an address or a word under a mask."""
    ((first, last),) = selector.kind.universe.pairs
    base = first & ~((1 << selector.kind.bits) - 1)  # of addresses: where the family begins
    question = selector.question

    def few(values: Ranges) -> list[int] | None:
        if values.count > MOST_BLOCKS:
            return None
        numbers = (n - base for low, high in values for n in range(low, high + 1))
        return [n for n in numbers if n & ~mask == 0]

    def exactly(numbers: list[int], *, holds: bool) -> Cases:
        if not mask:
            return ALWAYS if (0 in numbers) is holds else NEVER
        found = _under(mask, selector.kind.bits)
        if found is None or len(found) * len(numbers) > MOST_BLOCKS or selector.field is None:
            if question is None:
                raise NotUnderstoodError(words, selector.needs)
            conditions = [Condition(question(n, mask), holds) for n in numbers]
            if not holds:
                return asked(*conditions)
            return tuple(case for condition in conditions for case in asked(condition))
        pairs = ((base + n + low, base + n + high) for n in numbers for low, high in found)
        inside = Ranges.merged(pairs)
        return selector.having(inside if holds else Ranges.between(first, last) - inside)

    def meaning(values: Ranges) -> Cases:
        numbers = few(values)
        if numbers is not None:
            return exactly(numbers, holds=True)
        others = few(Ranges.between(first, last) - values)
        if others is None:
            others = [n for n in _each_under(mask, words, selector) if base + n not in values]
        return exactly(others, holds=False)

    return replace(selector, words=words, meaning=meaning, field=None, question=None)


def _under(mask: int, bits: int) -> list[Range] | None:
    """The numbers of no bit of the mask, as ranges; None where those are too many."""
    low = (mask & -mask).bit_length() - 1  # bits below the mask are all free: one range
    free = [1 << n for n in range(low, bits) if not mask >> n & 1]
    if 1 << len(free) > MOST_BLOCKS:
        return None
    starts = [0]
    for bit in free:
        starts += [start | bit for start in starts]
    return [(start, start | (1 << low) - 1) for start in sorted(starts)]


def _each_under(mask: int, words: str, selector: Selector) -> list[int]:
    """All numbers that have no bit beside the mask."""
    set_bits = [1 << n for n in range(mask.bit_length()) if mask >> n & 1]
    if 1 << len(set_bits) > MOST_BLOCKS:
        raise NotUnderstoodError(words, selector.needs)
    found = [0]
    for bit in set_bits:
        found += [number | bit for number in found]
    return found
