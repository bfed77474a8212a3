"""What is ours in the kernel, as the target's own tool lists it; knows no tool's words.

A listing of what a script makes in a scratch namespace and a listing of what is in force are
both of this form, made by the same tool: where they are equal, the same is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from policylang.backends.listed import is_listed


@dataclass(frozen=True, slots=True)
class Count:
    """What a rule counted."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule without its comment and its count, in the tool's own words."""

    text: str
    comment: str = ""
    count: Count | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; `place` names them for people, `head` says how packets come to them.

    A built-in chain of iptables has none but those rules that lead to chains of ours.
    """

    place: str
    head: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class KernelSet:
    """A set or map; `elements` are None where packets fill it: they are not ours to compare.

    `counts` are what its elements counted, where they count.
    """

    place: str
    head: str
    elements: frozenset[str] | None
    counts: Mapping[str, Count] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that is ours, in the tool's order; `others` are what is neither a chain nor a set."""

    chains: tuple[Chain, ...] = ()
    sets: tuple[KernelSet, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.chains or self.sets or self.others)

    @property
    def without_lists(self) -> Loaded:
        """The same without the elements of lists from elsewhere, which change by themselves."""
        sets = (replace(s, elements=None) if is_listed(s.place) else s for s in self.sets)
        return replace(self, sets=tuple(sets))


NOTHING = Loaded()
