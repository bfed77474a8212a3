"""Probes, and the bytes that they are on the wire; knows no policy."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP

Address = IPv4Address | IPv6Address

# DSCP values: the firewall sends nothing else with them. (Its ICMP errors have 48 to 55: the
# precedence of internetwork control, and the lower bits of the packet that they are about.)
PROBE_DSCPS = (2, 8, 10, 46)
UNTRACKED_DSCPS = (3, 12, 34)
# The packet marks that the firewall gives to probes before all rules, by their ECN bits.
MARKS = (0, 0x1, 0x10, 0xFF10)
# Users and groups of the processes that send.
OWNERS = ((0, 0), (1000, 100), (1001, 1000))
MTU = 1500
SEQUENCE_SHIFT = 11  # no probe is so long that it fills these bits

SYN, ACK = 0x02, 0x10
HOP_BY_HOP = 0
EXTENSIONS = (0, 43, 44, 51, 59, 60, 135, 139, 140)  # IANA: IPv6 Extension Header Types
GRE = 47


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet that an ICMP error is about: TCP, UDP or an ICMP echo request."""

    source: Address
    destination: Address
    protocol: int
    ports: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Probe:
    """A packet to be sent.

    `way_in` is the interface of the firewall by which it arrives, None for what the firewall
    sends itself, which leaves by `way_out` (None: as the routing table says). `ports` are the
    source and destination port where the protocol has any; echo requests carry the first as
    their identifier. A `broken` checksum makes conntrack call an arriving packet INVALID.
    With a DSCP of `UNTRACKED_DSCPS` it is kept out of conntrack.
    """

    way_in: str | None
    way_out: str | None
    source: Address
    destination: Address
    protocol: int
    ports: tuple[int, int] = (0, 0)
    icmp_type: int = 0
    hop_limit: int = 64
    tcp_flags: int = SYN
    broken: bool = False
    with_options: bool = False  # IPv6: an extension header before the protocol's own
    quoted: Quoted | None = None
    dscp: int = PROBE_DSCPS[0]
    mark_number: int = 0  # in MARKS
    owner_number: int = 0  # in OWNERS
    mac: int | None = None  # another sender's than the one at the other end of the wire
    padding: int = 0  # bytes behind the transport header, where there may be any

    @property
    def family(self) -> int:
        return self.source.version

    @property
    def untracked(self) -> bool:
        return self.dscp in UNTRACKED_DSCPS

    @property
    def is_unsendable(self) -> bool:
        """Whether another packet would leave than this says.

        IPv6 takes some protocols for extension headers, which the probe does not have, and a raw
        socket fills in a source of 0.0.0.0.
        """
        if self.family == 6:
            return self.protocol in EXTENSIONS
        return self.way_in is None and int(self.source) == 0


def packet_bytes(probe: Probe, serial: int) -> bytes:
    """The IP packet of a probe; `serial` is its IPv4 identification or IPv6 flow label.

    TCP has it in the upper bits of its sequence number too: a reset acknowledges that number and
    the length of what the probe holds.
    """
    payload = _payload(probe, serial)
    protocol = probe.protocol
    traffic_class = probe.dscp << 2 | probe.mark_number
    source, destination = probe.source.packed, probe.destination.packed
    if probe.family == 4:
        head = struct.pack(
            "!BBHHHBBH",
            0x45,
            traffic_class,
            20 + len(payload),
            serial,
            0,
            probe.hop_limit,
            protocol,
            0,
        )
        checksum = internet_checksum(head + source + destination)
        return head[:10] + struct.pack("!H", checksum) + source + destination + payload
    if probe.with_options:
        # RFC 8200 section 4.3 and 4.2: eight bytes, six of them PadN.
        payload = bytes((protocol, 0, 1, 4, 0, 0, 0, 0)) + payload
        protocol = HOP_BY_HOP
    head = struct.pack(
        "!IHBB", 6 << 28 | traffic_class << 20 | serial, len(payload), protocol, probe.hop_limit
    )
    return head + source + destination + payload


def _payload(probe: Probe, serial: int) -> bytes:
    sport, dport = probe.ports
    padding = bytes(probe.padding)
    match probe.protocol:
        case 6:
            head = struct.pack(
                "!HHIIBBHHH",
                sport,
                dport,
                serial << SEQUENCE_SHIFT,
                1,
                5 << 4,
                probe.tcp_flags,
                512,
                0,
                0,
            )
            return _checked(probe, head + padding, 16, over_addresses=True)
        case 17:
            head = struct.pack("!HHHH", sport, dport, 8 + len(padding), 0)
            return _checked(probe, head + padding, 6, over_addresses=True)
        case 132:
            # RFC 9260 section 3.3.2: an INIT chunk, which must come alone.
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 0xFFFF, 1, 1, 1)
            head = struct.pack("!HHI", sport, dport, 0)
            checksum = crc32c(head + b"\0\0\0\0" + chunk) ^ probe.broken
            return head + struct.pack("<I", checksum) + chunk
        case 33:
            # RFC 4340 section 5.1 and 6.1: a Request with a 48 bit sequence number.
            head = struct.pack("!HHBBHBBHII", sport, dport, 5, 0, 0, (0 << 1) | 1, 0, 0, 1, 0)
            return _checked(probe, head, 6, over_addresses=True)
        case 1 if probe.family == 4:
            return _checked(probe, _icmp(probe) + padding, 2, over_addresses=False)
        case 58 if probe.family == 6:
            return _checked(probe, _icmp(probe) + padding, 2, over_addresses=True)
        case 2:
            head = struct.pack("!BBH4s", 0x16, 0, 0, bytes(4))
            return _checked(probe, head, 2, over_addresses=False)
        case _:
            return bytes(16) + padding


def _icmp(probe: Probe) -> bytes:
    head = struct.pack("!BBHHH", probe.icmp_type, 0, 0, probe.ports[0], 0)
    return head + (bytes(16) if probe.quoted is None else _quoted_bytes(probe.quoted))


def _quoted_bytes(quoted: Quoted) -> bytes:
    inner = Probe(
        None,
        None,
        quoted.source,
        quoted.destination,
        quoted.protocol,
        quoted.ports,
        icmp_type={ICMP: 8, ICMPV6: 128}.get(quoted.protocol, 0),
    )
    return packet_bytes(inner, 0)


def _checked(probe: Probe, data: bytes, offset: int, *, over_addresses: bool) -> bytes:
    """The data with its checksum filled in at `offset`, wrong where the probe is broken."""
    pseudo = b""
    if over_addresses:
        pseudo = (
            probe.source.packed
            + probe.destination.packed
            + struct.pack("!II", len(data), probe.protocol)
        )
    checksum = internet_checksum(pseudo + data)
    if probe.protocol == UDP and checksum == 0:
        checksum = 0xFFFF  # RFC 768: zero means none
    if probe.broken:
        checksum = (checksum + 1) % 0xFFFF or 1
    return data[:offset] + struct.pack("!H", checksum) + data[offset + 2 :]


def internet_checksum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    # The sum in ones' complement is the remainder by 0xFFFF, of all 16 bit words as one number.
    return ~(int.from_bytes(data, "big") % 0xFFFF) & 0xFFFF


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260 appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return ~value & 0xFFFFFFFF


HAS_PORTS = (TCP, UDP, DCCP, SCTP)
