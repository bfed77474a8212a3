"""Throws probes at a firewall and sees what becomes of each; knows no policy.

What the firewall keeps for itself is remembered by a table of ours behind all rules, and ends
there. What it sends on, or answers, is seen at the other end of a wire. A firewall without rules
tells in the same way what a probe is: its path, and what conntrack and the routes say of it.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from policylang.apply import conntrack
from policylang.ir.stages import Path
from policylang.packets.fields import AddressType
from policylang.packets.values import V6_BASE, format_address
from policylang.proving.frames import Probe, Sight, packet_bytes, sight
from policylang.proving.ground import LOOPBACK, Ground
from policylang.proving.namespaces import FAR, mac
from policylang.proving.octets import ETHERTYPE

TABLE = "policylang_proof"
BEFORE_ALL, BEHIND_ALL = -2000, 2_000_000_000  # priorities; conntrack confirms at INT_MAX
ETH_P_ALL = 0x0003  # linux/if_ether.h
PACKET_OUTGOING = 4  # linux/if_packet.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
BUFFER_BYTES = 1 << 25
AT_ONCE = 400  # probes that are sent before wires are looked at
QUIET_MS = 20  # on a wire on which nothing more comes
IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP = 35, 20  # linux/in.h, linux/in6.h

KEYS = {4: "ip id", 6: "ip6 flowlabel"}
TYPES = {kind: kind.name.lower() for kind in AddressType}


@dataclass(frozen=True, slots=True)
class Facts:
    """How a probe meets the filter where there are no rules."""

    path: Path
    way_out: str | None
    is_new: bool
    destination_type: int
    source_type: int
    is_routed_back: bool


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a probe.

    `seen` is the packet where it left the firewall, by the interface `where`; both are None for
    what was kept. `answer` is what it was answered with: type and code of an ICMP error, or ()
    for a reset.
    """

    passed: bool
    where: str | None = None
    seen: Sight | None = None
    answer: tuple[int, ...] | None = None


