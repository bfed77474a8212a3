"""The fields of a packet that a match can speak of, and how they hang together.

A packet is thought of as tagged with its conntrack state, so state and helper are fields like
any other. Numbers are the protocols' own unless said otherwise.
"""

from __future__ import annotations

from enum import IntEnum

from policylang.packets.values import (
    ADDRESSES,
    NAME_MAX,
    V4_ADDRESSES,
    V6_ADDRESSES,
    Ranges,
)


class Field(IntEnum):
    """The fields, the general before those that exist only for some values of it.

    INVARIANT: a field stands after those it depends on (FAMILY before SADDR, L4PROTO before
    DPORT): subtraction of cubes splits in this order.
    """

    IIF = 0  # name of the interface the packet came in by, as `values.name_range` numbers it
    OIF = 1
    CT_STATE = 2  # a `State`
    CT_HELPER = 3  # the helper that predicted the connection, numbered like a name
    FAMILY = 4  # 4 or 6
    SADDR = 5  # address numbers of `values`
    DADDR = 6
    DADDR_TYPE = 7  # an `AddressType`: what the routing table calls the destination
    HOP_LIMIT = 8  # IPv6 alone
    L4PROTO = 9
    SPORT = 10
    DPORT = 11
    ICMP_TYPE = 12
    ICMPV6_TYPE = 13
    TCP_FLAGS = 14  # the 14th byte of the TCP header


class State(IntEnum):
    """Conntrack states; the numbers are ours."""

    NEW = 0
    ESTABLISHED = 1
    RELATED = 2
    INVALID = 3
    UNTRACKED = 4


class AddressType(IntEnum):
    """Route types (RTN_* of linux/rtnetlink.h)."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5


ICMP = 1
TCP = 6
UDP = 17
DCCP = 33
GRE = 47
ICMPV6 = 58
SCTP = 132

PORTS = Ranges.between(0, 65535)
OCTET = Ranges.between(0, 255)
NAMES = Ranges.between(0, NAME_MAX)

UNIVERSE: dict[Field, Ranges] = {
    Field.IIF: NAMES,
    Field.OIF: NAMES,
    Field.CT_STATE: Ranges.between(min(State), max(State)),
    Field.CT_HELPER: NAMES,
    Field.FAMILY: Ranges.of(4, 6),
    Field.SADDR: ADDRESSES,
    Field.DADDR: ADDRESSES,
    Field.DADDR_TYPE: Ranges.between(0, 11),  # RTN_UNSPEC .. RTN_XRESOLVE
    Field.HOP_LIMIT: OCTET,
    Field.L4PROTO: OCTET,
    Field.SPORT: PORTS,
    Field.DPORT: PORTS,
    Field.ICMP_TYPE: OCTET,
    Field.ICMPV6_TYPE: OCTET,
    Field.TCP_FLAGS: OCTET,
}

FAMILY_ADDRESSES: dict[int, Ranges] = {4: V4_ADDRESSES, 6: V6_ADDRESSES}
ADDRESS_FIELDS = (Field.SADDR, Field.DADDR)
PORT_FIELDS = (Field.SPORT, Field.DPORT)

# A match on the left field makes sense only where the right one has these values.
REQUIRES: tuple[tuple[Field, Field, Ranges], ...] = (
    (Field.HOP_LIMIT, Field.FAMILY, Ranges.of(6)),
    (Field.ICMP_TYPE, Field.FAMILY, Ranges.of(4)),
    (Field.ICMP_TYPE, Field.L4PROTO, Ranges.of(ICMP)),
    (Field.ICMPV6_TYPE, Field.FAMILY, Ranges.of(6)),
    (Field.ICMPV6_TYPE, Field.L4PROTO, Ranges.of(ICMPV6)),
    (Field.SPORT, Field.L4PROTO, Ranges.of(TCP, UDP, DCCP, SCTP)),
    (Field.DPORT, Field.L4PROTO, Ranges.of(TCP, UDP, DCCP, SCTP)),
    (Field.TCP_FLAGS, Field.L4PROTO, Ranges.of(TCP)),
)

TCP_RST = 0x04  # RFC 9293 section 3.1


def with_flags(mask: int, flags: int) -> Ranges:
    """The values of TCP_FLAGS in which the bits of `mask` are as in `flags`."""
    return Ranges.merged((n, n) for n in range(256) if n & mask == flags)


def flags_test(values: Ranges) -> tuple[int, int] | None:
    """The `(mask, flags)` that values of TCP_FLAGS are all of, or None where no mask says it."""
    held = [n for low, high in values for n in range(low, high + 1)]
    mask = 0xFF
    for n in held:
        mask &= ~(n ^ held[0])
    flags = held[0] & mask
    return (mask, flags) if with_flags(mask, flags) == values else None
