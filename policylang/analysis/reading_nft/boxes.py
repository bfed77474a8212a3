"""Sets of tuples of numbers, as boxes: a set of numbers for each place, all of which must hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policylang.packets.values import Range, Ranges

Box = tuple[Ranges, ...]


def gathered(boxes: Iterable[Box]) -> list[Box]:
    """The same tuples in fewer boxes: those that differ in one place alone become one."""
    found = list(dict.fromkeys(boxes))
    if not found:
        return found
    for place in range(len(found[0])):
        alike: dict[Box, list[Box]] = {}
        for box in found:
            alike.setdefault(box[:place] + box[place + 1 :], []).append(box)
        if len(alike) < len(found):
            found = [_joined(boxes, place) for boxes in alike.values()]
    return found


def _joined(boxes: list[Box], place: int) -> Box:
    """Boxes that differ in one place alone as one."""
    first = boxes[0]
    if len(boxes) == 1:
        return first
    values = Ranges.merged(pair for box in boxes for pair in box[place])
    return (*first[:place], values, *first[place + 1 :])


def outside(boxes: Sequence[Box], within: Box) -> list[Box]:
    """Disjoint boxes that hold the tuples of `within` that none of `boxes` does."""
    if not within:
        return [] if boxes else [()]
    first, *others = within
    covered = Ranges.merged(pair for box in boxes for pair in box[0])
    found: list[Box] = []
    if others:
        for pairs, rest in _cells(boxes):
            here = Ranges.merged(pairs) & first
            if here:
                found += ((here, *box) for box in outside(rest, tuple(others)))
    left = first - covered
    return [(left, *others), *found] if left else found


def _cells(boxes: Sequence[Box]) -> Iterable[tuple[list[Range], tuple[Box, ...]]]:
    """The numbers of the first place by what boxes say there of the other places."""
    bounds: dict[int, list[tuple[bool, Box]]] = {}
    for box in boxes:
        for low, high in box[0]:
            bounds.setdefault(low, []).append((True, box[1:]))
            bounds.setdefault(high + 1, []).append((False, box[1:]))
    cells: dict[frozenset[Box], list[Range]] = {}
    active: dict[Box, int] = {}
    start = 0
    for at in sorted(bounds):
        if active:
            cells.setdefault(frozenset(active), []).append((start, at - 1))
        for opens, rest in bounds[at]:
            count = active.get(rest, 0) + (1 if opens else -1)
            if count:
                active[rest] = count
            else:
                active.pop(rest, None)
        start = at
    return ((pairs, tuple(rests)) for rests, pairs in cells.items())
