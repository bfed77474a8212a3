"""Connections and expectations written into the kernel's conntrack table over netlink.

Attribute numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP
from tests.kernel.ground import Namespace

Address = IPv4Address | IPv6Address

NETLINK_NETFILTER = 12
SUBSYSTEM_CT, SUBSYSTEM_EXPECT = 1, 2
MESSAGE_NEW, MESSAGE_GET, MESSAGE_DELETE = 0, 1, 2
REQUEST, ACK, EXCL, DUMP, CREATE = 0x001, 0x004, 0x200, 0x300, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED = 0x8000

SEEN_REPLY, ASSURED, CONFIRMED = 2, 4, 8
TCP_ESTABLISHED = 3
TCP_LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL: no sequence number is out of window
EXPECT_PERMANENT = 1
LIFETIME_S = 3600


@dataclass(frozen=True, slots=True)
class Flow:
    """Addresses, protocol and ports of one direction; of ICMP the first port is the identifier."""

    source: Address
    destination: Address
    protocol: int
    ports: tuple[int, int]

    @property
    def reversed(self) -> Flow:
        return Flow(self.destination, self.source, self.protocol, self.ports[::-1])


@dataclass(frozen=True, slots=True)
class Connection:
    """An established connection; `helper` watches over it, and `expects` what it predicted."""

    opened: Flow
    helper: str | None = None
    expects: Flow | None = None


def enter(namespace: Namespace, connections: Sequence[Connection]) -> int:
    """Put connections into a namespace's table; returns how many the kernel took."""
    taken = 0
    with namespace.entered():
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with opened:
        opened.bind((0, 0))
        for connection in connections:
            code = _transact(opened, _new_connection(connection))
            if code == 0 and connection.expects is not None:
                code = _transact(opened, _new_expectation(connection.opened, connection.expects))
            taken += code == 0
    return taken


def flush(namespace: Namespace) -> None:
    """Forget all connections of a namespace, and with them what they expect."""
    with namespace.entered():
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with opened:
        opened.bind((0, 0))
        kind = SUBSYSTEM_CT << 8 | MESSAGE_DELETE
        _transact(opened, _message(kind, REQUEST | ACK, 0, b""))


def helpers(namespace: Namespace) -> dict[Flow, str | None]:
    """All connections over TCP and UDP, as they were opened, and the helper of each."""
    with namespace.entered():
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    found: dict[Flow, str | None] = {}
    with opened:
        opened.bind((0, 0))
        opened.send(_message(SUBSYSTEM_CT << 8 | MESSAGE_GET, REQUEST | DUMP, 0, b""))
        done = False
        while not done:
            for kind, payload in _messages(opened.recv(1 << 18)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    done = True
                    break
                attributes = _attributes(payload[4:])
                flow = _read_flow(_attributes(attributes[1]))
                if flow.protocol in (TCP, UDP):
                    help_ = _attributes(attributes.get(5, b""))
                    found[flow] = help_[1].rstrip(b"\0").decode() if 1 in help_ else None
    return found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[length + (-length % 4) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & ~NESTED] = data[4:length]
        data = data[length + (-length % 4) :]
    return found


def _read_flow(attributes: dict[int, bytes]) -> Flow:
    addresses = _attributes(attributes[1])
    layer4 = _attributes(attributes[2])
    first = 1 if 1 in addresses else 3
    ports = (_number(layer4.get(2, b"")), _number(layer4.get(3, b"")))
    return Flow(ip_address(addresses[first]), ip_address(addresses[first + 1]), layer4[1][0], ports)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _new_connection(connection: Connection) -> bytes:
    flow = connection.opened
    body = [
        _nest(1, _tuple(flow, reply=False)),
        _nest(2, _tuple(flow.reversed, reply=True)),
        _attribute(3, struct.pack("!I", CONFIRMED | SEEN_REPLY | ASSURED)),
        _attribute(7, struct.pack("!I", LIFETIME_S)),
    ]
    if flow.protocol == TCP:
        flags = bytes((TCP_LIBERAL, TCP_LIBERAL))
        state = (
            _attribute(1, bytes((TCP_ESTABLISHED,))) + _attribute(4, flags) + _attribute(5, flags)
        )
        body.append(_nest(4, _nest(1, state)))
    if connection.helper is not None:
        body.append(_nest(5, _attribute(1, connection.helper.encode() + b"\0")))
    kind = SUBSYSTEM_CT << 8 | MESSAGE_NEW
    flags_ = REQUEST | ACK | EXCL | CREATE
    return _message(kind, flags_, _af(flow), b"".join(body))


def _new_expectation(master: Flow, expected: Flow) -> bytes:
    """From one machine to one port of another, whatever the source port."""
    all_ones = type(expected.source)(b"\xff" * len(expected.source.packed))
    mask = Flow(all_ones, all_ones, expected.protocol, (0, 0xFFFF))
    body = (
        _nest(1, _tuple(master, reply=False)),
        _nest(2, _tuple(expected, reply=False)),
        _nest(3, _tuple(mask, reply=False)),
        _attribute(4, struct.pack("!I", LIFETIME_S)),
        _attribute(8, struct.pack("!I", EXPECT_PERMANENT)),
    )
    kind = SUBSYSTEM_EXPECT << 8 | MESSAGE_NEW
    return _message(kind, REQUEST | ACK | EXCL | CREATE, _af(expected), b"".join(body))


def _af(flow: Flow) -> int:
    return socket.AF_INET if flow.source.version == 4 else socket.AF_INET6


def _tuple(flow: Flow, *, reply: bool) -> bytes:
    first, second = (1, 2) if flow.source.version == 4 else (3, 4)
    addresses = _attribute(first, flow.source.packed) + _attribute(second, flow.destination.packed)
    layer4 = _attribute(1, bytes((flow.protocol,)))
    if flow.protocol == ICMP:
        layer4 += _echo(4, max(flow.ports), 0 if reply else 8)
    elif flow.protocol == ICMPV6:
        layer4 += _echo(7, max(flow.ports), 129 if reply else 128)
    else:
        layer4 += _attribute(2, struct.pack("!H", flow.ports[0]))
        layer4 += _attribute(3, struct.pack("!H", flow.ports[1]))
    return _nest(1, addresses) + _nest(2, layer4)


def _echo(first: int, identifier: int, icmp_type: int) -> bytes:
    return (
        _attribute(first, struct.pack("!H", identifier))
        + _attribute(first + 1, bytes((icmp_type,)))
        + _attribute(first + 2, b"\0")
    )


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | NESTED, value)


def _message(kind: int, flags: int, family: int, body: bytes) -> bytes:
    payload = struct.pack("=BBH", family, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload


def _transact(opened: socket.socket, message: bytes) -> int:
    """Send a message and return the error number of its answer (0: done)."""
    opened.send(message)
    answer = opened.recv(65536)
    (code,) = struct.unpack_from("=i", answer, 16)
    return -int(code)
