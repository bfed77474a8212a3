"""What differs between two listings, rule by rule; knows no tool's words.

A rule's comment names the line of the policy behind it, and takes no part in what a rule is: a
line more at the top of a policy changes every comment and no rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import TypeVar

from policylang.apply.loaded import Chain, KernelSet, Loaded, Rule

T = TypeVar("T", Chain, KernelSet)

# The place in front of a comment's statement, as in `web.policy:4 allow ssh inbound`.
_PLACE = re.compile(r"^\S+:\d+ ")


class Kind(StrEnum):
    """What is done to a rule."""

    ADD = "+"
    REMOVE = "-"
    CHANGE = "~"


@dataclass(frozen=True, slots=True)
class Change:
    """A rule, a chain or another thing of `place` that comes, goes, or is replaced in place.

    `statement` is what the rule's comment says of the policy: of the new rule, where there is one.
    """

    kind: Kind
    place: str
    before: str | None
    after: str | None
    statement: str = ""


@dataclass(frozen=True, slots=True)
class ElementsChange:
    """Elements of a set that come and go while the set itself stays."""

    place: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs; `recommented` counts rules that differ in nothing but their comment."""

    changes: tuple[Change, ...] = ()
    elements: tuple[ElementsChange, ...] = ()
    recommented: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.elements or self.recommented)

    def count(self, kind: Kind) -> int:
        """How many things are added, removed or changed; a set whose elements change is one."""
        own = sum(change.kind is kind for change in self.changes)
        return own + (len(self.elements) if kind is Kind.CHANGE else 0)


def difference(before: Loaded, after: Loaded) -> Difference:
    """What has to be done to `before` to have `after`."""
    changes = [*_chains(before.chains, after.chains)]
    elements: list[ElementsChange] = []
    for old_set, new_set in _pairs(before.sets, after.sets):
        changes += _set(old_set, new_set)
        if old_set is not None and new_set is not None and old_set.head == new_set.head:
            elements += _elements(old_set, new_set)
    changes += [
        Change(Kind.REMOVE, "", text, None) for text in before.others if text not in after.others
    ]
    changes += [
        Change(Kind.ADD, "", None, text) for text in after.others if text not in before.others
    ]
    return Difference(tuple(changes), tuple(elements), _recommented(before, after))


def _pairs(before: Iterable[T], after: Iterable[T]) -> Iterator[tuple[T | None, T | None]]:
    """What has the same place on both sides, in the order of `after`, what is gone at the end."""
    old = {thing.place: thing for thing in before}
    for thing in after:
        yield old.pop(thing.place, None), thing
    for thing in old.values():
        yield thing, None


def _chains(before: Sequence[Chain], after: Sequence[Chain]) -> Iterator[Change]:
    for old, new in _pairs(before, after):
        match old, new:
            case None, Chain(place=place, head=head, rules=rules):
                yield Change(Kind.ADD, place, None, head or "chain")
                yield from _rules(place, (), rules)
            case Chain(place=place, head=head, rules=rules), None:
                yield from _rules(place, rules, ())
                yield Change(Kind.REMOVE, place, head or "chain", None)
            case Chain(place=place), Chain():
                if old.head != new.head:
                    yield Change(Kind.CHANGE, place, old.head, new.head)
                yield from _rules(place, old.rules, new.rules)


def _rules(place: str, before: Sequence[Rule], after: Sequence[Rule]) -> Iterator[Change]:
    matcher = SequenceMatcher(
        None, [rule.text for rule in before], [rule.text for rule in after], autojunk=False
    )
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield from _replaced(place, before[i1:i2], after[j1:j2])


def _replaced(place: str, before: Sequence[Rule], after: Sequence[Rule]) -> Iterator[Change]:
    """A run of rules in the place of another: those of one statement are changed in place."""
    waiting: dict[str, list[Rule]] = {}
    for rule in after:
        waiting.setdefault(_statement(rule), []).append(rule)
    partners: list[tuple[Rule, Rule | None]] = []
    for rule in before:
        same = waiting.get(_statement(rule), [])
        partners.append((rule, same.pop(0) if same else None))
    changed = {id(new): old for old, new in partners if new is not None}
    for old, new in partners:
        if new is None:
            yield Change(Kind.REMOVE, place, old.text, None, old.comment)
    for rule in after:
        was = changed.get(id(rule))
        if was is None:
            yield Change(Kind.ADD, place, None, rule.text, rule.comment)
        else:
            yield Change(Kind.CHANGE, place, was.text, rule.text, rule.comment)


def _statement(rule: Rule) -> str:
    return _PLACE.sub("", rule.comment)


def _set(old: KernelSet | None, new: KernelSet | None) -> Iterator[Change]:
    match old, new:
        case None, KernelSet(place=place):
            yield Change(Kind.ADD, place, None, _set_words(new))
        case KernelSet(place=place), None:
            yield Change(Kind.REMOVE, place, _set_words(old), None)
        case KernelSet(place=place), KernelSet() if old.head != new.head:
            yield Change(Kind.CHANGE, place, _set_words(old), _set_words(new))


def _set_words(one: KernelSet) -> str:
    if one.elements is None:
        return one.head
    count = len(one.elements)
    return f"{one.head} with {count} element{'' if count == 1 else 's'}"


def _elements(old: KernelSet, new: KernelSet) -> Iterator[ElementsChange]:
    if old.elements is None or new.elements is None or old.elements == new.elements:
        return
    added, removed = new.elements - old.elements, old.elements - new.elements
    yield ElementsChange(new.place, tuple(sorted(added)), tuple(sorted(removed)))


def _recommented(before: Loaded, after: Loaded) -> int:
    """How many rules stand in the same place of the same chain with another comment alone."""
    count = 0
    for old, new in _pairs(before.chains, after.chains):
        if old is None or new is None or [r.text for r in old.rules] != [r.text for r in new.rules]:
            continue
        pairs = zip(old.rules, new.rules, strict=True)
        count += sum(one.comment != other.comment for one, other in pairs)
    return count
