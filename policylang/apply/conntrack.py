"""What conntrack holds in this thread's namespace: connections, and those that helpers expect.

It reads, and it ends what it is told to; which connection may be open it does not know. Numbers
are those of linux/netfilter/nfnetlink_conntrack.h unless said otherwise.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from policylang.apply import netlink
from policylang.apply.netlink import attribute, attributes, nested
from policylang.packets.fields import ICMP, ICMPV6
from policylang.packets.values import V6_BASE

# Messages: the subsystem in the high byte (linux/netfilter/nfnetlink.h).
ENTRY_GET, ENTRY_DELETE = 1 << 8 | 1, 1 << 8 | 2
EXPECTED_GET, EXPECTED_DELETE = 2 << 8 | 1, 2 << 8 | 2

# enum ctattr_type
ORIGINAL, REPLY, STATUS, PROTOCOL_INFO, HELP, MARK, ID, MASTER, ZONE = 1, 2, 3, 4, 5, 8, 12, 14, 18
# enum ctattr_expect
EXPECT_MASTER, EXPECT_TUPLE, EXPECT_MASK, EXPECT_ID, EXPECT_HELPER = 1, 2, 3, 5, 6
EXPECT_ZONE, EXPECT_NAT = 7, 10
# enum ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_protoinfo, ctattr_protoinfo_tcp, ctattr_help
IP, PROTOCOL = 1, 2
V4_SOURCE, V4_DESTINATION, V6_SOURCE, V6_DESTINATION = 1, 2, 3, 4
NUMBER, SOURCE_PORT, DESTINATION_PORT = 1, 2, 3
ICMP_TYPE, ICMPV6_TYPE = 5, 8
TCP_INFO, TCP_STATE, HELPER_NAME = 1, 1, 1

# enum ip_conntrack_status
EXPECTED, SOURCE_TRANSLATED, DESTINATION_TRANSLATED = 1 << 0, 1 << 4, 1 << 5

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PORT = struct.Struct("!H")
TOLD = (ORIGINAL, ID, ZONE, MARK, PROTOCOL_INFO)  # what is kept as the kernel told it

# What goes past the rules (a flowtable) is busy until that is gone, which rules that were replaced
# see to: ctnetlink_del_conntrack of net/netfilter/nf_conntrack_netlink.c.
PATIENCE_S, LOOK_S = 2.0, 0.05


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tuple with ports lies in memory: nearly all are so, and are read ten times as fast.

    `heads` are what stands between the values.
    """

    family: int
    base: int
    fields: struct.Struct
    heads: tuple[bytes, ...]


def _layout(family: int, base: int, size: int, ends: tuple[int, int]) -> Layout:
    def head(kind: int, size: int) -> bytes:
        return netlink.ATTRIBUTE.pack(4 + size, kind)

    return Layout(
        family,
        base,
        struct.Struct(f"!8s{size}s4s{size}s8sB3x4sH2x4sH2x"),
        (
            head(IP | netlink.NESTED, 2 * (4 + size)) + head(ends[0], size),
            head(ends[1], size),
            head(PROTOCOL | netlink.NESTED, 24) + head(NUMBER, 1),
            head(SOURCE_PORT, 2),
            head(DESTINATION_PORT, 2),
        ),
    )


USUAL = {
    layout.fields.size: layout
    for layout in (
        _layout(4, 0, 4, (V4_SOURCE, V4_DESTINATION)),
        _layout(6, V6_BASE, 16, (V6_SOURCE, V6_DESTINATION)),
    )
}


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """One direction of a connection, as its packets are on the wire at that end.

    Addresses are numbers of `packets.values`. Ports (or keys, of GRE) are None for what has none,
    `icmp_type` for what is no ICMP.
    """

    family: int  # 4, 6
    protocol: int
    source: int
    destination: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp_type: int | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry. `master` is what the connection belongs to that a helper predicted it from.

    `helper` is its own. `found` is what the kernel told, by those numbers that stand in TOLD.
    """

    original: FlowTuple
    reply: FlowTuple
    status: int = 0
    helper: str | None = None
    master: FlowTuple | None = None
    found: Mapping[int, bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_expected(self) -> bool:
        return bool(self.status & EXPECTED)

    @property
    def is_sent_elsewhere(self) -> bool:
        """Whether its destination is another one than its client dialled."""
        return bool(self.status & DESTINATION_TRANSLATED)

    @property
    def mark(self) -> int:
        return int.from_bytes(self.found.get(MARK, b""), "big")

    @property
    def tcp_state(self) -> int | None:
        """Of enum tcp_conntrack; None for what is no TCP."""
        info = attributes(attributes(self.found.get(PROTOCOL_INFO, b"")).get(TCP_INFO, b""))
        return info[TCP_STATE][0] if TCP_STATE in info else None

    @property
    def key(self) -> bytes:
        """What ends it and no other."""
        # Without its number, a connection that took the place of one that is over would be ended.
        more = (attribute(kind, self.found[kind]) for kind in (ID, ZONE) if kind in self.found)
        head = _head(FAMILIES[self.original.family])
        return b"".join((head, nested(ORIGINAL, self.found[ORIGINAL]), *more))


@dataclass(frozen=True, slots=True)
class Expectation:
    """A connection that a helper predicts. What it leaves open in `first` is None in `mask`.

    With `is_translated` its packets are sent elsewhere than `first` says.
    """

    master: FlowTuple
    first: FlowTuple
    mask: FlowTuple
    helper: str | None
    is_translated: bool
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """How many were there still and are ended, and how many were refused, by the error's number."""

    count: int
    refused: Mapping[int, int]


