"""A firewall in a namespace: probes are thrown at it, and those that pass are written down.

The firewall has five interfaces whose other ends lie in a second namespace. A table of our own
behind every filter (priority filter + 10) remembers the serials of the probes that come so
far, and drops them there: nothing is answered, nothing becomes a connection, so each probe is
judged for itself. The same table without any firewall in front of it tells the facts: which
hook a probe reaches, by which interfaces, and what conntrack and the routing table say of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from pathlib import Path
from types import MappingProxyType

from policylang.model.types import Answer
from policylang.packets.fields import AddressType, State
from policylang.proving.octets import ETHERTYPE
from tests.differential import conntrack
from tests.differential.frames import (
    MARKS,
    OWNERS,
    PROBE_DSCPS,
    SEQUENCE_SHIFT,
    UNTRACKED_DSCPS,
    Probe,
    packet_bytes,
)
from tests.kernel.ground import CommandError, Namespace

Address = IPv4Address | IPv6Address

INTERFACES = ("wan0", "lan0", "lan1", "lan10", "dmz0")

# What the firewall calls its own, interface by interface.
OWN = MappingProxyType(
    {
        "wan0": (IPv4Interface("198.51.100.1/28"), IPv6Interface("2001:db8:51::1/120")),
        "lan0": (IPv4Interface("10.1.0.1/24"), IPv6Interface("fd00:1::1/72")),
        "lan1": (IPv4Interface("10.1.2.1/24"), IPv6Interface("fd00:1:0:0:2::1/80")),
        "lan10": (IPv4Interface("10.2.0.1/30"), IPv6Interface("2001:db8:2::1/124")),
        "dmz0": (IPv4Interface("203.0.113.1/26"), IPv6Interface("2001:db8:113::1/64")),
    }
)

# Where the world is: each of these networks is cut in eight, and the pieces lie behind the
# interfaces in turn. Everything else lies behind the first one.
ANCHORS = (
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "10.1.0.0/16",
    "10.2.0.0/16",
    "2001:db8:2::/64",
    "2001:db8:51::/64",
    "2001:db8:113::/64",
    "fd00:1::/64",
)

GROUPS = ("224.0.0.251", "239.1.2.3", "ff02::fb", "ff05::2")

IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP = 35, 20  # linux/in.h, linux/in6.h
SERIALS = range(1, 60001)


@dataclass(frozen=True, slots=True)
class Facts:
    """How a probe meets the filter where no firewall stands before it."""

    iif: str | None
    oif: str | None
    state: State
    destination_type: AddressType
    source_type: AddressType = AddressType.UNICAST
    is_reply: bool = False
    is_routed_back: bool = True


# --- what is written down ----------------------------------------------------------------------

PATHS = ("input", "forward", "output")
STATES = {state: state.name.lower() for state in State}
TYPES = {kind: kind.name.lower() for kind in AddressType}


def _conditions(*, with_facts: bool) -> dict[str, str]:
    """The sets beside those of the paths, and the conditions on which a probe is in them.

    One mention of `ct` at least, so that conntrack runs whether a firewall asks for it or not.
    """
    if not with_facts:
        return {"state-new": "ct state new"}
    conditions = {f"state-{name}": f"ct state {name}" for name in STATES.values()}
    conditions |= {f"type-{name}": f"fib daddr type {name}" for name in TYPES.values()}
    conditions |= {"source-local": "fib saddr type local", "reply": "ct direction reply"}
    conditions |= {"unrouted": "fib saddr . iif oif missing"}
    for name in (*INTERFACES, "lo"):
        conditions[f"iif-{name}"] = f"iifname {name}"
        conditions[f"oif-{name}"] = f"oifname {name}"
    return conditions


# The codes of "destination unreachable" in RFC 792 and RFC 1812, and in RFC 4443.
UNREACHABLE = {
    Answer.PORT_UNREACHABLE: (3, 4),
    Answer.HOST_UNREACHABLE: (1, 3),
    Answer.NET_UNREACHABLE: (0, 0),
    Answer.ADMIN_PROHIBITED: (13, 1),
}


def _answer_rules() -> Iterator[str]:
    """What remembers the answers that REJECT sends, by the serial of the probe.

    An ICMP error quotes the probe behind its own eight bytes; of IPv6 flow labels the lower 16
    bits are enough. A reset acknowledges the byte after a probe that has its serial in its sequence
    number.
    """
    for answer, (code, code6) in UNREACHABLE.items():
        yield f"icmp type 3 icmp code {code} add @{answer.value}-4 {{ @th,96,16 }}"
        yield f"icmpv6 type 1 icmpv6 code {code6} add @{answer.value}-6 {{ @th,80,16 }}"
    for family in (4, 6):
        yield (
            f"meta nfproto ipv{family} tcp flags & rst == rst "
            f"add @{Answer.TCP_RESET.value}-{family} {{ tcp ackseq }}"
        )


def _set_keys(*, with_facts: bool) -> dict[str, tuple[str, str]]:
    """The sets of the collector and what they hold, of IPv4 and of IPv6."""
    keys = dict.fromkeys((*PATHS, *_conditions(with_facts=with_facts)), ("ip id", "ip6 flowlabel"))
    keys |= dict.fromkeys((answer.value for answer in UNREACHABLE), ("ip id", "ip id"))
    keys[Answer.TCP_RESET.value] = ("tcp ackseq", "tcp ackseq")
    return keys


def _collector(*, with_facts: bool) -> str:
    """The table that remembers probes; what else the firewall would send is dropped there."""
    conditions = _conditions(with_facts=with_facts)
    sets = "".join(
        f"set {name}-{family} {{ typeof {key}; flags dynamic; size 65535; }}\n"
        for name, keys in _set_keys(with_facts=with_facts).items()
        for family, key in zip((4, 6), keys, strict=True)
    )
    chains = "".join(_collector_chain(path, conditions) for path in PATHS)
    # Those that end the way of a probe, and that let the firewall's own resets pass.
    switches = "chain fate {\ndrop\n}\nchain resets {\n}\n" + (
        "chain early { type filter hook output priority -310;\njump resets\n}\n"
    )
    return f"table inet collector {{\n{sets}{switches}{chains}}}\n"


def _collector_chain(path: str, conditions: Mapping[str, str]) -> str:
    rules = [
        f"{condition} add @{name}-{family} {{ {key} }}"
        for family, key in ((4, "ip id"), (6, "ip6 flowlabel"))
        for name, condition in ((path, ""), *conditions.items())
        if not (path == "input" and name.startswith("oif"))
        if not (path == "output" and name.startswith(("iif", "unrouted")))
    ]
    probes = ", ".join(map(str, (*PROBE_DSCPS, *UNTRACKED_DSCPS)))
    # Packets over loopback are answers of a REJECT to the firewall itself, and probes to it.
    others: tuple[str, ...] = ("accept",)
    if path == "output":
        others = (*_answer_rules(), "oifname lo accept", "drop")
    body, rest = "\n".join(rules), "\n".join(others)
    return (
        f"chain {path}-probes {{\n{body}\ngoto fate\n}}\n"
        f"chain {path} {{ type filter hook {path} priority filter + 10;\n"
        f"ip dscp {{ {probes} }} goto {path}-probes\n"
        f"ip6 dscp {{ {probes} }} goto {path}-probes\n"
        f"{rest}\n}}\n"
    )


def _tagging() -> str:
    """The table that marks probes and keeps some out of conntrack, before every other raw table.

    A helper that iptables assigns at raw would otherwise come first.
    """
    untracked = ", ".join(map(str, UNTRACKED_DSCPS))
    rules = [f"{ip} dscp {{ {untracked} }} notrack" for ip in ("ip", "ip6")]
    rules += (
        f"{ip} ecn {number} meta mark set {mark}"
        for ip in ("ip", "ip6")
        for number, mark in enumerate(MARKS)
    )
    body = "\n".join(rules)
    return "table inet tagging {\n" + "".join(
        f"chain {hook} {{ type filter hook {hook} priority -310;\n{body}\n}}\n"
        for hook in ("prerouting", "output")
    ) + "}\n"  # fmt: skip


# --- the firewall ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The serials of the probes that passed, and the answers to those that were rejected."""

    passed: set[int]
    answers: dict[int, Answer]


