"""The bytes of IP packets and of what they carry, checksums filled in; knows no probe.

An address is the four or sixteen bytes that it is on the wire.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, TCP_SYN, UDP

IGMP = 2
HAS_PORTS = (TCP, UDP, DCCP, SCTP)
# IANA, IPv6 Extension Header Types: with these numbers another packet would leave.
EXTENSIONS = (0, 43, 44, 51, 59, 60, 135, 139, 140)
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
HOP_LIMIT = 64
V4_BYTES = 4  # of an address


@dataclass(frozen=True, slots=True)
class Content:
    """What an IP packet carries: the first packet of a connection, where nothing else is said.

    `ports` are source and destination; ICMP has the first as its identifier, `number` as its
    sequence number and `body` behind its header. `sequence`, `acknowledged` and `flags` are TCP's.
    `padding` are bytes behind the transport header, where there may be any.
    """

    protocol: int
    ports: tuple[int, int] = (0, 0)
    sequence: int = 0
    acknowledged: int = 0
    flags: int = TCP_SYN
    icmp_type: int = 0
    number: int = 0
    body: bytes = bytes(16)
    padding: int = 0


def ip_packet(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload: bytes,
    serial: int,
    *,
    traffic_class: int = 0,
    hop_limit: int = HOP_LIMIT,
) -> bytes:
    """A whole packet; `serial` is its IPv4 identification or IPv6 flow label."""
    if len(source) == V4_BYTES:
        length = 20 + len(payload)
        head = struct.pack(
            "!BBHHHBBH", 0x45, traffic_class, length, serial, 0, hop_limit, protocol, 0
        )
        checksum = internet_checksum(head + source + destination)
        return head[:10] + struct.pack("!H", checksum) + source + destination + payload
    first = 6 << 28 | traffic_class << 20 | serial
    head = struct.pack("!IHBB", first, len(payload), protocol, hop_limit)
    return head + source + destination + payload


def payload_bytes(content: Content, source: bytes, destination: bytes) -> bytes:
    """What stands behind the IP header of a packet between these addresses."""
    data = _unchecked(content, is_v4=len(source) == V4_BYTES)
    at = checksum_at(content.protocol, is_v4=len(source) == V4_BYTES)
    if at is None:
        return data
    if content.protocol == SCTP:
        return data[:at] + struct.pack("<I", crc32c(data)) + data[at + 4 :]
    pseudo = b""
    if content.protocol not in (ICMP, IGMP):
        pseudo = source + destination + struct.pack("!II", len(data), content.protocol)
    checksum = internet_checksum(pseudo + data)
    if content.protocol == UDP and checksum == 0:
        checksum = 0xFFFF  # RFC 768: zero means none
    return data[:at] + struct.pack("!H", checksum) + data[at + 2 :]


def checksum_at(protocol: int, *, is_v4: bool) -> int | None:
    """Where the checksum stands in what an IP packet carries; None where there is none."""
    if protocol == (ICMPV6 if is_v4 else ICMP):
        return None
    return {TCP: 16, UDP: 6, SCTP: 8, DCCP: 6, ICMP: 2, ICMPV6: 2, IGMP: 2}.get(protocol)


def _unchecked(content: Content, *, is_v4: bool) -> bytes:
    """The content with zeros in the place of the checksum."""
    ports = struct.pack("!HH", *content.ports)
    padding = bytes(content.padding)
    match content.protocol:
        case 6:
            numbers = struct.pack("!II", content.sequence, content.acknowledged)
            return ports + numbers + struct.pack("!BBHI", 5 << 4, content.flags, 512, 0) + padding
        case 17:
            return ports + struct.pack("!HH", 8 + len(padding), 0) + padding
        case 132:
            # RFC 9260 section 3.3.2: an INIT chunk, which must come alone.
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 0xFFFF, 1, 1, 1)
            return ports + bytes(8) + chunk
        case 33:
            # RFC 4340 section 5.1 and 6.1: a Request with a 48 bit sequence number.
            return ports + struct.pack("!BBHBBHII", 5, 0, 0, 1, 0, 0, 1, 0)
        case 1 | 58 if is_v4 == (content.protocol == ICMP):
            head = struct.pack("!BBHHH", content.icmp_type, 0, 0, content.ports[0], content.number)
            return head + content.body + padding
        case 2:
            return struct.pack("!BBH4s", 0x16, 0, 0, bytes(4))  # RFC 2236: a report
        case _:
            return bytes(16) + padding


def internet_checksum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    # The sum in ones' complement is the remainder by 0xFFFF, of all 16 bit words as one number.
    return ~(int.from_bytes(data) % 0xFFFF) & 0xFFFF


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260 appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return ~value & 0xFFFFFFFF