@dataclass(slots=True)
class Thrower:
    """A ground with sockets at every wire, and the table of ours."""

    ground: Ground
    is_control: bool
    groups: Sequence[int]
    _stack: ExitStack = field(default_factory=ExitStack)
    _wires: dict[str, socket.socket] = field(default_factory=dict)
    _own: dict[tuple[int, int, int], socket.socket] = field(default_factory=dict)
    _has_marks: bool = False

    def forget(self) -> None:
        """Forget all connections and probes."""
        self.ground.firewall.do(lambda: conntrack.end(tuple(conntrack.connections())))
        self._nft("".join(f"flush set inet {TABLE} {name}\n" for name in self._set_names()))

    def mark(self, marks: Mapping[int, int]) -> None:
        """Let probes of these serials arrive with a mark."""
        if not marks and not self._has_marks:
            return
        self._has_marks = bool(marks)
        lines = []
        for family in KEYS:
            lines.append(f"flush map inet {TABLE} marks-{family}\n")
            held = ", ".join(f"{serial} : {mark}" for serial, mark in marks.items())
            if held:
                lines.append(f"add element inet {TABLE} marks-{family} {{ {held} }}\n")
        self._nft("".join(lines))

    def throw(self, probes: Mapping[int, Probe]) -> dict[int, Fate]:
        """What becomes of probes that are sent under these serials."""
        sights: list[tuple[str, Sight]] = []
        for number, (serial, probe) in enumerate(probes.items(), 1):
            self._send(serial, probe)
            if number % AT_ONCE == 0:
                sights += self._seen(0)
        sights += self._seen(QUIET_MS)
        return self._fates(probes, sights)

    def facts(self, probes: Mapping[int, Probe]) -> dict[int, Facts]:
        """What probes are that come to the filter; of a control alone."""
        for serial, probe in probes.items():
            self._send(serial, probe)
        held = self._held()
        found: dict[int, Facts] = {}
        for path in Path:
            for serial in held[path.value]:
                kinds = (t for t, name in TYPES.items() if serial in held[f"to-{name}"])
                way_out = (n for n in self._wires if serial in held[f"by-{n}"])
                found[serial] = Facts(
                    path,
                    None if path is Path.INPUT else next(way_out, None),
                    serial in held["new"],
                    int(next(kinds, AddressType.UNICAST)),
                    int(AddressType.LOCAL if serial in held["from-local"] else AddressType.UNICAST),
                    serial not in held["unrouted"],
                )
        return found

    # --- sending and seeing -------------------------------------------------------------------

    def _send(self, serial: int, probe: Probe) -> None:
        packet = packet_bytes(probe, serial)
        # PermissionError where a filter drops what is sent here; whatever else fails does not
        # reach the filter of the control either.
        with suppress(OSError):
            if probe.way_in is None:
                sender = self._sender(probe)
                sender.sendto(packet, (format_address(probe.destination), 0))
                return
            wire = self.ground.plan.wire(probe.way_in)
            source = mac(wire.number, is_far=True) if probe.mac is None else probe.mac.to_bytes(6)
            receiver = mac(wire.number, is_far=False)
            header = receiver + source + struct.pack("!H", ETHERTYPE[probe.family])
            self._wires[probe.way_in].send(header + packet)

    def _sender(self, probe: Probe) -> socket.socket:
        """A socket of that user and group that sends whole IP packets, of whatever source."""
        key = probe.family, probe.user, probe.group
        if key not in self._own:
            family = socket.AF_INET if probe.family == 4 else socket.AF_INET6

            def opened() -> socket.socket:
                # Of this thread alone, which ends then; the owner of a socket is who that is.
                libc = ctypes.CDLL(None)
                libc.setfsgid(probe.group)
                libc.setfsuid(probe.user)
                return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)

            made = self._stack.enter_context(self.ground.firewall.do(opened))
            if probe.family == 4:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            made.setblocking(False)
            self._own[key] = made
        return self._own[key]

    def _seen(self, patience_ms: int) -> Iterator[tuple[str, Sight]]:
        """What is seen on the wires, until nothing comes for so long."""
        waiting = select.poll()
        by_number = {opened.fileno(): (name, opened) for name, opened in self._wires.items()}
        for number in by_number:
            waiting.register(number, select.POLLIN)
        while ready := waiting.poll(patience_ms):
            for number, _ in ready:
                name, opened = by_number[number]
                with suppress(BlockingIOError):
                    while True:
                        data, source = opened.recvfrom(2048, socket.MSG_DONTWAIT)
                        if source[2] == PACKET_OUTGOING:
                            continue
                        found = sight(data[14:])
                        if found is not None:
                            yield name, found

    def _fates(
        self, probes: Mapping[int, Probe], sights: Sequence[tuple[str, Sight]]
    ) -> dict[int, Fate]:
        kept = self._held()["kept"]
        fates = {serial: Fate(serial in kept) for serial in probes}
        for name, one in sights:
            answered = fates.get(one.answers) if one.answers is not None else None
            if one.answers is not None and answered is not None:
                answer: tuple[int, ...] = () if one.answer is None else one.answer
                fates[one.answers] = Fate(answered.passed, answered.where, answered.seen, answer)
                continue
            probe = probes.get(one.serial)
            if (
                name != LOOPBACK
                and probe is not None
                and one.is_probe
                and (one.family, one.protocol) == (probe.family, probe.protocol)
            ):
                fates[one.serial] = Fate(True, name, one, fates[one.serial].answer)
        return fates

    # --- the table ----------------------------------------------------------------------------

    def _set_names(self) -> Iterator[str]:
        for name in self._conditions():
            for family in KEYS:
                yield f"{name}-{family}"

    def _conditions(self) -> dict[str, str]:
        """The sets, and the condition on which a probe comes into each."""
        if not self.is_control:
            return {"kept": ""}
        found = dict.fromkeys((path.value for path in Path), "")
        found |= {"new": "ct state new", "from-local": "fib saddr type local"}
        found |= {f"to-{name}": f"fib daddr type {name}" for name in TYPES.values()}
        found |= {"unrouted": "fib saddr . iif oif missing"}
        return found | {f"by-{name}": f'oifname "{name}"' for name in self._wires}

    def script(self) -> str:
        """The table of ours, in nft's words."""
        sets = "".join(
            f"set {name}-{family} {{ typeof {key}; flags dynamic; size 65535; }}\n"
            for name in self._conditions()
            for family, key in KEYS.items()
        )
        maps = "".join(
            f"map marks-{family} {{ typeof {key} : meta mark; }}\n" for family, key in KEYS.items()
        )
        marking = "".join(
            f"chain mark-{hook} {{ type filter hook {hook} priority {BEFORE_ALL};\n"
            + "".join(f"meta mark set {key} map @marks-{f}\n" for f, key in KEYS.items())
            + "}\n"
            for hook in ("prerouting", "output")
        )
        if self.is_control:
            chains = "".join(map(self._control_chain, Path))
        else:
            chains = self._chain(Path.INPUT, {"kept": ""})
        return f"table inet {TABLE} {{\n{sets}{maps}{marking}{chains}}}\n"

    def _control_chain(self, path: Path) -> str:
        others = {other.value for other in Path if other is not path}
        return self._chain(
            path,
            {
                name: condition
                for name, condition in self._conditions().items()
                if name not in others
                and not (path is Path.INPUT and name.startswith("by-"))
                and not (path is Path.OUTPUT and name == "unrouted")
            },
        )

    def _chain(self, path: Path, conditions: Mapping[str, str]) -> str:
        rules = "".join(
            f"{condition} add @{name}-{family} {{ {key} }}\n"
            for name, condition in conditions.items()
            for family, key in KEYS.items()
        )
        side = "iifname" if path is Path.INPUT else "oifname"
        return (
            f"chain {path} {{ type filter hook {path} priority {BEHIND_ALL};\n"
            f'{side} "{LOOPBACK}" accept\n{rules}drop\n}}\n'
        )

    def _held(self) -> dict[str, set[int]]:
        listing = self.ground.firewall.run(["nft", "-j", "list", "table", "inet", TABLE])
        found: dict[str, set[int]] = {name: set() for name in self._conditions()}
        for item in json.loads(listing)["nftables"]:
            if "set" in item:
                name = item["set"]["name"].rpartition("-")[0]
                found[name].update(item["set"].get("elem", ()))
        return found

    def _nft(self, script: str) -> None:
        self.ground.firewall.run(["nft", "-f", "-"], script)

    # --- opening ------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the sockets and load the table."""
        for name in self.ground.plan.wires:
            self._listen(name.name, self.ground.peers[name.name].do(lambda: _tap(FAR)))
        self._nft(self.script())
        if not self.is_control:
            self._listen(LOOPBACK, self.ground.firewall.do(lambda: _tap(LOOPBACK)))
        for group in self.groups:
            for wire in self.ground.plan.wires:
                self._join(group, wire.name)

    def _listen(self, name: str, opened: socket.socket) -> None:
        self._wires[name] = self._stack.enter_context(opened)

    def _join(self, group: int, name: str) -> None:
        firewall = self.ground.firewall
        index = firewall.do(lambda: socket.if_nametoindex(name))
        family = socket.AF_INET6 if group >= V6_BASE else socket.AF_INET
        member = self._stack.enter_context(firewall.socket(family, socket.SOCK_DGRAM))
        packed = socket.inet_pton(family, format_address(group))
        # What is no group, or one too many, is not joined: probes to it do not arrive then.
        with suppress(OSError):
            if family == socket.AF_INET:
                request = packed + bytes(4) + struct.pack("=i", index)
                member.setsockopt(socket.IPPROTO_IP, IP_ADD_MEMBERSHIP, request)
            else:
                request = packed + struct.pack("=i", index)
                member.setsockopt(socket.IPPROTO_IPV6, IPV6_JOIN_GROUP, request)

    def close(self) -> None:
        """Close the sockets, and take the table away."""
        self._stack.close()
        with suppress(OSError):
            self._nft(f"delete table inet {TABLE}\n")


def _tap(name: str) -> socket.socket:
    """A socket that sees what arrives at an interface of this thread's namespace, and sends."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    opened.bind((name, ETH_P_ALL))
    return opened


@contextmanager
def thrower(
    ground: Ground, *, is_control: bool = False, groups: Sequence[int] = ()
) -> Iterator[Thrower]:
    """Someone to throw probes; with `is_control` at a firewall that has no rules.

    `groups` are multicast addresses that the firewall is a member of.
    """
    made = Thrower(ground, is_control, groups)
    try:
        made.open()
        yield made
    finally:
        made.close()
