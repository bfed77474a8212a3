"""First packets as values, and the bytes that they are on the wire; knows no policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from policylang.packets.fields import ICMP, ICMPV6, TCP, TCP_RST
from policylang.packets.values import V6_BASE
from policylang.proving.octets import HAS_PORTS, Content, ip_packet, payload_bytes

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
    """The IP packet of a probe; `serial` is its IPv4 identification or IPv6 flow label.

    TCP has it in the upper bits of its sequence number too, which a reset acknowledges.
    """
    source, destination = packed(probe.source), packed(probe.destination)
    content = Content(
        probe.protocol,
        probe.ports,
        sequence=serial << SEQUENCE_SHIFT,
        icmp_type=probe.icmp_type,
        number=1,
        padding=probe.padding,
    )
    payload = payload_bytes(content, source, destination)
    traffic_class = probe.dscp << 2
    return ip_packet(
        source, destination, probe.protocol, payload, serial, traffic_class=traffic_class
    )


def packed(address: int) -> bytes:
    """The bytes of an address number."""
    if address >= V6_BASE:
        return (address - V6_BASE).to_bytes(16)
    return address.to_bytes(4)


def unpacked(data: bytes) -> int:
    """The number of an address of four or sixteen bytes."""
    return int.from_bytes(data) + (V6_BASE if len(data) == 16 else 0)


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
        if rest[13] & TCP_RST:
            answers = acknowledged >> SEQUENCE_SHIFT
        is_probe = sequence == serial << SEQUENCE_SHIFT
    elif (protocol, rest[:1]) == (UNREACHABLE[family][0], bytes((UNREACHABLE[family][1],))):
        quoted = sight(rest[8:])
        if quoted is not None:
            answers, answer, is_probe = quoted.serial, (rest[0], rest[1]), False
    source, destination = unpacked(ends[0]), unpacked(ends[1])
    return Sight(family, serial, source, destination, protocol, ports, answers, answer, is_probe)
