"""Rules that others write, and packets that the kernel reads by them: what a reader must foretell.

Each match stands in front of a jump to a chain of its own, which keeps the serials of all packets
that come to it. So the kernel says of every packet which matches are true of it.
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import product

from policylang.analysis.machine import Hook, Machine
from policylang.analysis.reading_nft import read_nft
from policylang.analysis.walking import Moment, Verdict, Walk, walk
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    AddressType,
    Field,
    FlowDirection,
    State,
)
from policylang.packets.values import name_range, parse_one_address
from tests.backends.nft_router import Router, host, router
from tests.backends.nft_station import COLLECTOR, FAR, FAR_MAC, OWN, WIRES, Packet
from tests.backends.nft_station import Hook as SeenAt
from tests.differential.conntrack import Connection, Flow, flush

SETS = """
	set singles { type ipv4_addr; elements = { 192.0.2.2, 198.51.100.2, 192.0.2.9 } }
	set ranges { type ipv4_addr; flags interval; elements = { 192.0.2.0/25, 203.0.113.1-203.0.113.9 } }
	set sixes { type ipv6_addr; flags interval; elements = { 2001:db8:1::/64, 2001:db8:2::2 } }
	set all4 { type ipv4_addr; flags interval; elements = { 192.0.2.2, * } }
	set noted { type ipv4_addr; flags interval; counter; elements = { 192.0.2.2 comment "a far host", 198.51.100.0/24 } }
	set ports { type inet_service; flags interval; elements = { 22, 1000-1999 } }
	set pairs { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 53, 198.51.100.2 . 1000-1999, 192.0.2.2 . 22 } }
	set names { type ifname; flags interval; elements = { "eth0", "wl*" } }
	set named { type ifname . ipv4_addr; elements = { "eth0" . 192.0.2.2, "eth1" . 192.0.2.2 } }
	set filled { type ipv4_addr; flags dynamic; elements = { 192.0.2.2 } }
	set timed { type inet_service; flags timeout; elements = { 22 timeout 1h } }
"""  # noqa: E501 (as nft takes it)

# What sends some packets elsewhere, so that there are connections of which that is true.
SENT_ELSEWHERE = """
	chain translating {
		type nat hook prerouting priority dstnat; policy accept;
		udp dport 7 redirect to :53
	}
