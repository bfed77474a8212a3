"""Sets of interface names as the patterns that both targets can match."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.packets.fields import NAMES
from policylang.packets.values import NAME_BYTES, Range, Ranges, name_pattern, name_range


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
    as long as a wildcard is not taken back within a wildcard that was taken away. `names` is
    not empty: to match none of them is no match at all.
    """
    assert names, "no match says no name"
    whole = _patterns(names)
    if whole is not None:
        return (NameMatch(whole, ()),)
    missing = NAMES - names
    barred = Ranges.merged(said for pair in missing if (said := _barred(pair)) is not None)
    if barred == missing:
        return (NameMatch((), _patterns(barred) or ()),)
    whole = _patterns(names | barred)
    if whole is not None:
        within = tuple(
            p for p in _patterns(barred) or () if any(_within(p, pattern) for pattern in whole)
        )
        if _said(whole, within) == names:
            return (NameMatch(whole, within),)
    plain = Ranges(tuple(pair for pair in names if _tiles(pair) is not None))
    if not plain:
        return None
    rest = name_matches(names - plain)
    return None if rest is None else (NameMatch(_patterns(plain) or (), ()), *rest)


def _patterns(names: Ranges) -> tuple[str, ...] | None:
    found: list[str] = []
    for pair in names:
        tiles = _tiles(pair)
        if tiles is None:
            return None
        found += tiles
    return tuple(found)


def _barred(pair: Range) -> Range | None:
    """What of a range of missing names can be said, or None."""
    _, high = pair
    if _tiles(pair) is not None:
        return pair
    return (high, high) if high & 0xFF == 0 else None  # `eth` where all of `eth*` but it is meant


TILES_MOST = 16  # a range of more patterns than that is what lies between two names


def _tiles(pair: Range) -> tuple[str, ...] | None:
    """The patterns side by side that make up a range, as `eth0*` and `eth1` do, or None."""
    whole = name_pattern(*pair)
    if whole is not None:
        return (whole,)
    low, high = pair
    found: list[str] = []
    while low <= high:
        stem = low.to_bytes(NAME_BYTES, "big").rstrip(b"\0")
        end = low | ((1 << 8 * (NAME_BYTES - len(stem))) - 1)
        if b"\0" in stem or not stem.isascii() or len(found) == TILES_MOST:
            return None
        found.append(stem.decode() + ("*" if end <= high else ""))
        low = end + 1 if end <= high else low + 1
    return tuple(found)


def _within(inner: str, outer: str) -> bool:
    (low, high), (start, end) = name_range(inner), name_range(outer)
    return start <= low and high <= end


def _said(among: tuple[str, ...], barring: tuple[str, ...]) -> Ranges:
    return Ranges.merged(map(name_range, among)) - Ranges.merged(map(name_range, barring))
