"""The right sides of matches as numbers: addresses, ports, names and the words of each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from policylang.analysis.reading_nft import words
from policylang.analysis.reading_nft.cases import NotUnderstoodError
from policylang.analysis.reading_nft.listing import Json
from policylang.analysis.reading_nft.phrases import BESIDE_ELEMENTS, phrase
from policylang.packets.fields import NAMES
from policylang.packets.protocols import ICMP_TYPES
from policylang.packets.values import (
    NAME_BYTES,
    V4_ADDRESSES,
    V6_ADDRESSES,
    Range,
    Ranges,
    name_range,
    parse_one_address,
)

# nft 1.0.6 prints numbers so whose kind it does not find out.
_NUMBER = re.compile(r"(0x[0-9a-f]+|0|[1-9][0-9]*)(?: \[invalid type\])?")
ANYTHING_ELSE = "*"  # the element that holds whatever no other one does


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values: the numbers there are, and how one is read.

    `bits` is how long a number is, for prefixes. With `wraps` a range whose end is before its
    start holds what is outside of it, as nft says times of the day that go past midnight.
    """

    universe: Ranges
    read: Callable[[Json], Range]
    bits: int
    wraps: bool = False

    def values(self, said: Json) -> Ranges:
        """The numbers that an expression stands for; raises NotUnderstoodError."""
        match said:
            case {"set": [*elements]}:
                return Ranges.merged(pair for element in elements for pair in self.values(element))
            case {"elem": {"val": value}} if is_plain(said):
                return self.values(value)
            case {"range": [start, end]} if self.wraps:
                low, high = self.read(start)[0], self.read(end)[1]
                if low <= high:
                    return Ranges.between(low, high)
                return self.universe - Ranges.between(high, low)
            case [*flags] | {"|": [*flags]}:
                number = 0
                for flag in flags:
                    number |= self.number(flag)
                return Ranges.of(number)
            case _:
                return Ranges((self.pair(said),))

    def pair(self, said: Json) -> Range:
        """The range that a value, a prefix or a range stands for."""
        match said:
            case str() | int():
                return self.read(said)
            case {"prefix": {"addr": address, "len": int(length)}} if 0 <= length <= self.bits:
                low, _ = self.read(address)
                free = (1 << (self.bits - length)) - 1
                return low & ~free, low | free
            case {"range": [start, end]}:
                low, high = self.read(start)[0], self.read(end)[1]
                if low <= high:
                    return low, high
        raise NotUnderstoodError(phrase(said))

    def pairs(self, elements: Iterable[Json]) -> list[Range]:
        """The ranges of many elements."""
        read, found = self.read, list[Range]()
        for element in elements:
            if isinstance(element, str):
                found.append(read(element))
            else:
                found += self.values(element).pairs
        return found

    def number(self, said: Json) -> int:
        """The one number that a value stands for."""
        number = self.values(said).single
        if number is None:
            raise NotUnderstoodError(phrase(said))
        return number


def is_plain(element: Json) -> bool:
    """Whether an element is in its set for all packets: it has no limit, count or quota."""
    match element:
        case {"elem": {**body}}:
            return body.keys() <= {"val", *BESIDE_ELEMENTS}
    return True


def numbers(universe: Ranges, bits: int, named: Mapping[str, int] | None = None) -> Kind:
    """The kind of plain numbers, of which some have names."""
    known = named or {}

    def read(said: Json) -> Range:
        match said:
            case bool():
                pass
            case int(number) if number >= 0:
                return number, number
            case str(text) if text in known:
                return known[text], known[text]
            case str(text) if (found := _NUMBER.fullmatch(text)) is not None:
                number = int(found[1], 0)
                return number, number
        raise NotUnderstoodError(phrase(said))

    return Kind(universe, read, bits)


def _address(universe: Ranges) -> Callable[[Json], Range]:
    ((first, last),) = universe.pairs

    def read(said: Json) -> Range:
        number = parse_one_address(said) if isinstance(said, str) else None
        if number is None or not first <= number <= last:
            raise NotUnderstoodError(phrase(said))
        return number, number

    return read


def _name(said: Json) -> Range:
    """A name, or with a `*` at its end all that begin so; `\\*` is the character."""
    if not isinstance(said, str) or len(said.encode(errors="surrogatepass")) > NAME_BYTES + 2:
        raise NotUnderstoodError(phrase(said))
    if not said.isprintable():  # which neither interfaces nor helpers are called
        raise NotUnderstoodError(phrase(said))
    if said.endswith("\\*"):
        low, _ = name_range(f"{said[:-2]}**")  # the last star alone says that more may follow
        return low, low
    return name_range(said)


def _mac(said: Json) -> Range:
    match said:
        case str(text):
            parts = text.split(":")
            try:
                octets = bytes(int(part, 16) for part in parts)
            except ValueError:
                raise NotUnderstoodError(text) from None
            if len(octets) == MAC_BYTES:
                number = int.from_bytes(octets, "big")
                return number, number
    raise NotUnderstoodError(phrase(said))


def _ethertype(said: Json) -> Range:
    match said:
        case str(text) if text in words.ETHERTYPES:
            number = words.ETHERTYPES[text]
            return number, number
        case int(number) if number in words.TURNED_ETHERTYPES:
            number = words.TURNED_ETHERTYPES[number]
            return number, number
        case int(number) if number in words.TURNED_ETHERTYPES.values():
            return number, number
    raise NotUnderstoodError(phrase(said))


def _some_length(said: Json) -> Range:
    """A length that some packet has."""
    if said == 0:
        raise NotUnderstoodError(phrase(said))
    return PORT.read(said)


MAC_BYTES = 6
WORD = Ranges.between(0, (1 << 32) - 1)

V4 = Kind(V4_ADDRESSES, _address(V4_ADDRESSES), 32)
V6 = Kind(V6_ADDRESSES, _address(V6_ADDRESSES), 128)
NAME = Kind(NAMES, _name, 128)
MAC = Kind(Ranges.between(0, (1 << 48) - 1), _mac, 48)
PORT = numbers(Ranges.between(0, 65535), 16)
SOME_LENGTH = Kind(PORT.universe, _some_length, 16)
OCTET = numbers(Ranges.between(0, 255), 8)
PROTOCOL = numbers(Ranges.between(0, 255), 8, words.PROTOCOLS)
TCP_FLAGS = numbers(Ranges.between(0, 255), 8, words.TCP_FLAGS)
ICMP_TYPE = numbers(Ranges.between(0, 255), 8, ICMP_TYPES)
ICMPV6_TYPE = numbers(Ranges.between(0, 255), 8, words.ICMPV6_TYPES)
DSCP = numbers(Ranges.between(0, 63), 6, words.DSCPS)
NUMBER = numbers(WORD, 32)
STATE = numbers(Ranges.of(*words.STATE_BITS.values()), 32, words.STATE_BITS)
STATUS = numbers(WORD, 32, words.STATUS_BITS)
DIRECTION = numbers(Ranges.of(0, 1), 8, words.DIRECTIONS)
NFPROTO = numbers(Ranges.of(*words.NFPROTOS.values()), 8, words.NFPROTOS)
ETHERTYPE = Kind(Ranges.between(0, 65535), _ethertype, 16)
ADDRESS_TYPE = numbers(Ranges.between(0, 11), 32, words.ADDRESS_TYPES)