"""

MEMBERS = {
    "filled": frozenset({(0xC0000202,)}),
    "timed": frozenset({(22,)}),
}

# Matches that a reader must understand whole, on every hook; all stand in a table of family inet.
MATCHES = (
    "meta nfproto ipv4",
    "meta nfproto != ipv4",
    "meta nfproto { ipv4, ipv6 }",
    "meta protocol ip6",
    "meta l4proto tcp",
    "meta l4proto != { tcp, udp }",
    "meta l4proto { icmp, ipv6-icmp, igmp }",
    "ip protocol udp",
    "ip protocol != udp",
    "ip saddr 192.0.2.2",
    "ip saddr != 192.0.2.2",
    "ip saddr 192.0.2.0/25",
    "ip saddr != 192.0.2.0/25",
    "ip saddr 192.0.2.1-192.0.2.5",
    "ip saddr != 192.0.2.1-192.0.2.5",
    "ip saddr { 192.0.2.2, 198.51.100.0/24 }",
    "ip saddr != { 192.0.2.2, 198.51.100.0/24 }",
    "ip saddr > 192.0.2.2",
    "ip saddr <= 192.0.2.2",
    "ip saddr & 255.255.0.255 == 192.0.0.2",
    "ip saddr & 255.255.0.255 != 192.0.0.2",
    "ip saddr @singles",
    "ip saddr != @singles",
    "ip saddr @ranges",
    "ip daddr != @ranges",
    "ip saddr @all4",
    "ip saddr != @all4",
    "ip saddr @noted",
    "ip saddr @filled",
    "ip saddr != @filled",
    "tcp dport @timed",
    "ip6 saddr 2001:db8:1::2",
    "ip6 saddr != 2001:db8:1::2",
    "ip6 saddr 2001:db8:1::/64",
    "ip6 saddr != { 2001:db8:1::/65, 2001:db8:2::1-2001:db8:2::9 }",
    "ip6 daddr @sixes",
    "ip6 daddr != @sixes",
    "ip6 saddr & ::ffff:ffff:ffff:ffff == ::2",
    "ip6 saddr & ::ffff:ffff:ffff:ffff != ::2",
    "ip6 saddr & ffff:ffff::ff == 2001:db8::2",
    "tcp dport 22",
    "tcp dport != 22",
    "tcp dport 1000-1999",
    "tcp dport != 1000-1999",
    "tcp dport { 22, 1000-1999 }",
    "tcp dport != { 22, 1000-1999 }",
    "tcp dport >= 1000",
    "tcp dport < 1000",
    "tcp dport & 1 == 1",
    "tcp dport & 0xff00 != 0",
    "tcp dport @ports",
    "udp dport != @ports",
    "udp sport 40000",
    "udp dport 53",
    "meta l4proto { tcp, udp } th dport 53",
    "meta l4proto { tcp, udp } th dport != { 22, 53 }",
    "meta l4proto != { icmp, ipv6-icmp, igmp } th sport 40000-40001",
    "meta l4proto { tcp, udp } th sport 40000 th dport 53",
    "meta l4proto { tcp, udp } th sport . th dport { 40000 . 53, 40001 . 50-60 }",
    "meta l4proto { tcp, udp } th sport . th dport != { 40000 . 53, 40001 . 50-60 }",
    "ip saddr . meta l4proto . th dport { 192.0.2.2 . udp . 53, 192.0.2.0/24 . tcp . 22 }",
    "ip saddr . meta l4proto . th dport != { 192.0.2.2 . udp . 53, 192.0.2.0/24 . tcp . 22 }",
    "ip saddr . tcp dport { 192.0.2.2 . 22, 198.51.100.2 . 1000 }",
    "ip saddr . tcp dport != { 192.0.2.2 . 22, 198.51.100.2 . 1000 }",
    "ip saddr . udp dport @pairs",
    "ip saddr . tcp dport @pairs",
    "ip saddr . tcp dport != @pairs",
    "ip saddr . ip daddr . meta l4proto { 192.0.2.2 . 192.0.2.1 . udp, 0.0.0.0/0 . 1.2.3.4 . tcp }",
    "meta l4proto . th dport { tcp . 22, udp . 53 }",
    "ct state . ip saddr { new . 192.0.2.2, invalid . 192.0.2.2 }",
    "meta mark . tcp dport { 0x7 . 22, 0x0 . 1000 }",
    "meta mark . tcp dport != { 0x7 . 22, 0x0 . 1000 }",
    "tcp flags syn",
    "tcp flags ! syn",
    "tcp flags == syn",
    "tcp flags != syn",
    "tcp flags syn,ack",
    "tcp flags { syn, syn | ack }",
    "tcp flags != { syn, syn | ack }",
    "tcp flags & (fin | syn) == (fin | syn)",
    "tcp flags & (fin | syn | rst | ack) == syn",
    "tcp flags & (fin | syn | rst | ack) != syn",
    "tcp flags & (fin | syn | rst | psh | ack | urg) == 0x0",
    "tcp flags & (syn | ack) == { syn, ack }",
    "tcp flags & fin != fin",
    "tcp flags & (fin | urg) != 0",
    "icmp type echo-request",
    "icmp type != echo-request",
    "icmp type { echo-request, timestamp-request }",
    "icmp type 8-13",
    "icmpv6 type echo-request",
    "icmpv6 type != { echo-request, nd-neighbor-solicit }",
    "icmpv6 type 133-136",
    "ip6 hoplimit 255",
    "ip6 hoplimit != 255",
    "ip6 hoplimit < 64",
    "ip dscp ef",
    "ip dscp != ef",
    "ip dscp { cs1, af21 }",
    "ip dscp 0x08-0x12",
    "ip6 dscp cs1",
    "ip6 dscp != { cs1, ef }",
    "meta length 100",
    "meta length > 99",
    "meta length != { 40, 100-200 }",
    "ip length 100-200",
    "ip6 length 60",
    "ip6 length < 60",
    "ct state new",
    "ct state ! new",
    "ct state != new",
    "ct state established,related",
    "ct state != { established, related }",
    "ct state & (established | new) == established",
    "ct state != established,new",
    "ct state { invalid, untracked }",
    "ct state invalid",
    "ct state untracked",
    "ct direction original",
    "ct direction reply",
    "ct direction != original",
    'ct helper "ftp"',
    'ct helper != "ftp"',
    'ct helper != "tftp"',
    "ct status expected",
    "ct status ! expected",
    "ct status expected,dnat",
    "ct status ! expected,dnat",
    "ct status & (expected | dnat) == expected",
    "ct status & (expected | dnat) != expected",
    "ct original ip daddr 192.0.2.1",
    "ct original ip daddr != 192.0.2.1",
    "ct original ip6 daddr 2001:db8:1::1",
    "ct original ip daddr { 192.0.2.1, 198.51.100.2 }",
    "meta l4proto udp ct original proto-dst 5001",
    "meta l4proto { tcp, udp } ct original proto-dst != 22",
    "meta l4proto udp ct original proto-dst 7",
    "meta l4proto udp ct original proto-dst != 53",
    "ct status dnat",
    "ct status ! dnat",
    "ct mark 0x0",
    "ct mark != 0x0",
    "ct mark & 0x1 == 0x0",
    "meta mark 0x7",
    "meta mark != 0x7",
    "meta mark & 0x3 == 0x3",
    "meta mark & 0x3 != 0x3",
    "meta mark & 0x6 == { 0x2, 0x6 }",
    "meta mark & 0x6 != { 0x2, 0x6 }",
    "meta mark & 0xff000000 == 0x0",
    "meta mark { 0x1, 0x5-0x9 }",
    "meta mark != { 0x1, 0x5-0x9 }",
    "meta mark > 0x6",
    'iifname "eth0"',
    'iifname != "eth0"',
    'iifname "eth*"',
    'iifname != "eth*"',
    'iifname { "eth1", "wl*" }',
    'iifname != { "eth1", "wl*" }',
    "iifname @names",
    "iif eth0",
    "iif != eth0",
    "iif 0",
    "iif != 0",
    'oifname "eth1"',
    'oifname != "eth1"',
    'oifname "eth*"',
    'oifname != "lo"',
    "oif != eth1",
    "oif 0",
    "iifname . ip saddr @named",
    'iifname . oifname { "eth0" . "eth1", "eth1" . "eth0" }',
    "fib daddr type local",
    "fib daddr type != local",
    "fib daddr type { local, broadcast, multicast }",
    "fib daddr type != { local, broadcast, multicast }",
    "fib saddr type local",
    "exthdr rt exists",
    "exthdr rt missing",
    "meta skuid 1234",
    "meta skuid != 1234",
    "meta skuid { 0, 1000-1100 }",
    "meta skgid > 100",
    "meta hour 0-86399",
    "meta hour < 86399",
    'meta day != { "Sunday", "Monday" } meta day != 2-6',
    "meta day 0-6",
    'meta time < "2199-01-01 00:00:00"',
    'meta time >= "2199-01-01 00:00:00"',
)

# Those that ask of the way in, or of the wire.
OF_ARRIVAL = (
    f"ether saddr {FAR_MAC.format(0)}",
    f"ether saddr != {FAR_MAC.format(0)}",
    f"ether saddr {{ {FAR_MAC.format(0)}, {FAR_MAC.format(1)} }}",
    "fib saddr . iif oif exists",
    "fib saddr . iif oif missing",
    "fib saddr . iif oif 0",
    "meta ipsec missing",
    "meta ipsec exists",
)


# --- packets ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """A packet, what a reader is to know of it, and what holds beside its fields."""

    packet: Packet
    fields: Mapping[Field, int]
    mark: int = 0
    user: int = 0
    group: int = 0

    def walked(self, machine: Machine) -> Walk:
        """The packet's way through a machine."""
        is_own = Field.IIF not in self.fields
        moment = Moment(
            mark=self.mark,
            user=self.user if is_own else None,
            group=self.group if is_own else None,
            now=datetime.now(UTC),
            members=MEMBERS,
        )
        return walk(machine, self.fields, moment=moment)