@dataclass(slots=True)
class Firewall:
    """A namespace with interfaces, routes and the collector; rules are loaded by the caller."""

    namespace: Namespace
    with_facts: bool
    wires: dict[str, socket.socket]
    own: dict[tuple[str | None, int, int], socket.socket]

    def throw(self, probes: Sequence[tuple[int, Probe]]) -> None:
        """Send probes under their serials."""
        for serial, probe in probes:
            packet = packet_bytes(probe, serial)
            try:
                if probe.way_in is not None:
                    self.wires[probe.way_in].send(_header(probe) + packet)
                else:
                    destination = (str(probe.destination), 0)
                    sender = self.own[probe.way_out, probe.family, probe.owner_number]
                    sender.sendto(packet, destination)
            except OSError:
                # PermissionError where a filter drops what is sent here; anything else does
                # not reach the hook in the control either.
                continue

    def outcome(self) -> Outcome:
        """What became of the probes so far; both families together, for they share no serial."""
        sets = self._read((*PATHS, *(answer.value for answer in Answer)))
        answers: dict[int, Answer] = {}
        for answer in Answer:
            shift = SEQUENCE_SHIFT if answer is Answer.TCP_RESET else 0
            answers |= {number >> shift: answer for number in sets[answer.value]}
        return Outcome(set().union(*(sets[path] for path in PATHS)), answers)

    def facts(self) -> dict[int, Facts]:
        """Serial -> facts, of the probes that reached a hook."""
        sets = self._read((*PATHS, *_conditions(with_facts=True)))
        result: dict[int, Facts] = {}
        for path in PATHS:
            for serial in sets[path]:
                result[serial] = Facts(
                    None if path == "output" else _which(sets, "iif", serial),
                    None if path == "input" else _which(sets, "oif", serial),
                    next(s for s, name in STATES.items() if serial in sets[f"state-{name}"]),
                    next(t for t, name in TYPES.items() if serial in sets[f"type-{name}"]),
                    AddressType.LOCAL if serial in sets["source-local"] else AddressType.UNICAST,
                    serial in sets["reply"],
                    serial not in sets["unrouted"],
                )
        return result

    def forget(self) -> None:
        """Empty the collector."""
        names = _set_keys(with_facts=self.with_facts)
        script = "".join(
            f"flush set inet collector {name}-{family}\n" for name in names for family in (4, 6)
        )
        subprocess_output(self.namespace, ["nft", "-f", "-"], script)

    @contextmanager
    def letting_pass(self) -> Iterator[None]:
        """Let probes go their way and become connections; resets would end those at once."""
        self._switch("accept", "tcp flags & rst == rst drop")
        try:
            yield
        finally:
            self._switch("drop", "continue")

    def _switch(self, fate: str, resets: str) -> None:
        script = (
            f"flush chain inet collector fate\nadd rule inet collector fate {fate}\n"
            f"flush chain inet collector resets\nadd rule inet collector resets {resets}\n"
        )
        subprocess_output(self.namespace, ["nft", "-f", "-"], script)

    def _read(self, names: Sequence[str]) -> dict[str, set[int]]:
        listing = subprocess_output(
            self.namespace, ["nft", "-j", "list", "table", "inet", "collector"]
        )
        found: dict[str, set[int]] = {name: set() for name in names}
        for item in json.loads(listing)["nftables"]:
            if "set" in item:
                name = item["set"]["name"].rpartition("-")[0]
                if name in found:
                    found[name].update(item["set"].get("elem", ()))
        return found


