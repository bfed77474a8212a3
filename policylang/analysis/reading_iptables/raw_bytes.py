"""What `-m u32` asks, where the bytes it looks at are a field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from policylang.analysis.reading_iptables.addresses import by_mask_asked
from policylang.analysis.reading_iptables.asking import (
    Asked,
    NotUnderstoodError,
    of,
    turned,
)
from policylang.analysis.reading_iptables.numbers import number, span
from policylang.analysis.reading_iptables.options import Match
from policylang.packets.fields import ICMP, UNIVERSE, Field
from policylang.packets.values import Range, Ranges

WORD = 0xFFFF_FFFF
_STEP = re.compile(r"\s*(<<|>>|&|@)\s*(\w+)")

# Where addresses stand in the headers, in bytes (RFC 791 section 3.1, RFC 8200 section 3).
ADDRESSES_V4 = {12: Field.SADDR, 16: Field.DADDR}
ADDRESSES_V6 = {8: Field.SADDR, 24: Field.DADDR}
# The protocol of an IPv4 packet is the low byte of the word at 6; behind its header, whose length
# stands in the first byte, ICMP begins with its type.
PROTOCOL_AT = (6, (("&", 0xFF),))
TYPE_AT = (0, ((">>", 22), ("&", 0x3C), ("@", 0), (">>", 24)))


@dataclass(frozen=True, slots=True)
class Test:
    """Four bytes from `start`, less what the steps make of them, are in one of the ranges."""

    start: int
    steps: tuple[tuple[str, int], ...]
    values: tuple[Range, ...]

    @property
    def mask(self) -> int | None:
        """The bits it looks at, where it does nothing but mask them."""
        if any(sign != "&" for sign, _ in self.steps):
            return None
        mask = WORD
        for _, bits in self.steps:
            mask &= bits
        return mask


def tests(match: Match) -> tuple[tuple[Test, ...], bool]:
    """The tests of a match, all of which must hold, and whether the match is turned."""
    option = match.get("u32")
    if option is None or len(match.options) != 1:
        raise NotUnderstoodError(match.text)
    return tuple(_test(part) for part in option.words[0].split("&&")), option.negated


def _test(text: str) -> Test:
    place, equals, values = text.partition("=")
    if not equals:
        raise NotUnderstoodError(text)
    start = re.match(r"\s*(\w+)", place)
    if start is None:
        raise NotUnderstoodError(text)
    steps: list[tuple[str, int]] = []
    at = start.end()
    while place[at:].strip():
        step = _STEP.match(place, at)
        if step is None:
            raise NotUnderstoodError(text)
        steps.append((step[1], number(step[2])))
        at = step.end()
    ranges = tuple(span(word.strip(), WORD) for word in values.split(","))
    return Test(number(start[1]), tuple(steps), ranges)


def u32(match: Match, family: int, protocols: Ranges) -> Asked:
    """The fields that the bytes are; raises NotUnderstoodError for bytes that are none."""
    found, negated = tests(match)
    if len(found) > 1 and family == 6:
        return _long_address(found, negated=negated)
    (test, *others) = found
    if others:
        raise NotUnderstoodError(match.text)
    where_it_is = (test.start, test.steps)
    values = Ranges.merged(test.values)
    if family == 4 and where_it_is == PROTOCOL_AT:
        return of(Field.L4PROTO, _octets(values, Field.L4PROTO, negated=negated))
    if family == 4 and where_it_is == TYPE_AT and protocols.single == ICMP:
        return of(Field.ICMP_TYPE, _octets(values, Field.ICMP_TYPE, negated=negated))
    mask = test.mask
    if mask is None:
        raise NotUnderstoodError(match.text)
    if family == 6:
        return _long_address(found, negated=negated)
    if test.start not in ADDRESSES_V4:
        raise NotUnderstoodError(match.text)
    single = values.single
    if single is not None:
        return by_mask_asked(ADDRESSES_V4[test.start], single, mask, 4, negated=negated)
    if mask != WORD:
        raise NotUnderstoodError(match.text)
    return of(ADDRESSES_V4[test.start], Ranges.between(0, WORD) - values if negated else values)


def _octets(values: Ranges, field: Field, *, negated: bool) -> Ranges:
    return turned(values & UNIVERSE[field], field, negated=negated)


def _long_address(found: tuple[Test, ...], *, negated: bool) -> Asked:
    """Several words of one IPv6 address, each under a mask."""
    value = mask = 0
    fields: set[Field] = set()
    for test in found:
        place = next((a for a in ADDRESSES_V6 if a <= test.start < a + 16), None)
        bits, single = test.mask, Ranges.merged(test.values).single
        if place is None or bits is None or single is None or (test.start - place) % 4:
            raise NotUnderstoodError(str(test.start))
        fields.add(ADDRESSES_V6[place])
        shift = 8 * (12 - (test.start - place))
        if mask >> shift & WORD:
            raise NotUnderstoodError(str(test.start))
        value |= single << shift
        mask |= bits << shift
    if len(fields) != 1:
        raise NotUnderstoodError("two addresses")
    return by_mask_asked(fields.pop(), value, mask, 6, negated=negated)