def name(text: str) -> int:
    return name_range(text)[0]


def number(address: str) -> int:
    found = parse_one_address(address)
    assert found is not None
    return found


def known(packet: Packet, state: State, **other: int) -> dict[Field, int]:
    """The fields of a packet, of which `other` may not be told from its bytes."""
    size = len(packet.data(1))
    fields = {
        Field.FAMILY: packet.family,
        Field.SADDR: number(packet.source),
        Field.DADDR: number(packet.destination),
        Field.L4PROTO: packet.protocol,
        Field.DSCP: packet.dscp,
        Field.SIZE: size,
        Field.CT_STATE: state,
        Field.SOURCE_ROUTED: int(bool(packet.extensions)),
    }
    if packet.protocol in (TCP, UDP):
        fields |= {Field.SPORT: packet.ports[0], Field.DPORT: packet.ports[1]}
    if packet.protocol == TCP:
        fields[Field.TCP_FLAGS] = packet.tcp_flags
    if packet.protocol in (ICMP, ICMPV6):
        kind = Field.ICMP_TYPE if packet.protocol == ICMP else Field.ICMPV6_TYPE
        fields[kind] = packet.icmp_type
    if packet.family == 6:
        fields[Field.HOP_LIMIT] = packet.hop_limit
    return fields | {Field[key]: value for key, value in other.items()}