def connections() -> Iterator[Connection]:
    """All entries, of both families; OSError where the kernel does not tell."""
    with netlink.opened(netlink.NETFILTER) as asked:
        for body in asked.dump(ENTRY_GET, _head(socket.AF_UNSPEC)):
            found = attributes(body, 4)
            if ORIGINAL in found and REPLY in found:
                yield _connection(found)


def expectations() -> Iterator[Expectation]:
    """All that helpers predict and that has not come yet; OSError as `connections`."""
    with netlink.opened(netlink.NETFILTER) as asked:
        for body in asked.dump(EXPECTED_GET, _head(socket.AF_UNSPEC)):
            found = attributes(body, 4)
            if {EXPECT_MASTER, EXPECT_TUPLE, EXPECT_MASK} <= found.keys():
                yield _expectation(body[0], found)


def end(doomed: Sequence[Connection | Expectation]) -> Ended:
    """End exactly these. OSError where the kernel takes no commands at all."""
    ended, refused = 0, dict[int, int]()
    of_kind = {
        ENTRY_DELETE: [one.key for one in doomed if isinstance(one, Connection)],
        # Those of a connection that has ended are gone by now.
        EXPECTED_DELETE: [one.key for one in doomed if isinstance(one, Expectation)],
    }
    with netlink.opened(netlink.NETFILTER) as told:
        for kind, keys in of_kind.items():
            give_up = time.monotonic() + PATIENCE_S
            while keys:
                answers = told.tell(kind, keys)
                busy = [k for k, n in zip(keys, answers, strict=True) if n == errno.EBUSY]
                ended += answers.count(0)
                if not busy or time.monotonic() > give_up:
                    for number in answers:
                        if number not in (0, errno.ENOENT):
                            refused[number] = refused.get(number, 0) + 1
                    break
                keys = busy
                time.sleep(LOOK_S)
    return Ended(ended, refused)


def _head(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)  # struct nfgenmsg


def _connection(found: dict[int, bytes]) -> Connection:
    return Connection(
        _tuple(found[ORIGINAL]),
        _tuple(found[REPLY]),
        int.from_bytes(found.get(STATUS, b""), "big"),
        _name(attributes(found[HELP]).get(HELPER_NAME)) if HELP in found else None,
        _tuple(found[MASTER]) if MASTER in found else None,
        {kind: found[kind] for kind in TOLD if kind in found},
    )


def _expectation(family: int, found: dict[int, bytes]) -> Expectation:
    key = [_head(family), nested(EXPECT_TUPLE, found[EXPECT_TUPLE])]
    key += (attribute(kind, found[kind]) for kind in (EXPECT_ID, EXPECT_ZONE) if kind in found)
    return Expectation(
        _tuple(found[EXPECT_MASTER]),
        _tuple(found[EXPECT_TUPLE]),
        _tuple(found[EXPECT_MASK]),
        _name(found.get(EXPECT_HELPER)),
        EXPECT_NAT in found,
        b"".join(key),
    )


def _name(data: bytes | None) -> str | None:
    return None if data is None else data.rstrip(b"\0").decode(errors="replace") or None


def _tuple(data: bytes) -> FlowTuple:
    usual = USUAL.get(len(data))
    if usual is not None:
        first, source, second, destination, third, protocol, *rest = usual.fields.unpack(data)
        fourth, from_port, fifth, to_port = rest
        if (first, second, third, fourth, fifth) == usual.heads:
            return FlowTuple(
                usual.family,
                protocol,
                usual.base + int.from_bytes(source, "big"),
                usual.base + int.from_bytes(destination, "big"),
                from_port,
                to_port,
            )
    return _any_tuple(data)


def _any_tuple(data: bytes) -> FlowTuple:
    parts = attributes(data)
    ends, carried = attributes(parts[IP]), attributes(parts[PROTOCOL])
    if V4_SOURCE in ends:
        family = 4
        source, destination = ends[V4_SOURCE], ends[V4_DESTINATION]
        base = 0
    else:
        family, source, destination = 6, ends[V6_SOURCE], ends[V6_DESTINATION]
        base = V6_BASE
    protocol = carried[NUMBER][0] if NUMBER in carried else 0
    kind = carried.get({ICMP: ICMP_TYPE, ICMPV6: ICMPV6_TYPE}.get(protocol, 0))
    from_port, to_port = carried.get(SOURCE_PORT), carried.get(DESTINATION_PORT)
    return FlowTuple(
        family,
        protocol,
        base + int.from_bytes(source, "big"),
        base + int.from_bytes(destination, "big"),
        None if from_port is None else PORT.unpack(from_port)[0],
        None if to_port is None else PORT.unpack(to_port)[0],
        None if kind is None else kind[0],
    )
