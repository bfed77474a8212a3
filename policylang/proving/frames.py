"""First packets as values, and the bytes that they are on the wire; knows no policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP
from policylang.packets.values import V6_BASE

IGMP = 2
HAS_PORTS = (TCP, UDP, DCCP, SCTP)
# IANA, IPv6 Extension Header Types: with these numbers another packet would leave.
EXTENSIONS = (0, 43, 44, 51, 59, 60, 135, 139, 140)
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
SYN = 0x02
HOP_LIMIT = 64
SERIALS = range(1, 60001)  # of 16 bits, those that can be an IPv4 identification
SEQUENCE_SHIFT = 11  # a TCP probe has its serial above these bits of its sequence number


@dataclass(frozen=True, slots=True)
class Probe:
    """The first packet of a connection.

    `way_in` is the firewall's interface by which it arrives, None for what the firewall sends
    itself. Addresses are numbers of `packets.values`. `ports` are source and destination, where
    the protocol has them; echo requests carry the first as their identifier. `padding` are bytes
    behind the transport header. `mac` is the sender's, None: of the other end of the wire.
    `mark`, `user` and `group` are what the packet is given, or sent as.
    """

    way_in: str | None
    source: int
    destination: int
    protocol: int
    ports: tuple[int, int] = (0, 0)
    icmp_type: int = 0
    dscp: int = 0
    padding: int = 0
    mac: int | None = None
    mark: int = 0
    user: int = 0
    group: int = 0

    @property
    def family(self) -> int:
        return 6 if self.source >= V6_BASE else 4

    @property
    def size(self) -> int:
        """Bytes of the IP packet."""
        return len(packet_bytes(self, 1))


def packet_bytes(probe: Probe, serial: int) -> bytes:
    """The IP packet of a probe; `serial` is its IPv4 identification or IPv6 flow label."""
    payload = _payload(probe, serial)
    source, destination = packed(probe.source), packed(probe.destination)
    traffic_class = probe.dscp << 2
    if probe.family == 4:
        length = 20 + len(payload)
        head = struct.pack(
            "!BBHHHBBH", 0x45, traffic_class, length, serial, 0, HOP_LIMIT, probe.protocol, 0
        )
        checksum = internet_checksum(head + source + destination)
        return head[:10] + struct.pack("!H", checksum) + source + destination + payload
    first = 6 << 28 | traffic_class << 20 | serial
    head = struct.pack("!IHBB", first, len(payload), probe.protocol, HOP_LIMIT)
    return head + source + destination + payload


def packed(address: int) -> bytes:
    """The bytes of an address number."""
    if address >= V6_BASE:
        return (address - V6_BASE).to_bytes(16)
    return address.to_bytes(4)


def unpacked(data: bytes) -> int:
    """The number of an address of four or sixteen bytes."""
    return int.from_bytes(data) + (V6_BASE if len(data) == 16 else 0)


def _payload(probe: Probe, serial: int) -> bytes:
    source_port, port = probe.ports
    padding = bytes(probe.padding)
    match probe.protocol:
        case 6:
            sequence = serial << SEQUENCE_SHIFT
            head = struct.pack("!HHIIBBHHH", source_port, port, sequence, 0, 5 << 4, SYN, 512, 0, 0)
            return _checked(probe, head + padding, 16, is_over_addresses=True)
        case 17:
            head = struct.pack("!HHHH", source_port, port, 8 + len(padding), 0)
            return _checked(probe, head + padding, 6, is_over_addresses=True)
        case 132:
            # RFC 9260 section 3.3.2: an INIT chunk, which must come alone.
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 0xFFFF, 1, 1, 1)
            head = struct.pack("!HHI", source_port, port, 0)
            return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk
        case 33:
            # RFC 4340 section 5.1 and 6.1: a Request with a 48 bit sequence number.
            head = struct.pack("!HHBBHBBHII", source_port, port, 5, 0, 0, 1, 0, 0, 1, 0)
            return _checked(probe, head, 6, is_over_addresses=True)
        case 1 if probe.family == 4:
            return _checked(probe, _echo(probe) + padding, 2, is_over_addresses=False)
        case 58 if probe.family == 6:
            return _checked(probe, _echo(probe) + padding, 2, is_over_addresses=True)
        case 2:
            head = struct.pack("!BBH4s", 0x16, 0, 0, bytes(4))
            return _checked(probe, head, 2, is_over_addresses=False)
        case _:
            return bytes(16) + padding


def _echo(probe: Probe) -> bytes:
    return struct.pack("!BBHHH", probe.icmp_type, 0, 0, probe.ports[0], 1) + bytes(16)


def _checked(probe: Probe, data: bytes, offset: int, *, is_over_addresses: bool) -> bytes:
    """The data with its checksum filled in at `offset`."""
    pseudo = b""
    if is_over_addresses:
        ends = packed(probe.source) + packed(probe.destination)
        pseudo = ends + struct.pack("!II", len(data), probe.protocol)
    checksum = internet_checksum(pseudo + data)
    if probe.protocol == UDP and checksum == 0:
        checksum = 0xFFFF  # RFC 768: zero means none
    return data[:offset] + struct.pack("!H", checksum) + data[offset + 2 :]


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


# --- what is seen -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sight:
    """An IP packet as it was seen on a wire; ports are 0 where the protocol has none.

    `answers` is the serial of the probe that it answers, and `answer` the message's type and code
    (ICMP), or None for a reset.
    """

    family: int
    serial: int
    source: int
    destination: int
    protocol: int
    ports: tuple[int, int] = (0, 0)
    answers: int | None = None
    answer: tuple[int, int] | None = None
    is_probe: bool = True


# Of "destination unreachable" the protocol and the type: RFC 792, RFC 4443.
UNREACHABLE = {4: (ICMP, 3), 6: (ICMPV6, 1)}
RST = 0x04


def sight(data: bytes) -> Sight | None:
    """What an IP packet is, or None where it is none or too short to tell."""
    try:
        family = data[0] >> 4
        if family == 4:
            serial, protocol = struct.unpack_from("!H", data, 4)[0], data[9]
            ends, rest = (data[12:16], data[16:20]), data[(data[0] & 15) * 4 :]
        elif family == 6:
            serial, protocol = struct.unpack_from("!I", data)[0] & 0xFFFFF, data[6]
            ends, rest = (data[8:24], data[24:40]), data[40:]
        else:
            return None
        return _sight(family, serial, protocol, ends, rest)
    except (IndexError, struct.error):
        return None


def _sight(
    family: int, serial: int, protocol: int, ends: tuple[bytes, bytes], rest: bytes
) -> Sight:
    ports: tuple[int, int] = (0, 0)
    answers, answer, is_probe = None, None, True
    if protocol in HAS_PORTS:
        ports = struct.unpack_from("!HH", rest)
    if protocol == TCP:
        sequence, acknowledged = struct.unpack_from("!II", rest, 4)
        if rest[13] & RST:
            answers = acknowledged >> SEQUENCE_SHIFT
        is_probe = sequence == serial << SEQUENCE_SHIFT
    elif (protocol, rest[:1]) == (UNREACHABLE[family][0], bytes((UNREACHABLE[family][1],))):
        quoted = sight(rest[8:])
        if quoted is not None:
            answers, answer, is_probe = quoted.serial, (rest[0], rest[1]), False
    source, destination = unpacked(ends[0]), unpacked(ends[1])
    return Sight(family, serial, source, destination, protocol, ports, answers, answer, is_probe)