TCP_LOOSE = "net.netfilter.nf_conntrack_tcp_loose"
UNTRACKED_TYPES = (*range(130, 137), 143)  # nf_conntrack_icmpv6.c: no connection, and no fault


def first_state(packet: Packet) -> State:
    """What conntrack makes of a packet of no connection, which it is not lenient with."""
    match packet.protocol:
        case 6:
            # tcp_new of nf_conntrack_proto_tcp.c, without the flags that it passes over
            return State.NEW if packet.tcp_flags & 0x17 == 0x02 else State.INVALID
        case 1:
            return State.NEW if packet.icmp_type in (8, 13, 15, 17) else State.INVALID
        case 58 if packet.icmp_type in UNTRACKED_TYPES:
            return State.UNTRACKED
        case 58:
            return State.NEW if packet.icmp_type in (128, 139) else State.INVALID
    return State.NEW


def _shapes(source: str, destination: str, wire: str) -> Iterator[Packet]:
    """Packets of all sorts between two hosts."""
    made = Packet(source, destination, wire=wire)
    for port in (53, 22, 1500, 7):
        yield replace(made, ports=(40000, port))
    yield replace(made, ports=(40001, 53))
    for port in (22, 53, 1000, 1999, 2000):
        yield replace(made, protocol=TCP, ports=(40000, port))
    for flags in (0x00, 0x01, 0x02, 0x03, 0x10, 0x12, 0x14, 0x29, 0x22, 0x42, 0xC2, 0x3F):
        yield replace(made, protocol=TCP, ports=(40100 + flags, 22), tcp_flags=flags)
    for dscp in (8, 18, 46):
        yield replace(made, dscp=dscp, ports=(40200, 53))
    for size in (100, 150, 300):
        yield replace(made, size=size, ports=(40300, 53))
    icmp, types = (ICMP, (8, 0, 13, 3)) if made.family == 4 else (ICMPV6, (128, 129, 1, 135))
    for kind in types:
        yield replace(made, protocol=icmp, icmp_type=kind)
    if made.family == 6:
        for hops in (255, 3):
            yield replace(made, hop_limit=hops, ports=(40400, 53))
        # A routing header of a type that nobody follows, with no segments left (RFC 8200 4.4).
        routing = (43, bytes((0, 253, 0, 0, 0, 0, 0)))
        yield replace(made, extensions=(routing,), ports=(40500, 53))
    else:
        yield replace(made, protocol=2)


