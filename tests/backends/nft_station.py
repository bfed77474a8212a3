"""A firewall with two wires, packets that are thrown at it, and what it lets pass at each hook.

What the nft target emits is loaded as it is. Behind it a collector remembers every packet by its
serial, the identification of IPv4 or the flow label of IPv6, and at which hook it came by.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address

from policylang.backends.nft import NftBackend
from policylang.diagnostics import Report
from policylang.ir.actions import Accept, Drop
from policylang.ir.ruleset import AddressTest, Base, Chain, DynamicSet, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING
from policylang.packets.fields import ICMP, UDP
from policylang.proving.octets import internet_checksum
from tests.kernel.ground import Namespace

_libc = ctypes.CDLL(None)

WIRES = ("eth0", "eth1")
OWN = {
    "eth0": {4: "192.0.2.1", 6: "2001:db8:1::1"},
    "eth1": {4: "198.51.100.1", 6: "2001:db8:2::1"},
}
FAR = {
    "eth0": {4: "192.0.2.2", 6: "2001:db8:1::2"},
    "eth1": {4: "198.51.100.2", 6: "2001:db8:2::2"},
}
FAR_MAC = "02:00:00:00:01:0{}"
NEAR_MAC = "02:00:00:00:00:0{}"
ETHERTYPES = {4: 0x0800, 6: 0x86DD}

ROUTING_HEADER = 43  # IANA: IPv6 extension header types
IGMP = 2


class Hook(StrEnum):
    """Where a packet was seen, behind the rules of that hook."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet from the other end of a wire or, with `mark` or `sender`, of the firewall itself.

    `options` are IPv4 options; of IPv6, extension headers as (number, bytes behind the first).
    """

    source: str
    destination: str
    protocol: int = UDP
    ports: tuple[int, int] = (40000, 53)
    wire: str = "eth0"
    mac: str | None = None
    dscp: int = 0
    size: int | None = None  # of the whole packet; None: as small as it can be
    icmp_type: int = 0
    hop_limit: int = 64
    options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    tcp_flags: int = 0x02
    numbers: tuple[int, int] = (1, 1)  # of TCP: in sequence, and acknowledged
    mss: int | None = None  # of TCP: the segment size that a SYN offers
    content: bytes = b""  # of TCP and UDP
    quoted: bytes = b""  # of an ICMP error: the packet that it is about

    @property
    def family(self) -> int:
        return ip_address(self.source).version

    def data(self, serial: int) -> bytes:
        """The IP packet."""
        head_size = 20 + len(self.options) if self.family == 4 else 40
        extensions = sum(1 + len(data) for _, data in self.extensions)
        payload = self._payload()
        if self.size is not None:
            payload = self._payload(self.size - head_size - extensions - len(payload))
        source, destination = ip_address(self.source).packed, ip_address(self.destination).packed
        if self.family == 4:
            head = struct.pack(
                "!BBHHHBBH",
                0x40 | head_size // 4,
                self.dscp << 2,
                head_size + len(payload),
                serial,
                0,
                self.hop_limit,
                self.protocol,
                0,
            )
            whole = head + source + destination + self.options
            checksum = struct.pack("!H", internet_checksum(whole))
            return whole[:10] + checksum + whole[12:] + payload
        protocol = self.protocol
        for number, data in reversed(self.extensions):
            payload = bytes((protocol,)) + data + payload
            protocol = number
        first = 6 << 28 | self.dscp << 22 | serial
        head = struct.pack("!IHBB", first, len(payload), protocol, self.hop_limit)
        return head + source + destination + payload

    def _payload(self, padding: int = 0) -> bytes:
        sport, dport = self.ports
        match self.protocol:
            case 17:
                size = 8 + len(self.content) + padding
                body = struct.pack("!HHHH", sport, dport, size, 0) + self.content + bytes(padding)
                offset = 6
            case 6:
                # RFC 9293 section 3.2: option 2 of four bytes
                option = b"" if self.mss is None else struct.pack("!BBH", 2, 4, self.mss)
                words = 5 + len(option) // 4
                body = struct.pack(
                    "!HHIIBBHHH", *self.ports, *self.numbers, words << 4, self.tcp_flags, 512, 0, 0
                )
                body += option + self.content + bytes(padding)
                offset = 16
            case 1 | 58:
                body = struct.pack("!BBHHH", self.icmp_type, 0, 0, 1, 1)
                body += self.quoted or bytes(16 + padding)
                offset = 2
            case 2:
                body = struct.pack("!BBH4s", 0x16, 0, 0, bytes(4))  # RFC 2236: a report
                offset = 2
            case _:
                raise AssertionError(f"no packets of protocol {self.protocol} here")
        pseudo = b""
        if self.protocol not in (ICMP, IGMP):
            pseudo = ip_address(self.source).packed + ip_address(self.destination).packed
            pseudo += struct.pack("!II", len(body), self.protocol)
        checksum = internet_checksum(pseudo + body) or 0xFFFF
        return body[:offset] + struct.pack("!H", checksum) + body[offset + 2 :]


def arriving(wire: str = "eth0", family: int = 4, **other: object) -> Packet:
    """A packet from the far end of a wire to the firewall."""
    made = Packet(FAR[wire][family], OWN[wire][family], wire=wire)
    return replace(made, **other)  # type: ignore[arg-type]


def leaving(wire: str = "eth0", family: int = 4, **other: object) -> Packet:
    """A packet from the firewall to the far end of a wire."""
    made = Packet(OWN[wire][family], FAR[wire][family], wire=wire)
    return replace(made, **other)  # type: ignore[arg-type]


def frame(packet: Packet, serial: int) -> bytes:
    """What a packet is on its wire."""
    number = WIRES.index(packet.wire)
    destination = bytes.fromhex(NEAR_MAC.format(number).replace(":", ""))
    mac = packet.mac or FAR_MAC.format(number)
    head = destination + bytes.fromhex(mac.replace(":", ""))
    return head + struct.pack("!H", ETHERTYPES[packet.family]) + packet.data(serial)


def ruleset(
    items: Mapping[tuple[Stage, Path], Sequence[Item]],
    *chains: Chain,
    tests: tuple[AddressTest, ...] = (),
    sets: tuple[DynamicSet, ...] = (),
    counters: bool = False,
) -> Ruleset:
    """Base chains of these items; what no item of the filter decides is dropped there."""
    last = {Stage.FILTER: (Rule(EVERYTHING, Drop()),)}
    bases = tuple(Base(stage, path, f"{stage.value}-{path.value}") for stage, path in items)
    made = (
        Chain(base.chain, (*items[base.stage, base.path], *last.get(base.stage, ())))
        for base in bases
    )
    return Ruleset(
        bases,
        (*made, *chains),
        address_tests=tests,
        dynamic_sets=sets,
        has_counters=counters,
    )


def emitted(rules: Ruleset) -> str:
    """The script; a test asks for nothing that the target refuses."""
    report = Report()
    artifact = NftBackend().emit(rules, report)
    assert not report.diagnostics, report.diagnostics
    (script,) = artifact.files
    return script.text


ACCEPT = Accept()

COLLECTOR = "table inet seen {\n" + "".join(
    f"set {hook}-{family} {{ typeof {key}; flags dynamic; size 65535; }}\n"
    for hook in Hook
    for family, key in ((4, "ip id"), (6, "ip6 flowlabel"))
) + "".join(
    f"chain {hook} {{ type filter hook {hook} priority {priority};\n"
    f"add @{hook}-4 {{ ip id }}\nadd @{hook}-6 {{ ip6 flowlabel }}\n{end}\n}}\n"
    for hook, priority, end in (
        # Behind everything that screens, and before anything that routes.
        (Hook.PREROUTING, -120, "accept"),
        (Hook.INPUT, 10, "accept"),
        (Hook.FORWARD, 10, "accept"),
        (Hook.OUTPUT, 10, "accept"),
    )
) + "}\n"  # fmt: skip
FORGET = "".join(f"flush set inet seen {hook}-{family}\n" for hook in Hook for family in (4, 6))


@dataclass(slots=True)
class Station:
    """The firewall. Serials start anew with each `load`; a packet's is its place in what was thrown
    since, counted from 1."""

    inside: Namespace
    wires: dict[str, socket.socket]
    own: dict[tuple[str, int], socket.socket]
    outside: Namespace  # where the wires end
    thrown: int = field(default=0)

    def load(self, script: str, zone: str = "UTC") -> None:
        """Load a script in place of the last one, in that time zone; nothing was seen yet."""
        self.nft(f"{script}\n{FORGET}", zone)
        self.thrown = 0

    def nft(self, script: str, zone: str = "UTC") -> str:
        return self.inside.run(["nft", "-f", "-"], stdin=script, env={"TZ": zone}).stdout

    def throw(self, packets: Iterable[Packet]) -> None:
        """Send packets from the far ends of their wires."""
        for packet in packets:
            self.thrown += 1
            self.wires[packet.wire].send(frame(packet, self.thrown))

    def send(self, packets: Iterable[Packet], by: socket.socket | None = None) -> None:
        """Send packets from the firewall itself, by a socket of `sender`."""
        for packet in packets:
            self.thrown += 1
            opened = by or self.own[packet.wire, packet.family]
            with suppress(PermissionError):  # a filter dropped it
                opened.sendto(packet.data(self.thrown), (packet.destination, 0))

    def sender(
        self, family: int, wire: str = "eth0", *, uid: int = 0, gid: int = 0, mark: int = 0
    ) -> socket.socket:
        """A socket of that user and group that sends whole IP packets by a wire."""
        with self.inside.entered():
            # Of this thread alone, which stays root in all but that: raw sockets are root's.
            _libc.setfsgid(gid)
            _libc.setfsuid(uid)
            try:
                opened = _raw(family)
            finally:
                _libc.setfsuid(os.geteuid())
                _libc.setfsgid(os.getegid())
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, wire.encode())
        if mark:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if family == 4:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setblocking(False)
        return opened

    def seen(self, hook: Hook) -> set[int]:
        """The serials that came by a hook since the last `load`."""
        listing = self.inside.run(["nft", "-j", "list", "table", "inet", "seen"]).stdout
        found: set[int] = set()
        for item in json.loads(listing)["nftables"]:
            if "set" in item and item["set"]["name"].rpartition("-")[0] == hook:
                found.update(item["set"].get("elem", ()))
        return found & set(range(1, self.thrown + 1))

    def verdicts(self, hook: Hook, packets: Sequence[Packet]) -> list[bool]:
        """Throw (or, for the output hook, send) packets; which of them came by the hook."""
        first = self.thrown + 1
        (self.send if hook is Hook.OUTPUT else self.throw)(packets)
        seen = self.seen(hook)
        return [serial in seen for serial in range(first, self.thrown + 1)]

    def elements(self, name: str) -> set[str]:
        """What a set of the emitted table holds, concatenations joined by a space."""
        listing = self.inside.run(["nft", "-j", "list", "set", "inet", "policylang", name]).stdout
        (held,) = (item["set"] for item in json.loads(listing)["nftables"] if "set" in item)
        return {_text(element) for element in held.get("elem", ())}


def _text(element: object) -> str:
    match element:
        case {"elem": {"val": value}}:
            return _text(value)
        case {"concat": [*values]}:
            return " ".join(map(_text, values))
        case _:
            return str(element)


def _raw(family: int) -> socket.socket:
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    return socket.socket(af, socket.SOCK_RAW, socket.IPPROTO_RAW)


def introduced(wire: str) -> tuple[str, ...]:
    """The commands of `ip` that tell the firewall who is at the far end, where nobody answers.

    Of whom it asks for in vain it tells itself, seconds later, by ICMP errors that are counted.
    """
    mac = FAR_MAC.format(WIRES.index(wire))
    return tuple(
        f"neigh replace {address} lladdr {mac} dev {wire} nud permanent"
        for address in FAR[wire].values()
    )


@contextmanager
def station() -> Iterator[Station]:
    """Lay the wires; everything is gone afterwards."""
    with ExitStack() as stack:
        inside = Namespace.create("nftfw")
        stack.callback(inside.delete)
        outside = Namespace.create("nftout")
        stack.callback(outside.delete)
        outside.sysctl("net.ipv6.conf.default.disable_ipv6", "1")
        for key in ("all", "default"):
            inside.sysctl(f"net.ipv4.conf.{key}.rp_filter", "0")
            inside.sysctl(f"net.ipv4.conf.{key}.accept_local", "1")
            inside.sysctl(f"net.ipv4.conf.{key}.accept_source_route", "1")
        inside.sysctl("net.ipv6.auto_flowlabels", "0")
        for number, wire in enumerate(WIRES):
            inside.ip(
                f"link add {wire} address {NEAR_MAC.format(number)} type veth peer name {wire}"
                f" address {FAR_MAC.format(number)} netns {outside.name}",
                f"link set {wire} up",
                f"addr add {OWN[wire][4]}/24 brd + dev {wire}",
                f"addr add {OWN[wire][6]}/64 dev {wire} nodad",
                *introduced(wire),
            )
            outside.ip(f"link set {wire} up")
        made = Station(inside, {}, {}, outside)
        for wire in WIRES:
            with outside.entered():
                opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                opened.bind((wire, 0))
            stack.callback(opened.close)
            made.wires[wire] = opened
            for family in (4, 6):
                made.own[wire, family] = made.sender(family, wire)
                stack.callback(made.own[wire, family].close)
        made.nft(COLLECTOR)
        yield made
