"""Ranges of addresses as the prefixes and ranges that iptables and ipset write."""

from __future__ import annotations

from bisect import bisect_left

from policylang.packets.values import V6_BASE, Range, Ranges, format_address, prefixes


def of_family(values: Ranges, family: int) -> Ranges:
    """The addresses of one family; the very same object where that is all of them."""
    pairs = values.pairs
    if family == 4 and (not pairs or pairs[-1][1] < V6_BASE):
        return values
    if family == 6 and (not pairs or pairs[0][0] >= V6_BASE):
        return values
    cut = bisect_left(pairs, (V6_BASE, 0))
    return Ranges(pairs[:cut] if family == 4 else pairs[cut:])


def is_prefix(pair: Range) -> bool:
    """Whether one prefix stands for the range."""
    low, high = pair
    size = high - low + 1
    return size & (size - 1) == 0 and low % size == 0


def prefix_count(values: Ranges) -> int:
    """How many prefixes make up a set."""
    return sum(1 if is_prefix(pair) else sum(1 for _ in prefixes(*pair)) for pair in values)


def one_prefix(pair: Range) -> str:
    """`A/N`, or `A` for a single address, of a range that is a prefix."""
    low, high = pair
    text = format_address(low)
    return text if low == high else f"{text}{_length(low, high - low + 1)}"


def prefix_words(values: Ranges) -> list[str]:
    """The prefixes of a set, as matches take them."""
    return [
        one_prefix((base, base + (1 << (128 if base >= V6_BASE else 32) - length) - 1))
        for low, high in values
        for base, length in prefixes(low, high)
    ]


def prefix_texts(values: Ranges) -> list[str]:
    """The prefixes of a set, as elements: no ipset can hold /0, which becomes two halves."""
    texts: list[str] = []
    for low, high in values:
        size = high - low + 1
        if low == high:
            texts.append(format_address(low))
        elif is_prefix((low, high)) and not _is_whole(low, size):
            texts.append(format_address(low) + _length(low, size))
        else:
            found = _halves(low, size) if _is_whole(low, size) else prefixes(low, high)
            for base, length in found:
                bits = 128 if base >= V6_BASE else 32
                texts.append(format_address(base) + (f"/{length}" if length < bits else ""))
    return texts


def _is_whole(low: int, size: int) -> bool:
    """Whether a range is all of its family; a /96 of IPv6 is as large as all of IPv4."""
    return size == (1 << 128 if low >= V6_BASE else 1 << 32)


def _halves(low: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (low, 1), (low + size // 2, 1)


def _length(low: int, size: int) -> str:
    bits = 128 if low >= V6_BASE else 32
    return f"/{bits + 1 - size.bit_length()}"


def dashed(pair: Range) -> str:
    """`A-B`."""
    return f"{format_address(pair[0])}-{format_address(pair[1])}"