def arriving(wire: str = "eth0", far: int = 2) -> list[Probe]:
    """Packets for this host."""
    return [
        Probe(
            packet,
            known(
                packet,
                first_state(packet),
                IIF=name(wire),
                DADDR_TYPE=AddressType.LOCAL,
                SMAC=mac(wire),
            ),
        )
        for family in (4, 6)
        for packet in _shapes(host(wire, family, far), OWN[wire][family], wire)
    ]


def forwarded(probe: Probe) -> Probe:
    """A packet as it is forwarded: IPv6 counts the hop before (ip6_forward)."""
    hops = probe.fields.get(Field.HOP_LIMIT)
    if hops is None:
        return probe
    return replace(probe, fields={**probe.fields, Field.HOP_LIMIT: hops - 1})


def passing() -> list[Probe]:
    """Packets from one wire to the other."""
    return [
        Probe(
            packet,
            known(packet, first_state(packet), IIF=name(wire), OIF=name(out), SMAC=mac(wire)),
        )
        for wire, out in (WIRES, WIRES[::-1])
        for family in (4, 6)
        for packet in _shapes(host(wire, family, 2), host(out, family, 3), wire)
    ]


def broadcast() -> list[Probe]:
    """Packets for all, and some whose source is none that could come that way."""
    found: list[Probe] = []
    for to, kind in (
        ("192.0.2.255", AddressType.BROADCAST),
        ("255.255.255.255", AddressType.BROADCAST),
        ("224.0.0.1", AddressType.MULTICAST),
    ):
        packet = Packet(FAR["eth0"][4], to, ports=(40600, 53))
        found.append(
            Probe(
                packet,
                known(packet, State.NEW, IIF=name("eth0"), DADDR_TYPE=kind, SMAC=mac("eth0")),
            )
        )
    for source, kind in (
        (OWN["eth1"][4], AddressType.LOCAL),
        (FAR["eth1"][4], AddressType.UNICAST),
    ):
        packet = Packet(source, OWN["eth0"][4], ports=(40700, 53))
        other = {
            "IIF": name("eth0"), "DADDR_TYPE": AddressType.LOCAL, "SADDR_TYPE": kind,
            "REVERSE_PATH": 0, "SMAC": mac("eth0"),
        }  # fmt: skip
        found.append(Probe(packet, known(packet, State.NEW, **other)))
    return found


def leaving() -> list[Probe]:
    """Packets of this host's own."""
    return [
        Probe(
            packet,
            known(packet, first_state(packet), OIF=name(wire), SADDR_TYPE=AddressType.LOCAL),
            mark,
            user,
            group,
        )
        for wire, mark, user, group in (
            ("eth0", 0, 0, 0), ("eth1", 7, 1234, 99), ("eth0", 1, 1050, 101), ("eth1", 0x20, 5, 5),
        )
        for family in (4, 6)
        for packet in _shapes(OWN[wire][family], FAR[wire][family], wire)
        # Which the kernel would send as it sees fit.
        if not packet.extensions and packet.protocol != 2 and packet.size is None
    ]  # fmt: skip


def mac(wire: str) -> int:
    return int(FAR_MAC.format(WIRES.index(wire)).replace(":", ""), 16)


# --- packets of open connections ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """An open connection, and packets of it or of one that it expects."""

    connection: Connection
    arriving: tuple[Probe, ...]
    leaving: tuple[Probe, ...] = ()


def opened() -> list[Open]:
    """Connections of both directions, and one that a helper predicts."""
    found: list[Open] = []
    for family in (4, 6):
        far, own = FAR["eth0"][family], OWN["eth0"][family]
        to_us = Flow(ip_address(far), ip_address(own), UDP, (5000, 5001))
        by_us = Flow(ip_address(own), ip_address(far), UDP, (6000, 6001))
        ftp = Flow(ip_address(far), ip_address(own), TCP, (5100, 21))
        data = Flow(ip_address(own), ip_address(far), TCP, (0, 5200))
        found += [
            Open(
                Connection(to_us),
                (_of(to_us, "in", State.ESTABLISHED, FlowDirection.ORIGINAL, to_us),),
                (_of(to_us.reversed, "out", State.ESTABLISHED, FlowDirection.REPLY, to_us),),
            ),
            Open(
                Connection(by_us),
                (_of(by_us.reversed, "in", State.ESTABLISHED, FlowDirection.REPLY, by_us),),
                (_of(by_us, "out", State.ESTABLISHED, FlowDirection.ORIGINAL, by_us),),
            ),
            Open(
                Connection(ftp, helper="ftp", expects=data),
                (_of(ftp, "in", State.ESTABLISHED, FlowDirection.ORIGINAL, ftp, flags=0x10),),
                (_expected(replace(data, ports=(20, 5200))),),
            ),
        ]
    return found


