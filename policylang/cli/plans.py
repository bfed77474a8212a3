"""What differs from what is in force, as people read it and as programs do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from policylang.apply.difference import Change, Difference, ElementsChange, Kind
from policylang.cli.visible import visible

MOST_ELEMENTS = 20  # of a set that are shown; programs get all


def lines(found: Difference) -> Iterator[str]:
    """The changes, place by place, and a last line that counts them."""
    for place, changes in groupby(found.changes, key=lambda change: change.place):
        yield f"{place or 'beside the chains'}:"
        for change in changes:
            yield from _change(change)
    for elements in found.elements:
        yield f"{elements.place}:"
        yield from _elements(elements)
    yield counted(found)


def _change(change: Change) -> Iterator[str]:
    first, second = change.before, change.after
    yield f"  {change.kind} {visible(first if first is not None else second or '')}"
    if first is not None and second is not None:
        yield f"    {visible(second)}"
    if change.statement:
        yield f"      # {visible(change.statement)}"


def _elements(change: ElementsChange) -> Iterator[str]:
    for sign, elements in ((Kind.ADD, change.added), (Kind.REMOVE, change.removed)):
        for element in elements[:MOST_ELEMENTS]:
            yield f"  {sign} {visible(element)}"
        if len(elements) > MOST_ELEMENTS:
            yield f"  {sign} … and {len(elements) - MOST_ELEMENTS} more"


def counted(found: Difference) -> str:
    """How much is added, changed and removed, in a line."""
    counts = {Kind.ADD: "to add", Kind.CHANGE: "to change", Kind.REMOVE: "to remove"}
    text = ", ".join(f"{found.count(kind)} {words}" for kind, words in counts.items())
    if found.recommented:
        rules = "rule differs" if found.recommented == 1 else "rules differ"
        text += f"; {found.recommented} {rules} in the comment alone"
    return text


def as_json(found: Difference) -> dict[str, object]:
    """The same for programs: all keys are always there, and `before` or `after` may be null."""
    return {
        "add": found.count(Kind.ADD),
        "change": found.count(Kind.CHANGE),
        "remove": found.count(Kind.REMOVE),
        "recommented": found.recommented,
        "changes": [
            {
                "kind": {Kind.ADD: "add", Kind.REMOVE: "remove", Kind.CHANGE: "change"}[one.kind],
                "place": one.place,
                "before": one.before,
                "after": one.after,
                "statement": one.statement or None,
            }
            for one in found.changes
        ],
        "sets": [
            {"set": one.place, "added": list(one.added), "removed": list(one.removed)}
            for one in found.elements
        ],
    }


def in_words(parts: Sequence[str]) -> str:
    """Parts of a sentence, each behind a semicolon."""
    return "".join(f"; {part}" for part in parts)
