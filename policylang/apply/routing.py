"""What this thread's namespace makes of an address: whether it is its own, and where it is.

It reads the routing tables as they are now; the way of a single packet it cannot know, and says
so where more than the destination decides. Numbers are those of linux/rtnetlink.h, linux/if_addr.h
and linux/fib_rules.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from policylang.apply import netlink
from policylang.apply.netlink import attribute, attributes
from policylang.packets.fields import AddressType
from policylang.packets.values import V6_BASE, Range, parse_address

GET_ADDRESS, GET_ROUTE, GET_RULE = 22, 26, 34
ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")  # struct rtmsg, and struct fib_rule_hdr
ADDRESS_BYTES, ROUTE_BYTES = 8, 12  # struct ifaddrmsg

IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DESTINATION, RTA_INTERFACE, RTA_MULTIPATH, RTA_TABLE, RTA_MARK = 1, 4, 9, 15, 16
LOCAL_TABLE = 255
FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: the route with all its next hops; kernel 4.13

# Attributes of rules: what they choose by, and what says nothing of which packets they are for.
FRA_MARK, FRA_MARK_MASK = 10, 16
FRA_PRIORITY, FRA_SUPPRESS_GROUP, FRA_SUPPRESS_PREFIX, FRA_TABLE, FRA_PROTOCOL = 6, 13, 14, 15, 21
FRA_KNOWN = frozenset(
    (
        *(FRA_MARK, FRA_MARK_MASK, FRA_PRIORITY, FRA_SUPPRESS_GROUP, FRA_SUPPRESS_PREFIX),
        *(FRA_TABLE, FRA_PROTOCOL),
    )
)

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
BYTES = {4: 4, 6: 16}
OWN_TYPES = (AddressType.LOCAL, AddressType.BROADCAST, AddressType.ANYCAST, AddressType.MULTICAST)

# What is so whatever the tables say (net/ipv4/fib_frontend.c, net/ipv6/addrconf_core.c).
ALWAYS = {
    "224.0.0.0/4": AddressType.MULTICAST,
    "255.255.255.255": AddressType.BROADCAST,
    "0.0.0.0/8": AddressType.BROADCAST,
    "ff00::/8": AddressType.MULTICAST,
}
# Addresses of one wire alone, whichever it is (RFC 4291).
OF_ONE_WIRE = (parse_address("fe80::/10"), parse_address("ff00::/8"), parse_address("224.0.0.0/4"))


@dataclass(slots=True)
class Routing:
    """What the tables said when they were read; where an address is, is asked when it is wanted.

    `marks` are all that rules of routing choose by; None for a family whose rules choose by more
    than that, so that a destination alone tells nothing.
    """

    types: dict[int, AddressType]
    prefixes: dict[int, dict[int, AddressType]]  # by the bits that are left out of the number
    marks: dict[int, tuple[int, ...] | None]
    names: dict[int, str]
    _known: dict[int, frozenset[str] | None] = field(default_factory=dict)

    def type_of(self, address: int) -> AddressType:
        """What an address is to this host: UNICAST for all that is no matter of its own."""
        found = self.types.get(address)
        if found is not None:
            return found
        for bits, prefixes in self.prefixes.items():
            found = prefixes.get(address >> bits)
            if found is not None:  # numbers of one family are none of the other, however short
                return found
        return AddressType.UNICAST

    def is_own(self, address: int) -> bool:
        return self.type_of(address) is AddressType.LOCAL

    def interfaces(self, address: int) -> frozenset[str] | None:
        """Those by which packets to an address may leave; None where that cannot be told."""
        if address not in self._known:
            self.ask([address])
        return self._known[address]

    def ask(self, addresses: Iterable[int]) -> None:
        """Learn where addresses are, many at once. OSError where the kernel does not answer."""
        unknown = [a for a in dict.fromkeys(addresses) if a not in self._known]
        asking: list[tuple[int, bytes]] = []
        for address in unknown:
            family = 6 if address >= V6_BASE else 4
            marks = self.marks.get(family)
            is_told = marks is not None and not any(_within(address, r) for r in OF_ONE_WIRE)
            self._known[address] = frozenset() if is_told else None
            asking += ((address, _question(family, address, m)) for m in marks or () if is_told)
        with netlink.opened(netlink.ROUTE) as asked:
            answers = asked.ask(GET_ROUTE, [question for _, question in asking])
        read: dict[bytes, frozenset[str]] = {}  # those of one route have the same answer
        for (address, _), answer in zip(asking, answers, strict=True):
            before = self._known[address]
            if before is not None and not isinstance(answer, int):
                if answer not in read:
                    read[answer] = frozenset(self._named(answer))
                found = read[answer]
                if found != before:
                    self._known[address] = None if "" in found else before | found
        for address in unknown:  # no way at all: whatever came from there came somehow
            self._known[address] = self._known[address] or None

    def _named(self, route: bytes) -> Iterator[str]:
        found = attributes(route, ROUTE_BYTES)
        indices = [_word(found[RTA_INTERFACE])] if RTA_INTERFACE in found else []
        if RTA_MULTIPATH in found:
            indices = list(_next_hops(found[RTA_MULTIPATH]))
        yield from (self.names.get(index, "") for index in indices or (0,))


def read() -> Routing:
    """What is so now. OSError where the kernel does not tell."""
    types: dict[int, AddressType] = {}
    prefixes: dict[int, dict[int, AddressType]] = {}
    marks: dict[int, tuple[int, ...] | None] = {}

    def add(pair: Range, kind: AddressType) -> None:
        low, high = pair
        bits = (high - low + 1).bit_length() - 1
        if bits == 0:
            types[low] = kind
        else:
            prefixes.setdefault(bits, {})[low >> bits] = kind

    for text, kind in ALWAYS.items():
        if (parsed := parse_address(text)) is not None:
            add(parsed, kind)
    # A router may have a million routes: those of the one table that counts here are few.
    with netlink.opened(netlink.ROUTE, is_strict=True) as asked:
        for family, number in FAMILIES.items():
            for body in asked.dump(GET_ROUTE, _route_head(number, table=LOCAL_TABLE)):
                if (found := _own_route(family, body)) is not None:
                    add(*found)
            for body in asked.dump(GET_ADDRESS, bytes([number]) + bytes(ADDRESS_BYTES - 1)):
                of_body = attributes(body, ADDRESS_BYTES)
                own = of_body.get(IFA_LOCAL, of_body.get(IFA_ADDRESS))
                if body[0] == number and own is not None:
                    types[_address(family, own)] = AddressType.LOCAL
            rules = [b for b in asked.dump(GET_RULE, _route_head(number)) if b[0] == number]
            marks[family] = _marks(rules)
    ordered = dict(sorted(prefixes.items()))  # the longest prefix first
    return Routing(types, ordered, marks, dict(socket.if_nameindex()))


def _route_head(family: int, bits: int = 0, flags: int = 0, table: int = 0) -> bytes:
    return ROUTE_MESSAGE.pack(family, bits, 0, 0, table, 0, 0, 0, flags)


def _question(family: int, address: int, mark: int) -> bytes:
    number = (address - V6_BASE if family == 6 else address).to_bytes(BYTES[family], "big")
    head = _route_head(FAMILIES[family], 8 * BYTES[family], FIB_MATCH)
    return head + attribute(RTA_DESTINATION, number) + attribute(RTA_MARK, struct.pack("=I", mark))


def _own_route(family: int, body: bytes) -> tuple[Range, AddressType] | None:
    _, bits, _, _, table, _, _, kind, _ = ROUTE_MESSAGE.unpack_from(body)
    found = attributes(body, ROUTE_BYTES)
    if RTA_TABLE in found:
        table = _word(found[RTA_TABLE])
    if table != LOCAL_TABLE or kind not in OWN_TYPES or body[0] != FAMILIES[family]:
        return None
    low = _address(family, found.get(RTA_DESTINATION, bytes(BYTES[family])))
    return (low, low + (1 << (8 * BYTES[family] - bits)) - 1), AddressType(kind)


def _marks(rules: Iterable[bytes]) -> tuple[int, ...] | None:
    """The marks that rules tell ways apart by, with that of most packets; None: by more."""
    marks = {0: None}
    for body in rules:
        _, to_bits, from_bits, service, *_ = ROUTE_MESSAGE.unpack_from(body)
        found = attributes(body, ROUTE_BYTES)
        if to_bits or from_bits or service or not found.keys() <= FRA_KNOWN:
            return None
        if FRA_MARK in found:
            marks[_word(found[FRA_MARK])] = None
    return tuple(marks)


def _next_hops(data: bytes) -> Iterator[int]:
    """The interfaces of struct rtnexthop, one after the other."""
    at = 0
    while at + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, at)
        if length < 8:
            return
        yield index
        at += (length + 3) & ~3


def _address(family: int, data: bytes) -> int:
    return int.from_bytes(data, "big") + (V6_BASE if family == 6 else 0)


def _word(data: bytes) -> int:
    word: int = struct.unpack("=I", data[:4])[0]
    return word


def _within(address: int, pair: Range | None) -> bool:
    return pair is not None and pair[0] <= address <= pair[1]