def _of(
    flow: Flow, way: str, state: State, direction: FlowDirection, original: Flow, *, flags: int = 2
) -> Probe:
    packet = Packet(
        str(flow.source), str(flow.destination), flow.protocol, flow.ports, tcp_flags=flags
    )
    other: dict[str, int] = {
        "CT_DIRECTION": direction,
        "ORIG_DADDR": number(str(original.destination)),
        "ORIG_DPORT": original.ports[1],
    }
    if way == "in":
        other |= {"IIF": name("eth0"), "DADDR_TYPE": AddressType.LOCAL, "SMAC": mac("eth0")}
    else:
        other |= {"OIF": name("eth0"), "SADDR_TYPE": AddressType.LOCAL}
    return Probe(packet, known(packet, state, **other))


def _expected(flow: Flow) -> Probe:
    made = _of(flow, "out", State.RELATED, FlowDirection.ORIGINAL, flow)
    return replace(made, fields={**made.fields, Field.CT_HELPER: name("ftp"), Field.EXPECTED: 1})


# --- the ground ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Ground:
    """A router that reads foreign rules, and what it did with packets."""

    router: Router
    listing: str = field(default="")

    def load(self, script: str) -> Machine:
        """Load rules in place of the last ones; as a reader understands what the kernel has."""
        inside = self.router.station.inside
        inside.run(["nft", "-f", "-"], stdin=f"flush ruleset\n{COLLECTOR}\n{script}")
        self.router.station.thrown = 0
        flush(inside)
        self.listing = inside.run(["nft", "-j", "list", "ruleset"], env={"TZ": "UTC"}).stdout
        return read_nft(self.listing)

    def send(self, probes: Sequence[Probe]) -> list[int]:
        """Send packets by their wires or from this host; their serials."""
        station = self.router.station
        serials: list[int] = []
        for probe in probes:
            if Field.IIF in probe.fields:
                station.throw([probe.packet])
            else:
                by = self._socket(probe)
                station.send([probe.packet], by)
                by.close()
            serials.append(station.thrown)
        return serials

    def _socket(self, probe: Probe) -> socket.socket:
        wire = "eth0" if probe.fields[Field.OIF] == name("eth0") else "eth1"
        return self.router.station.sender(
            probe.packet.family, wire, uid=probe.user, gid=probe.group, mark=probe.mark
        )

    def kept(self, family: str = "inet") -> dict[str, set[int]]:
        """What the sets of the table `f` of a family hold, by their names."""
        listed = self.router.station.inside.run(["nft", "-j", "list", "table", family, "f"]).stdout
        return {
            item["set"]["name"]: set(item["set"].get("elem", ()))
            for item in json.loads(listed)["nftables"]
            if "set" in item and item["set"]["name"].startswith("seen")
        }

    def seen(self, hook: SeenAt) -> set[int]:
        return self.router.station.seen(hook)


@contextmanager
def ground() -> Iterator[Ground]:
    with router() as laid:
        inside = laid.station.inside
        inside.sysctl(TCP_LOOSE, "0")
        yield Ground(laid)


FAMILIES = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}
SERIALS = {4: "ip id", 6: "ip6 flowlabel"}