def _which(sets: Mapping[str, set[int]], side: str, serial: int) -> str | None:
    for name in (*INTERFACES, "lo"):
        if serial in sets[f"{side}-{name}"]:
            return name
    return None


def subprocess_output(namespace: Namespace, argv: Sequence[str], stdin: str = "") -> str:
    """Run a program in a namespace, without the mount namespace that `ip netns exec` makes."""
    with namespace.entered():
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XTABLES_LOCKFILE": str(_lock_file(namespace))},
        )
    out, err = child.communicate(stdin, timeout=60)
    if child.returncode != 0:
        raise CommandError(f"{' '.join(argv)} ended with {child.returncode}\n{err}{stdin}")
    return out


def _lock_file(namespace: Namespace) -> Path:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    return Path(tempfile.gettempdir(), f"{namespace.name}.lock")


@contextmanager
def firewall(role: str, *, with_facts: bool = False) -> Iterator[Firewall]:
    """A firewall with open doors; it and its surroundings are gone afterwards."""
    with ExitStack() as stack:
        inside = Namespace.create(role)
        stack.callback(inside.delete)
        stack.callback(_lock_file(inside).unlink, missing_ok=True)
        outside = Namespace.create(f"{role}-out")
        stack.callback(outside.delete)
        _lay_wires(inside, outside)
        made = Firewall(inside, with_facts, {}, {})
        for name in INTERFACES:
            wire = _wire(outside, f"{name}-far")
            stack.callback(wire.close)
            made.wires[name] = wire
        for way_out in (None, *INTERFACES):
            for family in (4, 6):
                for number in range(len(OWNERS)):
                    opened = _raw_socket(inside, way_out, family, number)
                    made.own[way_out, family, number] = opened
                    stack.callback(opened.close)
        for opened in _members(inside):
            stack.callback(opened.close)
        subprocess_output(
            inside, ["nft", "-f", "-"], _tagging() + _collector(with_facts=with_facts)
        )
        yield made


def _mac(number: int, *, far: bool) -> bytes:
    return bytes((2, 0, 0, 0, int(far), number + 1))


def sender_mac(probe: Probe) -> int | None:
    """The MAC address that a probe comes from, None where it does not arrive."""
    if probe.way_in is None or probe.mac is not None:
        return probe.mac
    return int.from_bytes(_mac(INTERFACES.index(probe.way_in), far=True))


