"""The station as a router, and what it sends on: packets as the far ends of its wires see them.

A packet keeps its serial on the way, so that each is found again whatever became of its addresses.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP
from policylang.proving.octets import internet_checksum
from tests.backends.nft_station import FAR_MAC, OWN, WIRES, Packet, Station, station
from tests.kernel.ground import Family

ETH_P_ALL = 3  # linux/if_ether.h
SILENCE_S = 0.25  # after so long nothing more is expected
PATIENCE_S = 5.0

# Behind which wire the rest of the world is, and a part of it that no table but one leads to.
WORLD = {4: "203.0.113.9", 6: "2001:db8:99::9"}
DEFAULT_WIRE = "eth1"

HOSTS = range(2, 40)  # last parts of the addresses of hosts on each wire


def host(wire: str, family: int, number: int) -> str:
    """The address of a host at the far end of a wire."""
    prefix = OWN[wire][family].rpartition("." if family == 4 else ":")[0]
    return f"{prefix}.{number}" if family == 4 else f"{prefix}:{number:x}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet as it left by a wire. What it does not have is 0."""

    wire: str
    source: str
    destination: str
    protocol: int
    ports: tuple[int, int]
    dscp: int
    mss: int
    sequence: int  # the number of TCP
    is_sound: bool  # its checksums are right


@dataclass(slots=True)
class Router:
    """A firewall that forwards between its wires, and the ears at their far ends."""

    station: Station
    ears: dict[str, socket.socket]

    def load(self, script: str) -> None:
        """Load a script in place of the last one; no connection is known, and nothing was seen."""
        self.station.load(script)
        self.forget()

    def forget(self) -> None:
        """End all connections, and hear nothing of what was sent before."""
        for family in ("ipv4", "ipv6"):
            self.station.inside.run(["conntrack", "-F", "-f", family], check=False)
        for _ in self._all(silence_s=0):
            pass

    def carried(self, *packets: Packet) -> list[Seen | None]:
        """Throw packets, in order; what left by a wire for each of them."""
        first = self.station.thrown + 1
        self.station.throw(packets)
        wanted = range(first, self.station.thrown + 1)
        found = self._heard(set(wanted))
        return [found.get(serial) for serial in wanted]

    def carry(self, packet: Packet) -> Seen:
        """Throw a packet that must leave by a wire."""
        (seen,) = self.carried(packet)
        assert seen is not None, packet
        return seen

    def heard(self) -> list[Seen]:
        """What left by the wires since the last look, without order, whatever its serial."""
        return [seen for _, seen in self._all(SILENCE_S)]

    def _heard(self, wanted: set[int]) -> dict[int, Seen]:
        """The packets of these serials, as soon as all are there, or all that came."""
        found: dict[int, Seen] = {}
        for serial, seen in self._all(SILENCE_S):
            if serial in wanted:
                found[serial] = seen
            if wanted == found.keys():
                break
        return found

    def _all(self, silence_s: float) -> Iterator[tuple[int, Seen]]:
        end = time.monotonic() + PATIENCE_S
        by_socket = {ear: wire for wire, ear in self.ears.items()}
        while time.monotonic() < end:
            ready, _, _ = select.select(list(by_socket), [], [], silence_s)
            if not ready:
                return
            for ear in ready:
                data, address = ear.recvfrom(4096)
                if address[2] != socket.PACKET_OUTGOING:  # thrown by the far end itself
                    seen = _read(data, by_socket[ear])
                    if seen is not None:
                        yield seen


def _read(frame: bytes, wire: str) -> tuple[int, Seen] | None:
    """The serial and the packet of an Ethernet frame, or None where it is neither IP nor of use."""
    data = frame[14:]
    match frame[12:14]:
        case b"\x08\x00":
            size = (data[0] & 15) * 4
            (length,) = struct.unpack_from("!H", data, 2)
            serial, protocol = struct.unpack_from("!H", data, 4)[0], data[9]
            ends, dscp = (data[12:16], data[16:20]), data[1] >> 2
            is_sound = _adds_up(data[:size])
        case b"\x86\xdd":
            size, length = 40, 40 + struct.unpack_from("!H", data, 4)[0]
            (first,) = struct.unpack_from("!I", data)
            serial, protocol = first & 0xFFFFF, data[6]
            ends, dscp = (data[8:24], data[24:40]), first >> 22 & 63
            is_sound = True
        case _:
            return None
    body = data[size:length]
    has_ports = protocol in (TCP, UDP, DCCP, SCTP)
    ports = struct.unpack_from("!HH", body) if has_ports else (0, 0)
    pseudo = ends[0] + ends[1] + struct.pack("!II", len(body), protocol)
    if protocol in (TCP, UDP, ICMPV6):
        is_sound = is_sound and _adds_up(pseudo + body)
    elif protocol == ICMP:
        is_sound = is_sound and _adds_up(body)
    source, destination = (str(ip_address(end)) for end in ends)
    mss, sequence = (_mss(body), *struct.unpack_from("!I", body, 4)) if protocol == TCP else (0, 0)
    return serial, Seen(wire, source, destination, protocol, ports, dscp, mss, sequence, is_sound)


def _adds_up(data: bytes) -> bool:
    """Whether the checksum within some data is right: both zeros of ones' complement say so."""
    return internet_checksum(data) in (0, 0xFFFF)


def _mss(segment: bytes) -> int:
    options = segment[20 : (segment[12] >> 4) * 4]
    while len(options) > 1:
        if options[0] == 2:
            return int(struct.unpack_from("!H", options, 2)[0])
        options = options[1 if options[0] == 1 else options[1] or 1 :]
    return 0


@contextmanager
def router() -> Iterator[Router]:
    """Lay the wires, with hosts behind each; everything is gone afterwards."""
    with ExitStack() as stack:
        laid = stack.enter_context(station())
        inside = laid.inside
        inside.sysctl("net.ipv4.ip_forward", "1")
        inside.sysctl("net.ipv6.conf.all.forwarding", "1")
        for key in ("all", "default", *WIRES):
            inside.sysctl(f"net.ipv4.conf.{key}.send_redirects", "0")
            inside.sysctl(f"net.ipv4.conf.{key}.rp_filter", "0")
        for number, wire in enumerate(WIRES):
            inside.ip(
                *(
                    f"neigh replace {host(wire, family, n)} lladdr {FAR_MAC.format(number)}"
                    f" dev {wire} nud permanent"
                    for family in (4, 6)
                    for n in HOSTS
                )
            )
        for family in (4, 6):
            gate = host(DEFAULT_WIRE, family, 2)
            anywhere = {4: "0.0.0.0/0", 6: "::/0"}[family]
            inside.ip(f"route add {anywhere} via {gate} dev {DEFAULT_WIRE}")
        ears: dict[str, socket.socket] = {}
        for wire in WIRES:
            with laid.outside.entered():
                kind = socket.htons(ETH_P_ALL)
                ears[wire] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, kind)
                ears[wire].bind((wire, ETH_P_ALL))
            stack.callback(ears[wire].close)
        yield Router(laid, ears)


def opened(router: Router, family: int, kind: socket.SocketKind) -> socket.socket:
    """A socket of the firewall itself, with a time-out."""
    made = router.station.inside.opened(Family(family), kind)
    if family == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(PATIENCE_S)
    return made