def script_of(
    matches: Sequence[str], hook: Hook, priority: int, more: str = "", family: str = "inet"
) -> str:
    """Rules that keep the serials of the packets of each match, on one hook."""
    kept = FAMILIES[family]
    chains = "".join(
        "".join(
            f"\tset seen{n}-{f} {{ typeof {SERIALS[f]}; flags dynamic; size 4096; }}\n"
            for f in kept
        )
        + f"\tchain c{n} {{\n"
        + "".join(f"\t\tadd @seen{n}-{f} {{ {SERIALS[f]} }}\n" for f in kept)
        + "\t}\n"
        for n in range(len(matches))
    )
    rules = "".join(f"\t\t{match} jump c{n}\n" for n, match in enumerate(matches))
    return (
        f"table {family} f {{{SETS}{chains}{more}\tchain base {{\n\t\ttype filter hook {hook}"
        f" priority {priority}; policy accept;\n{rules}\t}}\n}}\n"
    )


def fit_for(family: str, matches: Sequence[str]) -> tuple[str, ...]:
    """The matches that may stand in a table of a family."""
    barred = {
        "inet": (),
        "ip": ("nfproto", "meta protocol", "ip6 ", "icmpv6", "exthdr"),
        "ip6": ("nfproto", "meta protocol", "ip ", "ip\t", "icmp ", "@named"),
    }[family]
    return tuple(match for match in matches if not any(word in match for word in barred))


def jumped_to(way: Walk, hook: Hook) -> set[int]:
    """The numbers of the matches that are true of a packet on a hook."""
    return {
        int(found[1])
        for passage in way.passages
        if passage.base.hook is hook
        for met in passage.met
        if (found := _KEEPING.fullmatch(met.chain)) is not None
    }


_KEEPING = re.compile(r"\w+ f c(\d+)")


def passes(way: Walk) -> bool:
    return way.verdict is Verdict.PASSES


# --- rules at random ----------------------------------------------------------------------------

SURE = tuple(
    match
    for match in MATCHES
    if not match.startswith(("ct ", "meta time", "meta hour", "meta day", "iifname \"*h0"))
)  # fmt: skip


def random_script(seed: int, hook: Hook) -> str:
    """A table of chains that jump to each other, on a hook."""
    rng = random.Random(seed)
    names = [f"part{n}" for n in range(rng.randint(2, 5))]
    chains: list[str] = []
    for place, chain in enumerate(names):
        later = names[place + 1 :]
        rules = "".join(f"\t\t{_rule(rng, later)}\n" for _ in range(rng.randint(2, 6)))
        chains.insert(0, f"\tchain {chain} {{\n{rules}\t}}\n")
    rules = "".join(f"\t\t{_rule(rng, names)}\n" for _ in range(rng.randint(4, 9)))
    policy = rng.choice(("accept", "drop"))
    return (
        f"table inet f {{{SETS}{''.join(chains)}\tchain base {{\n\t\ttype filter hook {hook}"
        f" priority {rng.choice((-150, 0, 5))}; policy {policy};\n{rules}\t}}\n}}\n"
    )


def _rule(rng: random.Random, chains: Sequence[str]) -> str:
    while True:
        chosen = [_match(rng) for _ in range(rng.choice((0, 1, 1, 1, 2, 2)))]
        act = _act(rng, chains)
        if not _conflict(chosen) and not _conflict([*chosen, act]):
            counter = rng.choice(("", "", "counter "))
            return " ".join((*chosen, f"{counter}{act}"))


# Disjoint parts of what packets here have, each within the blocks of its kind.
BLOCKS = {
    "ip saddr": (
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.4/30",
        "192.0.2.8-192.0.2.40",
        "198.51.100.0/24",
    ),
    "ip daddr": ("192.0.2.1", "192.0.2.3", "198.51.100.1-198.51.100.2", "198.51.100.3"),
    "ip6 saddr": ("2001:db8:1::1", "2001:db8:1::2", "2001:db8:1:0:1::/80", "2001:db8:2::/64"),
    "ip6 daddr": ("2001:db8:1::1", "2001:db8:1::3", "2001:db8:2::/65", "::1"),
    "tcp dport": ("22", "53-60", "1000", "1001-1998", "1999-2000"),
    "udp dport": ("7", "22-52", "53", "1500-65535"),
    "udp sport": ("40000", "40001-40200", "40300-65535"),
    "iifname": ('"eth0"', '"eth1"', '"wl*"'),
    "meta mark": ("0x0", "0x1-0x6", "0x7", "0x20"),
    "ip length": ("20-40", "41-99", "100-150", "300"),
    "meta length": ("0-40", "41-99", "100-150", "300"),
}
TOGETHER = (
    ("ip saddr", "tcp dport"),
    ("ip6 daddr", "udp dport", "udp sport"),
    ("iifname", "ip saddr"),
    ("ip saddr", "ip daddr", "tcp dport"),
    ("meta mark", "tcp dport"),
    ("iifname", "ip length"),
)


