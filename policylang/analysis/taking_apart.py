"""Takes a decision diagram apart into cubes, field by field.

It knows where the bits of each field stand, and of diagrams only that nodes have two children.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, Self

from policylang.analysis.layout import V4_BITS, Layout
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, UNIVERSE, Field
from policylang.packets.values import V6_BASE, Range, Ranges


class Node(Protocol):
    """A diagram: its first variable (None: it holds all or nothing), and what follows on it."""

    def node_level(self) -> int | None: ...

    def cofactors(self) -> tuple[Self, Self] | None: ...

    def satisfiable(self) -> bool: ...

    def __hash__(self) -> int: ...


def taken_apart(node: Node, layout: Layout, terms: Mapping[Field, Ranges]) -> Iterator[Cube]:
    """Disjoint cubes of a set whose packets are all in `terms`, which name one family.

    Of all variables it asks for those of fields alone, as `layout.told` has them.
    """
    level = node.node_level()
    if level is None:
        if node.satisfiable():
            cube = Cube.of(terms)
            if not cube.is_empty:
                yield cube
        return
    f, _ = layout.told[level]
    for values, rest in _by_value(node, layout, f, terms[Field.FAMILY]):
        yield from taken_apart(rest, layout, {**terms, f: values})


def _by_value(node: Node, layout: Layout, f: Field, families: Ranges) -> list[tuple[Ranges, Node]]:
    """The values of a field by what is left of the set for them."""
    width, base = layout.width[f], 0
    if f in ADDRESS_FIELDS:
        width, base = (V4_BITS, 0) if 4 in families else (width, V6_BASE)
    found: dict[Node, list[Range]] = {}
    waiting: list[tuple[Node, int, int]] = [(node, 0, 0)]  # what is left, bits read, their value
    while waiting:
        left, read, value = waiting.pop()
        level = left.node_level()
        if level is None or layout.told[level][0] is not f:
            if level is not None or left.satisfiable():
                low = base + (value << (width - read))
                found.setdefault(left, []).append((low, low + (1 << (width - read)) - 1))
        elif layout.told[level][1] > read:
            # Both values of a bit that nothing asks: one range where nothing else follows.
            waiting += [(left, read + 1, value << 1), (left, read + 1, value << 1 | 1)]
        else:
            children = left.cofactors()
            assert children is not None, "a node has two children"
            yes, no = children
            waiting += [(no, read + 1, value << 1), (yes, read + 1, value << 1 | 1)]
    universe = UNIVERSE[f]
    made = [(Ranges.merged(pairs) & universe, left) for left, pairs in found.items()]
    return sorted(((v, left) for v, left in made if v), key=lambda one: one[0].pairs)