def _header(probe: Probe) -> bytes:
    """The Ethernet header of a probe that arrives."""
    sender = sender_mac(probe)
    assert probe.way_in is not None and sender is not None
    receiver = _mac(INTERFACES.index(probe.way_in), far=False)
    return receiver + sender.to_bytes(6) + struct.pack("!H", ETHERTYPE[probe.family])


def _lay_wires(inside: Namespace, outside: Namespace) -> None:
    for key in ("all", "default"):
        outside.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", "1")
        inside.sysctl(f"net.ipv4.conf.{key}.rp_filter", "0")
        inside.sysctl(f"net.ipv4.conf.{key}.send_redirects", "0")
        inside.sysctl(f"net.ipv4.conf.{key}.accept_local", "1")
    commands = []
    for number, name in enumerate(INTERFACES):
        near, far = _mac(number, far=False).hex(":"), _mac(number, far=True).hex(":")
        commands += [
            f"link add {name} address {near} type veth "
            f"peer name {name}-far address {far} netns {outside.name}",
            f"link set {name} up",
            *(f"addr add {a} brd + dev {name}" for a in OWN[name] if a.version == 4),
            *(f"addr add {a} dev {name} nodad" for a in OWN[name] if a.version == 6),
        ]
    inside.ip(*commands)
    outside.ip(*(f"link set {name}-far up" for name in INTERFACES))
    inside.sysctl("net.ipv4.ip_forward", "1")
    inside.sysctl("net.ipv6.conf.all.forwarding", "1")
    inside.sysctl("net.ipv6.auto_flowlabels", "0")
    # Every REJECT is answered, however many there are.
    inside.sysctl("net.ipv4.icmp_ratelimit", "0")
    inside.sysctl("net.ipv4.icmp_msgs_per_sec", "1000000")
    inside.sysctl("net.ipv4.icmp_msgs_burst", "1000000")
    inside.sysctl("net.ipv6.icmp.ratelimit", "0")
    inside.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")
    inside.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1")
    inside.ip(*_routes())


def _routes() -> Iterator[str]:
    yield f"route add default dev {INTERFACES[0]}"
    for number, name in enumerate(INTERFACES):
        # Each has a default route, so that what the firewall sends may leave by any of them.
        yield f"route add ::/0 dev {name} metric {100 + number}"
    for turn, anchor in enumerate(ANCHORS):
        for number, piece in enumerate(pieces(anchor)):
            yield f"route add {piece} dev {INTERFACES[(turn + number) % len(INTERFACES)]}"


def pieces(anchor: str) -> Iterator[str]:
    """An anchor's eight parts, in order."""
    base, _, length = anchor.partition("/")
    address = ip_address(base)
    longer = int(length) + 3
    for number in range(8):
        step = number << (address.max_prefixlen - longer)
        yield f"{type(address)(int(address) + step)}/{longer}"


def _wire(outside: Namespace, interface: str) -> socket.socket:
    with outside.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        opened.bind((interface, 0))
    return opened


def _raw_socket(
    inside: Namespace, way_out: str | None, family: int, owner_number: int
) -> socket.socket:
    """A socket that sends whole IP packets, of whatever source.

    Its owner is who this process is to file systems just then (setfsuid(2)), which takes away no
    right to open it.
    """
    user, group = OWNERS[owner_number]
    with inside.entered():
        af = socket.AF_INET if family == 4 else socket.AF_INET6
        libc = ctypes.CDLL(None)
        libc.setfsgid(group)
        libc.setfsuid(user)
        try:
            opened = socket.socket(af, socket.SOCK_RAW, socket.IPPROTO_RAW)
        finally:
            libc.setfsuid(0)
            libc.setfsgid(0)
        if family == 4:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if way_out is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way_out.encode())
        opened.setblocking(False)
    return opened


def _members(inside: Namespace) -> Iterator[socket.socket]:
    """Sockets that make the firewall a member of `GROUPS`, one for each interface and family."""
    for name in INTERFACES:
        for af in (socket.AF_INET, socket.AF_INET6):
            with inside.entered():
                opened = socket.socket(af, socket.SOCK_DGRAM)
                index = socket.if_nametoindex(name)
            for group in map(ip_address, GROUPS):
                if group.version == 4 and af == socket.AF_INET:
                    request = group.packed + bytes(4) + struct.pack("=i", index)
                    opened.setsockopt(socket.IPPROTO_IP, IP_ADD_MEMBERSHIP, request)
                elif group.version == 6 and af == socket.AF_INET6:
                    request = group.packed + struct.pack("=i", index)
                    opened.setsockopt(socket.IPPROTO_IPV6, IPV6_JOIN_GROUP, request)
            yield opened


def connect(target: Firewall, connections: Sequence[conntrack.Connection]) -> int:
    """Make the firewall forget its connections and know these instead; returns how many it took."""
    conntrack.flush(target.namespace)
    return conntrack.enter(target.namespace, connections)