def _match(rng: random.Random) -> str:
    """A match of those that are listed, or one of values at random."""
    if rng.random() < 0.5:
        return rng.choice(SURE)
    keys = (rng.choice(tuple(BLOCKS)),) if rng.random() < 0.5 else rng.choice(TOGETHER)
    operator = rng.choice(("", "!= "))
    return f"{' . '.join(keys)} {operator}{{ {', '.join(_elements(rng, keys))} }}"


def _elements(rng: random.Random, keys: Sequence[str]) -> list[str]:
    every = [" . ".join(parts) for parts in product(*(BLOCKS[key] for key in keys))]
    return rng.sample(every, rng.randint(1, min(6, len(every))))


def _act(rng: random.Random, chains: Sequence[str]) -> str:
    kind = rng.choice(
        ("accept", "accept", "drop", "drop", "return", "jump", "goto", "mark", "vmap")
    )
    match kind:
        case "jump" | "goto":
            return f"{kind} {rng.choice(chains)}" if chains else "return"
        case "mark":
            return rng.choice(MARKS)
        case "vmap":
            return _vmap(rng, chains)
    return kind


MARKS = (
    "meta mark set meta mark xor 0x6",
    "meta mark set meta mark and 0xff xor 0x1 accept",
    "meta mark & 0x1 == 0x1 meta mark set meta mark xor 0x3 return",
    "meta mark set 0x7",
    "meta mark set meta mark or 0x3",
    "meta mark set meta mark and 0xfffffff0 or 0x5 accept",
    "meta mark 0x7 meta mark set 0x1 drop",
    "meta mark { 0x1, 0x7 } meta mark set 0x7 return",
    "meta mark & 0x3 == 0x3 meta mark set 0x0 tcp dport 22 accept",
    "meta mark & 0x1 == 0x1 meta mark set meta mark and 0xfffffffe meta l4proto udp accept",
)


def _vmap(rng: random.Random, chains: Sequence[str]) -> str:
    def verdict() -> str:
        to = [f"jump {chain}" for chain in chains] + [f"goto {chain}" for chain in chains]
        return rng.choice(("accept", "drop", "return", "continue", *to))

    if rng.random() < 0.5:
        random_keys = rng.choice((*TOGETHER, *((key,) for key in BLOCKS)))
        elements = _elements(rng, random_keys)
        held = ", ".join(f"{element} : {verdict()}" for element in elements)
        others = f", * : {verdict()}" if len(random_keys) == 1 and rng.random() < 0.3 else ""
        return f"{' . '.join(random_keys)} vmap {{ {held}{others} }}"
    keys = [
        ("meta l4proto", ("tcp", "udp", "icmp")),
        ("meta mark", ("0x0", "0x1", "0x7")),
        ("iifname", ('"eth0"', '"eth1"')),
        ("meta nfproto", ("ipv4", "ipv6")),
        ("meta l4proto . th dport", ("tcp . 22", "udp . 53", "tcp . 1000-1999")),
    ]
    key, values = rng.choice(keys)
    held = ", ".join(f"{value} : {verdict()}" for value in values)
    return f"{key} vmap {{ {held} }}"


def _conflict(said: Sequence[str]) -> bool:
    """Whether nft would refuse a rule of these parts: of both families, or of several protocols."""
    words = {word for part in said for word in part.split()}
    families = [words & {"ip", "icmp", "igmp"}, words & {"ip6", "icmpv6", "exthdr"}]
    protocols = words & {"tcp", "udp", "icmp", "icmpv6", "l4proto", "th", "protocol"}
    many = sum("l4proto" in part or "protocol" in part or "nfproto" in part for part in said)
    return all(families) or len(protocols) > 1 or bool(many and len(said) > 1)
