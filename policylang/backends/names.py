"""Sets of interface names as the patterns that both targets can match."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.packets.fields import NAMES
from policylang.packets.values import Ranges, name_pattern, name_range


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Names that one of `among` fits (all names where it is empty) and none of `barring`.

    Patterns are names, or stems with a trailing `*`.
    """

    among: tuple[str, ...]
    barring: tuple[str, ...]


def name_matches(names: Ranges) -> tuple[NameMatch, ...] | None:
    """Disjoint matches whose union is `names`, or None where patterns cannot say it.

    Sets of names that were made of patterns by union, intersection and difference can be said
    as long as a wildcard is not taken back within a wildcard that was taken away.
    """
    whole = _patterns(names)
    if whole is not None:
        return (NameMatch(whole, ()),)
    missing = NAMES - names
    barred = Ranges(tuple(pair for pair in missing if name_pattern(*pair) is not None))
    if barred == missing:
        return (NameMatch((), _patterns(barred) or ()),)
    whole = _patterns(names | barred)
    if whole is not None:
        within = tuple(
            p for p in _patterns(barred) or () if any(_within(p, pattern) for pattern in whole)
        )
        if _said(whole, within) == names:
            return (NameMatch(whole, within),)
    plain = Ranges(tuple(pair for pair in names if name_pattern(*pair) is not None))
    if not plain:
        return None
    rest = name_matches(names - plain)
    return None if rest is None else (NameMatch(_patterns(plain) or (), ()), *rest)


def _patterns(names: Ranges) -> tuple[str, ...] | None:
    found = tuple(name_pattern(*pair) for pair in names)
    return None if None in found else tuple(p for p in found if p is not None)


def _within(inner: str, outer: str) -> bool:
    (low, high), (start, end) = name_range(inner), name_range(outer)
    return start <= low and high <= end


def _said(among: tuple[str, ...], barring: tuple[str, ...]) -> Ranges:
    return Ranges.merged(map(name_range, among)) - Ranges.merged(map(name_range, barring))
