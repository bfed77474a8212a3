"""Spells sets of addresses of one family: literals where they are few, ipsets where not."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.backends.iptables.prefixes import (
    dashed,
    is_prefix,
    of_family,
    one_prefix,
    prefix_count,
)
from policylang.backends.iptables.sets import IpSets
from policylang.backends.iptables.sieve import Sieve, Slot
from policylang.ir.origin import Origin
from policylang.packets.fields import FAMILY_ADDRESSES, Field
from policylang.packets.values import Range, Ranges

FEW = 3  # so many ranges without a name of their own are matches rather than an ipset


@dataclass(frozen=True, slots=True)
class Side:
    """How the matches call one of the two addresses."""

    prefix: str
    range: str
    of_set: str
    slot: Slot
    slot_of_set: Slot


SIDES = {
    Field.SADDR: Side("-s", "--src-range", "src", Slot.SADDR, Slot.SADDR_SET),
    Field.DADDR: Side("-d", "--dst-range", "dst", Slot.DADDR, Slot.DADDR_SET),
}


def addresses(
    where: Field, values: Ranges, family: int, sets: IpSets, origins: tuple[Origin, ...]
) -> tuple[Slot, Sieve | None]:
    """The place and sieve of an address field; no sieve where the family has none of them."""
    side = SIDES[where]
    part = of_family(values, family)
    everything = FAMILY_ADDRESSES[family]
    if not part:
        return side.slot, None
    if len(part) <= FEW + 1:  # for what is left out are at most one more or one less
        few = _few(side, part, everything - part, is_named=sets.is_named(family, part))
        if few is not None:
            return side.slot, few
    barred = False
    # What is left out is never much shorter than a set that has few prefixes more than ranges.
    if not sets.is_named(family, part) and prefix_count(part) > 2 * len(part):
        others = everything - part
        if sets.is_named(family, others) or prefix_count(others) < prefix_count(part):
            barred, part = True, others
    name = sets.networks(part, family, origins)
    sign = "! " if barred else ""
    return side.slot_of_set, Sieve.any_of([f"-m set {sign}--match-set {name} {side.of_set}"])


def _few(side: Side, part: Ranges, others: Ranges, *, is_named: bool) -> Sieve | None:
    """The sieve without an ipset; None where it takes too many matches, or has a name."""
    if not others:
        return Sieve.none_of(())
    if len(part) == 1 and is_prefix(part.pairs[0]):
        return Sieve.any_of([_one(side, part.pairs[0])])
    if len(others) == 1 and is_prefix(others.pairs[0]):
        return Sieve.any_of([f"! {_one(side, others.pairs[0])}"])
    if len(part) == 1:
        return Sieve.any_of([_one(side, part.pairs[0])])
    if is_named:
        return None
    if len(others) == 1:
        return Sieve.any_of([_not(side, others.pairs[0])])
    if len(part) <= FEW:
        return Sieve.any_of(_one(side, pair) for pair in part)
    if len(others) <= FEW:
        return Sieve.any_of([" ".join(_not(side, pair) for pair in others)])
    return None


def _one(side: Side, pair: Range) -> str:
    if is_prefix(pair):
        return f"{side.prefix} {one_prefix(pair)}"
    return f"-m iprange {side.range} {dashed(pair)}"


def _not(side: Side, pair: Range) -> str:
    """A range to keep out, as a match of which a line can hold several."""
    return f"-m iprange ! {side.range} {dashed(pair)}"
