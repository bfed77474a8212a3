"""What `-s`, `-d` and `-m iprange` ask of addresses."""

from __future__ import annotations

from policylang.analysis.machine import MaskIs
from policylang.analysis.reading_iptables.asking import (
    EVERY,
    Asked,
    NotUnderstoodError,
    all_of,
    of,
    where,
)
from policylang.analysis.reading_iptables.numbers import address, address_span, by_mask
from policylang.analysis.reading_iptables.options import Match, Option
from policylang.packets.fields import FAMILY_ADDRESSES, Field
from policylang.packets.values import V6_BASE, Ranges

ALL_BITS = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


def address_match(option: Option, family: int) -> Asked:
    """`-s` or `-d`; the mask may be a length or an address, with gaps too."""
    where_it_is = Field.SADDR if option.name == "source" else Field.DADDR
    text = option.words[0]
    if "," in text:
        raise NotUnderstoodError(text)  # which is a rule for each, and was taken apart before
    base, slash, mask_text = text.partition("/")
    if mask_text == "0":  # whatever stands before it
        return _within(where_it_is, FAMILY_ADDRESSES[family], family, negated=option.negated)
    if family == 4 and base.replace(".", "").isdigit():
        base += ".0" * (3 - base.count("."))  # `10/8` (pad_cidr of xtables.c)
    if not slash or mask_text.isdigit():
        values = Ranges((address_span(f"{base}{slash}{mask_text}", family),))
        return _within(where_it_is, values, family, negated=option.negated)
    start = V6_BASE if family == 6 else 0
    mask = address(mask_text, family) - start
    value = (address(base, family) - start) & mask
    return by_mask_asked(where_it_is, value, mask, family, negated=option.negated)


def by_mask_asked(
    where_it_is: Field, value: int, mask: int, family: int, *, negated: bool
) -> Asked:
    """Packets whose address has `value` under a mask, as a number without the family's start."""
    free = ALL_BITS[family] & ~mask
    start = V6_BASE if family == 6 else 0
    if free & (free + 1) == 0:  # a prefix
        values = Ranges() if value & ~mask else Ranges.between(start + value, start + value + free)
    elif family == 4:
        values = by_mask(value, mask)
    else:
        return where(MaskIs(where_it_is, value, mask), holds=not negated)
    return _within(where_it_is, values, family, negated=negated)


def _within(where_it_is: Field, values: Ranges, family: int, *, negated: bool) -> Asked:
    everything = FAMILY_ADDRESSES[family]
    chosen = everything - values if negated else values & everything
    return EVERY if chosen == everything else of(where_it_is, chosen)


def iprange(match: Match, family: int) -> Asked:
    """`-m iprange`: both ranges of one match must hold."""
    parts: list[Asked] = []
    for option in match.options:
        where_it_is = {"src-range": Field.SADDR, "dst-range": Field.DADDR}.get(option.name)
        if where_it_is is None:
            raise NotUnderstoodError(option.text)
        values = Ranges((address_span(option.words[0], family),))
        parts.append(_within(where_it_is, values, family, negated=option.negated))
    return all_of(parts)
