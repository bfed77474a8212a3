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
    CT_DIRECTION = 15  # a `FlowDirection`
    SMAC = 16  # the Ethernet source address of what arrives, as a number
    DSCP = 17
    SIZE = 18  # bytes of the IP packet, its header included
    IPSEC = 19  # 1 for what arrived inside IPsec, else 0
    SADDR_TYPE = 20  # an `AddressType`: what the routing table calls the source
    REVERSE_PATH = 21  # 1 where the route back to the source leaves by IIF, else 0
    SOURCE_ROUTED = 22  # 1 for IPv4 source route options and IPv6 routing headers, else 0
    # 1 for what answers a question that was remembered on its way out (`RememberQuestion`).
    ANSWER = 23
    # 1 for what goes to a port from which a question came in lately (`RememberAsker`).
    TO_ASKER = 24
    DNATED = 25  # 1 where the destination was translated, else 0
    ORIG_DADDR = 26  # the address that the client dialled, of the packet's own family
    ORIG_DPORT = 27  # the port that the client dialled; the protocol is the packet's own
    IPSEC_OUT = 28  # 1 for what leaves inside IPsec, else 0
    EXPECTED = 29  # 1 for every packet of a connection that a helper predicted, else 0

    # Whether an address passes the test of that number in `ir.ruleset.Ruleset.address_tests`
    # (1) or not (0): membership of sets that are filled at run time, and host suffixes. What
    # such a test says of an address is not known here, so each is a field of its own.
    SADDR_TEST_0, SADDR_TEST_1, SADDR_TEST_2, SADDR_TEST_3 = 32, 33, 34, 35
    SADDR_TEST_4, SADDR_TEST_5, SADDR_TEST_6, SADDR_TEST_7 = 36, 37, 38, 39
    SADDR_TEST_8, SADDR_TEST_9, SADDR_TEST_10, SADDR_TEST_11 = 40, 41, 42, 43
    SADDR_TEST_12, SADDR_TEST_13, SADDR_TEST_14, SADDR_TEST_15 = 44, 45, 46, 47
    DADDR_TEST_0, DADDR_TEST_1, DADDR_TEST_2, DADDR_TEST_3 = 48, 49, 50, 51
    DADDR_TEST_4, DADDR_TEST_5, DADDR_TEST_6, DADDR_TEST_7 = 52, 53, 54, 55
    DADDR_TEST_8, DADDR_TEST_9, DADDR_TEST_10, DADDR_TEST_11 = 56, 57, 58, 59
    DADDR_TEST_12, DADDR_TEST_13, DADDR_TEST_14, DADDR_TEST_15 = 60, 61, 62, 63


class State(IntEnum):
    """Conntrack states; the numbers are ours."""

    NEW = 0
    ESTABLISHED = 1
    RELATED = 2
    INVALID = 3
    UNTRACKED = 4


class FlowDirection(IntEnum):
    """Which way a packet of a connection travels (enum ip_conntrack_dir)."""

    ORIGINAL = 0
    REPLY = 1


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
BOOLEAN = Ranges.between(0, 1)
ADDRESS_TYPES = Ranges.between(0, 11)  # RTN_UNSPEC .. RTN_XRESOLVE

MOST_ADDRESS_TESTS = 16
SADDR_TESTS = tuple(Field(Field.SADDR_TEST_0 + n) for n in range(MOST_ADDRESS_TESTS))
DADDR_TESTS = tuple(Field(Field.DADDR_TEST_0 + n) for n in range(MOST_ADDRESS_TESTS))

UNIVERSE: dict[Field, Ranges] = {
    Field.IIF: NAMES,
    Field.OIF: NAMES,
    Field.CT_STATE: Ranges.between(min(State), max(State)),
    Field.CT_HELPER: NAMES,
    Field.FAMILY: Ranges.of(4, 6),
    Field.SADDR: ADDRESSES,
    Field.DADDR: ADDRESSES,
    Field.DADDR_TYPE: ADDRESS_TYPES,
    Field.HOP_LIMIT: OCTET,
    Field.L4PROTO: OCTET,
    Field.SPORT: PORTS,
    Field.DPORT: PORTS,
    Field.ICMP_TYPE: OCTET,
    Field.ICMPV6_TYPE: OCTET,
    Field.TCP_FLAGS: OCTET,
    Field.CT_DIRECTION: BOOLEAN,
    Field.SMAC: Ranges.between(0, (1 << 48) - 1),
    Field.DSCP: Ranges.between(0, 63),
    Field.SIZE: Ranges.between(0, 65535),
    Field.IPSEC: BOOLEAN,
    Field.SADDR_TYPE: ADDRESS_TYPES,
    Field.REVERSE_PATH: BOOLEAN,
    Field.SOURCE_ROUTED: BOOLEAN,
    Field.ANSWER: BOOLEAN,
    Field.TO_ASKER: BOOLEAN,
    Field.DNATED: BOOLEAN,
    Field.ORIG_DADDR: ADDRESSES,
    Field.ORIG_DPORT: PORTS,
    Field.IPSEC_OUT: BOOLEAN,
    Field.EXPECTED: BOOLEAN,
    **dict.fromkeys((*SADDR_TESTS, *DADDR_TESTS), BOOLEAN),
}

FAMILY_ADDRESSES: dict[int, Ranges] = {4: V4_ADDRESSES, 6: V6_ADDRESSES}
ADDRESS_FIELDS = (Field.SADDR, Field.DADDR, Field.ORIG_DADDR)
PORT_FIELDS = (Field.SPORT, Field.DPORT, Field.ORIG_DPORT)

# A match on the left field makes sense only where the right one has these values.
REQUIRES: tuple[tuple[Field, Field, Ranges], ...] = (
    (Field.HOP_LIMIT, Field.FAMILY, Ranges.of(6)),
    (Field.ICMP_TYPE, Field.FAMILY, Ranges.of(4)),
    (Field.ICMP_TYPE, Field.L4PROTO, Ranges.of(ICMP)),
    (Field.ICMPV6_TYPE, Field.FAMILY, Ranges.of(6)),
    (Field.ICMPV6_TYPE, Field.L4PROTO, Ranges.of(ICMPV6)),
    (Field.SPORT, Field.L4PROTO, Ranges.of(TCP, UDP, DCCP, SCTP)),
    (Field.DPORT, Field.L4PROTO, Ranges.of(TCP, UDP, DCCP, SCTP)),
    (Field.ORIG_DPORT, Field.L4PROTO, Ranges.of(TCP, UDP, DCCP, SCTP)),
    (Field.TCP_FLAGS, Field.L4PROTO, Ranges.of(TCP)),
)

# RFC 9293 section 3.1
TCP_FIN, TCP_SYN, TCP_RST, TCP_PSH, TCP_ACK, TCP_URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


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
