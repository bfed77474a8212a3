"""Dynamic sets as they are in the kernel, as values: what is in them and what becomes of that.

How a target declares, lists and fills them it does not know, but for one thing: ipset cuts long
names, so two names mean one set if ipset has one name for both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from policylang.backends.iptables.names import dynamic_set_name
from policylang.packets.values import V6_BASE


@dataclass(frozen=True, slots=True)
class Element:
    """An address, and the milliseconds that it stays; None: for as long as its set says."""

    address: int
    left_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LiveSet:
    """One family's part of a dynamic set, by the name that the policy or ipset has for it.

    `timeout_s` is how long an element stays unless its own time was given; None: for ever.
    """

    name: str
    family: int
    timeout_s: int | None
    size: int
    elements: tuple[Element, ...] = ()

    @property
    def identity(self) -> str:
        """What tells it from other sets, whichever target it was loaded for."""
        return dynamic_set_name(self.name, self.family)

    @property
    def addresses(self) -> frozenset[int]:
        return frozenset(element.address for element in self.elements)

    def is_declared_like(self, other: LiveSet) -> bool:
        """Whether both keep as many elements for as long."""
        return (self.timeout_s, self.size) == (other.timeout_s, other.size)


FAMILIES = (4, 6)
LiveSets = Mapping[str, LiveSet]  # by identity


def by_identity(sets: Iterable[LiveSet]) -> dict[str, LiveSet]:
    """The sets, each under its identity."""
    return {live.identity: live for live in sets}


def family_of(address: int) -> int:
    """The family, 4 or 6, of an address."""
    return 6 if address >= V6_BASE else 4


def fitting(elements: Collection[Element], room: int) -> tuple[Element, ...]:
    """As many elements as there is room for; those that would stay longest come first."""
    if len(elements) <= room:
        return tuple(elements)
    order = sorted(elements, key=lambda e: (e.left_ms is not None, -(e.left_ms or 0), e.address))
    return tuple(order[: max(room, 0)])


def lacking(there: LiveSet, wanted: LiveSet | None) -> tuple[Element, ...]:
    """The elements of `wanted` that are not there yet and find room."""
    if wanted is None:
        return ()
    known = there.addresses
    missing = [element for element in wanted.elements if element.address not in known]
    return fitting(missing, there.size - len(there.elements))


def what_became(before: LiveSets, carried: LiveSets, after: LiveSets) -> Iterator[str]:
    """What happened to elements, in words; nothing where they simply stayed.

    `before` was there for the target that was loaded, `carried` for another one.
    """
    removed: dict[str, int] = {}
    anew: dict[str, int] = {}
    moved: dict[str, int] = {}
    lost: dict[str, int] = {}
    for identity in sorted({*before, *carried}):
        old, other, now = before.get(identity), carried.get(identity), after.get(identity)
        known = frozenset[int]().union(*(live.addresses for live in (old, other) if live))
        if now is None:
            name = old.name if old is not None else carried[identity].name
            removed[name] = removed.get(name, 0) + len(known)
            continue
        for kind, is_so in (
            (anew, old is not None and not old.is_declared_like(now)),
            (moved, old is None),
        ):
            if is_so:
                kind[now.name] = kind.get(now.name, 0) + len(known & now.addresses)
        lost[now.name] = lost.get(now.name, 0) + max(0, len(known) - now.size)
    for name, count in removed.items():
        if count:
            yield f"removed the set `{name}` with {_elements(count)}"
    for name, count in anew.items():
        yield f"made the set `{name}` anew with its {_elements(count)}"
    for name, count in moved.items():
        if count:
            yield f"carried {_elements(count)} of `{name}` over"
    for name, count in lost.items():
        if count:
            yield f"left out {_elements(count)} for which `{name}` has no room"


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{count} elements"
