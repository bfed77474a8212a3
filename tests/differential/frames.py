"""Probes, and the bytes that they are on the wire; knows no policy.

What they are is written down on its own here: what a policy means to them is judged by the
reference interpreter, which shares nothing with what is tested. The bytes alone are laid out by
`policylang.proving.octets`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from policylang.packets.fields import ICMP, ICMPV6
from policylang.proving.octets import (
    EXTENSIONS,
    Content,
    checksum_at,
    ip_packet,
    payload_bytes,
)

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
    source, destination = probe.source.packed, probe.destination.packed
    content = Content(
        probe.protocol,
        probe.ports,
        sequence=serial << SEQUENCE_SHIFT,
        acknowledged=1,
        flags=probe.tcp_flags,
        icmp_type=probe.icmp_type,
        body=bytes(16) if probe.quoted is None else _quoted_bytes(probe.quoted),
        padding=probe.padding,
    )
    payload = payload_bytes(content, source, destination)
    if probe.broken:
        payload = _broken(payload, checksum_at(probe.protocol, is_v4=probe.family == 4))
    protocol = probe.protocol
    if probe.family == 6 and probe.with_options:
        # RFC 8200 section 4.3 and 4.2: eight bytes, six of them PadN.
        payload = bytes((protocol, 0, 1, 4, 0, 0, 0, 0)) + payload
        protocol = HOP_BY_HOP
    return ip_packet(
        source,
        destination,
        protocol,
        payload,
        serial,
        traffic_class=probe.dscp << 2 | probe.mark_number,
        hop_limit=probe.hop_limit,
    )


def _broken(payload: bytes, at: int | None) -> bytes:
    """The same with a wrong checksum, which is never the zero by which UDP has none."""
    if at is None:
        return payload
    (checksum,) = struct.unpack_from("!H", payload, at)
    return payload[:at] + struct.pack("!H", (checksum + 1) % 0xFFFF or 1) + payload[at + 2 :]


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
