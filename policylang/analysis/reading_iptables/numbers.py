"""Reads the numbers, ranges and masks that options take; knows no option."""

from __future__ import annotations

from policylang.analysis.reading_iptables.asking import NotUnderstoodError
from policylang.packets.values import (
    V6_BASE,
    Range,
    Ranges,
    name_range,
    parse_address,
    parse_one_address,
)

MOST_DIGITS = 40  # none is written with more, `0b` and all
MOST_RANGES = 4096  # into so many ranges a mask that is no prefix may take IPv4 addresses apart


def number(text: str, most: int = 0xFFFF_FFFF) -> int:
    """A number as strtoul(3) reads it: decimal, `0x` hexadecimal or with a leading zero octal.

    Raises NotUnderstoodError for what is none, or above `most`.
    """
    if len(text) > MOST_DIGITS:
        raise NotUnderstoodError(text)
    if text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0"):
        value = int(text)
        if value > most:
            raise NotUnderstoodError(text)
        return value
    try:
        octal = text.startswith("0") and text.isdigit() and text != "0"
        value = int(text, 8) if octal else int(text, 0)
    except ValueError:
        raise NotUnderstoodError(text) from None
    if not 0 <= value <= most or "_" in text or text != text.strip():
        raise NotUnderstoodError(text)
    return value


def decimal(text: str, most: int) -> int:
    """A number of decimal digits."""
    is_number = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    if not is_number or int(text) > most:
        raise NotUnderstoodError(text)
    return int(text)


def span(text: str, most: int, sign: str = ":") -> Range:
    """A number, or two with `sign` between; one that is left out is the least or `most`."""
    first, found, last = text.partition(sign)
    if not found:
        return number(text, most), number(text, most)
    low, high = number(first or "0", most), number(last or str(most), most)
    if low > high:
        raise NotUnderstoodError(text)
    return low, high


def masked(text: str) -> tuple[int, int]:
    """`VALUE[/MASK]`, 32 bits each; without a mask it is all bits."""
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else 0xFFFF_FFFF


def address(text: str, family: int) -> int:
    """The number of one address of the family."""
    value = parse_one_address(text)
    if value is None or (value >= V6_BASE) != (family == 6):
        raise NotUnderstoodError(text)
    return value


def address_span(text: str, family: int) -> Range:
    """An address, a prefix or a range `A-B`, of the family."""
    found = parse_address(text)
    if found is None or (found[0] >= V6_BASE) != (family == 6):
        raise NotUnderstoodError(text)
    return found


def name_span(pattern: str) -> Range:
    """A name, or all that begin as a pattern with a trailing `*` does."""
    try:
        return name_range(pattern)
    except UnicodeEncodeError:
        raise NotUnderstoodError(pattern) from None


def by_mask(value: int, mask: int) -> Ranges:
    """The IPv4 addresses that have `value` under any mask; raises where these are too many."""
    if value & ~mask:
        return Ranges()
    free = ~mask & 0xFFFF_FFFF
    tail = (free ^ (free + 1)) >> 1  # the free bits below all others
    gaps = free & ~tail
    if 1 << gaps.bit_count() > MOST_RANGES:
        raise NotUnderstoodError("a mask with many gaps")
    pairs: list[Range] = []
    some = 0
    while True:
        pairs.append((value | some, value | some | tail))
        some = (some - gaps) & gaps  # the next number that has bits of `gaps` alone
        if some == 0:
            return Ranges.merged(pairs)
