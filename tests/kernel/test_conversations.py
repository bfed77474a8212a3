"""The kernel makes of a conversation what `policylang trace` tells of it.

The packets of a story are thrown at a real firewall one after another, byte by byte as a client and
a server would send them. What conntrack says of each, what of it leaves, and with which addresses
and which words inside, must be what the story tells.
"""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from policylang.analysis.conversation import staging
from policylang.analysis.conversation.firewall import Firewall as Modelled
from policylang.analysis.conversation.playing import Died, Stage
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.wire import Wire
from policylang.analysis.modelled import machine_of
from policylang.analysis.walking import Verdict
from policylang.diagnostics import Report
from policylang.lower.stateful import lower
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, State
from policylang.packets.values import format_address, name_pattern
from tests.analysis.conversations import brief, resolved_of, story_of
from tests.backends.nft_station import Packet, station

from .applied import Firewall, leaving_by
from .ground import Loader

# The wires of the station: `eth0` leads to 192.0.2.2, `eth1` to 198.51.100.2.
ZONES = """\
zone wan { interface eth0 network 192.0.2.0/24, 2001:db8:1::/64 }
zone lan { interface eth1 network 198.51.100.0/24, 2001:db8:2::/64 }
default deny outbound
"""
OUT = {"192.0.2.2": "eth0", "2001:db8:1::2": "eth0"}
OUT |= {"198.51.100.2": "eth1", "2001:db8:2::2": "eth1"}
LAN_TO_WAN = {4: "from 198.51.100.2 to 192.0.2.2", 6: "from 2001:db8:2::2 to 2001:db8:1::2"}
WAN_TO_SELF = {4: "from 192.0.2.2 to self", 6: "from 2001:db8:1::2 to self"}
MASQUERADE = {4: "masquerade from lan to wan\n", 6: "masquerade from lan to wan ipv6\n"}
TARGET = {4: "198.51.100.2", 6: "2001:db8:2::2"}
FAMILIES = (4, 6)

MUST_COME_S = 2.0  # far more than a packet needs through a namespace
MUST_NOT_COME_S = 0.05

WATCH = (
    "table inet watch {\n"
    + "".join(
        f"set {name}-{family} {{ typeof {key}; flags dynamic; size 65535; }}\n"
        for name in (*(state.name.lower() for state in State), "expected", "helped", "dnated")
        for family, key in ((4, "ip id"), (6, "ip6 flowlabel"))
    )
    + "chain states { type filter hook prerouting priority -190;\n"
    + "".join(
        f"ct state {state.name.lower()} add @{state.name.lower()}-4 {{ ip id }}\n"
        f"ct state {state.name.lower()} add @{state.name.lower()}-6 {{ ip6 flowlabel }}\n"
        for state in State
    )
    + "".join(
        f"{match} add @{name}-4 {{ ip id }}\n{match} add @{name}-6 {{ ip6 flowlabel }}\n"
        for name, match in (("expected", "ct status expected"), ("helped", 'ct helper "ftp"'))
    )
    + "}\nchain translated { type filter hook forward priority 20;\n"
    + "ct status dnat add @dnated-4 { ip id }\n"
    + "ct status dnat add @dnated-6 { ip6 flowlabel }\n}\n}\n"
)


@pytest.fixture(scope="module")
def watched(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    """A firewall that remembers which state conntrack gave to each packet.

    What conntrack says does not depend on who loads the rules, so nft is enough.
    """
    with station() as laid:
        laid.inside.sysctl("net.ipv4.ip_forward", "1")
        laid.inside.sysctl("net.ipv6.conf.all.forwarding", "1")
        laid.inside.sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1")
        laid.nft(WATCH)
        yield Firewall(laid, Loader.NFT, tmp_path_factory.mktemp("conversations"))


@dataclass(slots=True)
class Speaker:
    """One end of a connection over TCP, as far as its sequence numbers go."""

    next_own: int
    next_other: int = 0


@dataclass(slots=True)
class Replay:
    """Throws the packets of a story at a firewall, and holds what came of each, by its number.

    `left` are IP packets, None of one that did not leave.
    """

    firewall: Firewall
    listeners: dict[str, Callable[[], list[bytes]]]
    speakers: dict[tuple[str, int, int], Speaker] = field(default_factory=dict)
    serials: dict[int, int] = field(default_factory=dict)
    left: dict[int, bytes | None] = field(default_factory=dict)

    def throw(self, event: PacketEvent) -> None:
        """Send one packet from the wire of its sender, and look for it at the other one."""
        interface = name_pattern(event.sender.interface, event.sender.interface)
        assert interface is not None
        own = self._speaker(event.wire, is_sender=True)
        packet = _packet(event.wire, interface, own)
        for listen in self.listeners.values():
            listen()
        self.firewall.station.throw([packet])
        self.serials[event.number] = self.firewall.station.thrown
        arrived = self._wait(event)
        self.left[event.number] = arrived
        own.next_own += _length(event.wire)
        if arrived is not None and event.wire.protocol == TCP:
            seen = _tcp(arrived)
            other = self._speaker(_turned(event.carried.last), is_sender=True)
            other.next_other = seen.number + len(seen.content) + _phantom(event.wire.flags)

    def _wait(self, event: PacketEvent) -> bytes | None:
        """The packet as it leaves by the other wire; to this host nothing leaves."""
        goal = OUT.get(format_address(event.carried.last.destination))
        patience_s = MUST_COME_S if event.passed and goal else MUST_NOT_COME_S
        give_up = time.monotonic() + patience_s
        serial = self.serials[event.number]
        while time.monotonic() < give_up:
            for interface, listen in self.listeners.items():
                for data in listen():
                    if _serial(data) == serial:
                        assert not event.passed or interface == goal
                        return data
            time.sleep(0.001)
        return None

    def _speaker(self, wire: Wire, *, is_sender: bool) -> Speaker:
        ports = wire.ports or (0, 0)
        key = (format_address(wire.source), ports[0], ports[1])
        return self.speakers.setdefault(key, Speaker(1000 * (len(self.speakers) + 1)))

    def held(self) -> dict[str, set[int]]:
        """The serials in the sets of the watch, by the name of what they have in common."""
        found: dict[str, set[int]] = {}
        listing = self.firewall.station.inside.run(
            ["nft", "-j", "list", "table", "inet", "watch"]
        ).stdout
        for item in json.loads(listing)["nftables"]:
            if "set" in item:
                name = item["set"]["name"].rpartition("-")[0]
                found.setdefault(name, set()).update(item["set"].get("elem", ()))
        return found


@pytest.fixture
def replay(watched: Firewall) -> Iterator[Replay]:
    """An empty stage: no connection is open, and nothing was seen."""
    with ExitStack() as stack:
        listeners = {
            interface: stack.enter_context(leaving_by(watched, interface))
            for interface in ("eth0", "eth1")
        }
        names = (*(s.name.lower() for s in State), "expected", "helped", "dnated")
        sets = [f"{name}-{family}" for name in names for family in FAMILIES]
        watched.station.nft("".join(f"flush set inet watch {name}\n" for name in sets))
        yield Replay(watched, listeners)


# --- packets on the wire ----------------------------------------------------------------------


def _packet(wire: Wire, interface: str, own: Speaker) -> Packet:
    made = Packet(
        format_address(wire.source),
        format_address(wire.destination),
        wire.protocol,
        wire.ports or (0, 0),
        interface,
        icmp_type=wire.icmp_type or 0,
        tcp_flags=wire.flags,
        numbers=(own.next_own, own.next_other),
        content=_content(wire),
    )
    return made


def _content(wire: Wire) -> bytes:
    """What is said, as it is on the wire."""
    message = wire.message
    if message is None or wire.protocol not in (TCP, UDP):
        return b""
    if wire.protocol == TCP:
        return message.text.encode() + b"\r\n"
    opcode = {"RRQ": 1, "WRQ": 2}.get(message.kind)
    if opcode is not None:  # RFC 1350
        return struct.pack("!H", opcode) + b"boot.img\0octet\0"
    return message.text.encode()


def _length(wire: Wire) -> int:
    return len(_content(wire)) + _phantom(wire.flags) if wire.protocol == TCP else 0


def _phantom(flags: int) -> int:
    """SYN and FIN count as a byte."""
    return int(bool(flags & 0x03))


def _turned(wire: Wire) -> Wire:
    ports = wire.ports or (0, 0)
    return wire.with_ends(source=(wire.destination, ports[1]), destination=(wire.source, ports[0]))


def _serial(data: bytes) -> int:
    if data[0] >> 4 == 4:
        return int(struct.unpack_from("!H", data, 4)[0])
    return int(struct.unpack_from("!I", data)[0]) & 0xFFFFF


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet as it left; `number` is its sequence number, of TCP."""

    source: str
    destination: str
    ports: tuple[int, int] | None
    number: int
    content: bytes


def _seen(data: bytes, protocol: int) -> Seen:
    if data[0] >> 4 == 4:
        head, family = (data[0] & 0xF) * 4, socket.AF_INET
        source, destination = data[12:16], data[16:20]
    else:
        head, family = 40, socket.AF_INET6
        source, destination = data[8:24], data[24:40]
    ends = (socket.inet_ntop(family, source), socket.inet_ntop(family, destination))
    body = data[head:]
    if protocol == TCP:
        first, second, number = struct.unpack_from("!HHI", body)
        return Seen(*ends, (first, second), number, body[(body[12] >> 4) * 4 :])
    if protocol == UDP:
        first, second, size = struct.unpack_from("!HHH", body)
        return Seen(*ends, (first, second), 0, body[8:size])
    return Seen(*ends, None, 0, b"")


def _tcp(data: bytes) -> Seen:
    return _seen(data, TCP)


# --- the comparison ---------------------------------------------------------------------------


def compare(replay: Replay, policy: str, *stories: Story) -> None:
    """Throw stories at the firewall under their policy; every packet must fare as it is told."""
    replay.firewall.apply(policy)
    problems: list[str] = []
    for story in stories:
        replay.left.clear()
        replay.serials.clear()
        events = [event for event in story.packets if not event.sender.is_firewall]
        for event in events:
            replay.throw(event)
        problems += _problems(replay, events)
    assert not problems, "\n".join([policy, *problems])


def _problems(replay: Replay, events: list[PacketEvent]) -> list[str]:
    held = replay.held()
    states = {state: held[state.name.lower()] for state in State}
    expected, helped, dnated = (held[n] for n in ("expected", "helped", "dnated"))
    problems: list[str] = []
    for event in events:
        serial = replay.serials[event.number]
        tracked = event.carried.tracked
        told = [s.name for s in State if serial in states[s]]
        if told != [State(tracked.state).name]:
            problems.append(f"{event.number} {brief(event)}: the kernel says {told}")
        connection = tracked.connection
        is_expected = connection is not None and connection.is_expected
        if (serial in expected) != is_expected:
            problems.append(f"{event.number} {brief(event)}: expected by the kernel or not")
        by_ftp = (
            connection is not None
            and connection.master is not None
            and connection.master.helper == "ftp"
        )
        if (serial in helped) != by_ftp:
            problems.append(f"{event.number} {brief(event)}: `ct helper` differs")
        if event.passed and not event.receiver.is_firewall:
            is_dnated = connection is not None and connection.is_destination_translated
            if (serial in dnated) != is_dnated:
                problems.append(f"{event.number} {brief(event)}: `ct status dnat` differs")
            problems += _differences(event, replay.left[event.number])
        elif replay.left[event.number] is not None:
            problems.append(f"{event.number} {brief(event)}: it left all the same")
    return problems


def _differences(event: PacketEvent, data: bytes | None) -> list[str]:
    """What is not so of a packet as it left."""
    if data is None:
        return [f"{event.number} {brief(event)}: it did not leave"]
    last = event.carried.last
    seen = _seen(data, last.protocol)
    wanted = (format_address(last.source), format_address(last.destination))
    found: list[str] = []
    if (seen.source, seen.destination) != wanted:
        found.append(f"{event.number}: it left as {seen.source} → {seen.destination}, {wanted}")
    if last.protocol in (TCP, UDP):
        if seen.ports != last.ports:
            found.append(f"{event.number}: it left with ports {seen.ports}, not {last.ports}")
        if _in_brief(seen.content) != _content(last):
            found.append(f"{event.number}: it says {seen.content!r}, not {_content(last)!r}")
    return found


def _in_brief(content: bytes) -> bytes:
    """What is said, with IPv6 addresses as people write them: the kernel writes all zeros."""
    return re.sub(
        rb"(?:[0-9a-f]{4}:){7}[0-9a-f]{4}",
        lambda found: str(ip_address(found[0].decode())).encode(),
        content,
    )


# --- whole conversations ------------------------------------------------------------------------

FTP_ALT = "service ftp-alt { tcp 2121 helper ftp }\n"
BARE = "service bare { tcp 21 }\n"


@dataclass(frozen=True, slots=True)
class Scene:
    """A policy and a question for each family, and the conversation."""

    name: str
    policy: Callable[[int], str]
    question: Callable[[int], str]
    kind: str | None = None
    modes: tuple[str | None, ...] = (None,)
    families: tuple[int, ...] = FAMILIES


def _said(text: str) -> Callable[[int], str]:
    return lambda _: text


FTP_MODES = ("passive", "active")
SCENES = (
    Scene(
        "ftp-routed",
        _said("allow ftp from lan to wan\n"),
        lambda family: f"ftp {LAN_TO_WAN[family]}",
        modes=FTP_MODES,
    ),
    Scene(
        "ftp-masqueraded",
        lambda family: f"allow ftp from lan to wan\n{MASQUERADE[family]}",
        lambda family: f"ftp {LAN_TO_WAN[family]}",
        modes=FTP_MODES,
    ),
    Scene(
        "ftp-published",
        lambda family: f"{FTP_ALT}dnat ftp-alt from wan to {TARGET[family]} port 21\n",
        lambda family: f"ftp-alt {WAN_TO_SELF[family]}",
        modes=FTP_MODES,
    ),
    Scene(
        "ftp-without-helper",
        _said(f"{BARE}allow bare from lan to wan\n"),
        lambda family: f"bare {LAN_TO_WAN[family]}",
        "ftp",
        FTP_MODES,
    ),
    Scene(
        "ftp-data-elsewhere",
        _said("service narrow { tcp 21 helper ftp data 2000-3000 }\nallow ftp from lan to wan\n"),
        lambda family: f"ftp {LAN_TO_WAN[family]}",
        modes=FTP_MODES,
    ),
    Scene(
        "tftp-routed",
        _said("allow tftp from lan to wan\n"),
        lambda family: f"tftp {LAN_TO_WAN[family]}",
        modes=("read", "write"),
    ),
    Scene(
        "tftp-masqueraded",
        lambda family: f"allow tftp from lan to wan\n{MASQUERADE[family]}",
        lambda family: f"tftp {LAN_TO_WAN[family]}",
    ),
    Scene(
        "tftp-published",
        lambda family: f"dnat tftp from wan to {TARGET[family]}\n",
        lambda family: f"tftp {WAN_TO_SELF[family]}",
    ),
    Scene(
        "https",
        _said("allow https from lan to wan\n"),
        lambda family: f"tcp 443 {LAN_TO_WAN[family]}",
    ),
    Scene(
        "https-denied",
        _said("allow http from lan to wan\n"),
        lambda family: f"tcp 443 {LAN_TO_WAN[family]}",
    ),
    Scene(
        "https-published",
        lambda family: f"dnat https from wan to {TARGET[family]} port 8443\n",
        lambda family: f"tcp 443 {WAN_TO_SELF[family]}",
    ),
    Scene(
        "domain-masqueraded",
        lambda family: f"allow udp 53 from lan to wan\n{MASQUERADE[family]}",
        lambda family: f"udp 53 {LAN_TO_WAN[family]}",
    ),
    Scene(
        "ping",
        _said("allow ping from lan to wan\n"),
        lambda family: f"ping {LAN_TO_WAN[family]}",
    ),
    Scene(
        "untracked",
        _said("untracked udp 53 from lan to wan\nallow udp 53 from lan to wan\n"),
        lambda family: f"udp 53 {LAN_TO_WAN[family]}",
    ),
)
CASES = [
    pytest.param(scene, mode, family, id=f"{scene.name}-{mode or 'plain'}-{family}")
    for scene in SCENES
    for mode in scene.modes
    for family in scene.families
]


@pytest.mark.parametrize(("scene", "mode", "family"), CASES)
def test_a_conversation_goes_as_it_is_told(
    replay: Replay, scene: Scene, mode: str | None, family: int
) -> None:
    """State, verdict, translation and what is said inside are the kernel's, packet by packet."""
    policy = ZONES + scene.policy(family)
    compare(replay, policy, story_of(policy, scene.question(family), kind=scene.kind, mode=mode))


# --- single packets ---------------------------------------------------------------------------

FLAGS = {
    "SYN": 0x02,
    "SYN-ACK": 0x12,
    "ACK": 0x10,
    "FIN-ACK": 0x11,
    "FIN": 0x01,
    "RST": 0x04,
    "RST-ACK": 0x14,
    "PSH-ACK": 0x18,
    "none": 0x00,
    "SYN-FIN": 0x03,
    "SYN-RST": 0x06,
    "FIN-PSH-URG": 0x29,
    "URG-ACK": 0x30,
    "SYN-URG": 0x22,
    "SYN-PSH": 0x0A,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_first_packet_has_the_state_that_is_told(replay: Replay, family: int) -> None:
    """What begins a connection, what may be the middle of one, and what fits none."""
    policy = f"{ZONES}allow tcp 22 from lan to wan\n"
    stories = [
        story_of(
            policy,
            f"tcp 22 {LAN_TO_WAN[family]} source port {41_000 + number}",
            kind="packet",
            flags=flags,
        )
        for number, flags in enumerate(FLAGS.values())
    ]
    compare(replay, policy, *stories)


# Answers stand before what they answer: they are to be about nothing.
ICMP_TYPES = {4: (0, 14, 3, 5, 9, 11, 12, 42, 8, 13, 15, 17), 6: (129, 1, 2, 200, 128)}


@pytest.mark.parametrize("family", FAMILIES)
def test_icmp_has_the_state_that_is_told(replay: Replay, family: int) -> None:
    """Queries begin exchanges; answers and errors about nothing are INVALID."""
    word = "icmp" if family == 4 else "icmpv6"
    allowed = "".join(f"allow {word} {one} from lan to wan\n" for one in ICMP_TYPES[family])
    policy = f"{ZONES}{allowed}"
    stories = [
        story_of(policy, f"{word} {one} {LAN_TO_WAN[family]}", kind="packet")
        for one in ICMP_TYPES[family]
    ]
    assert {e.wire.protocol for story in stories for e in story.packets} <= {ICMP, ICMPV6}
    compare(replay, policy, *stories)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_about_a_translated_connection_goes_as_it_is_told(
    replay: Replay, family: int
) -> None:
    """It is RELATED, finds the client, and quotes the packet that the client sent."""
    policy = f"{ZONES}allow udp 53 from lan to wan\n{MASQUERADE[family]}"
    resolved, rule, asker = resolved_of(policy, f"udp 53 {LAN_TO_WAN[family]}")
    cast = next(staging.casts(asker.asked(rule), staging.Wanted("plain"), resolved.zones))
    firewall = Modelled(machine_of(lower(resolved, Report())), cast.world)
    stage = Stage(firewall, cast.hosts)
    stage.forth(stage.dial("question", UDP, cast.client, 40_000, (cast.dialled, 53)))
    (question,) = stage.story(None).packets
    replay.firewall.apply(policy)
    replay.throw(question)
    left = replay.left[1]
    assert left is not None
    protocol, icmp_type = (ICMP, 3) if family == 4 else (ICMPV6, 1)
    for number, (goal, state) in enumerate(
        ((question.carried.last.source, "related"), (cast.client.address, "invalid")), 2
    ):
        error = Wire(
            family, protocol, cast.server.address, goal, icmp_type=icmp_type,
            about=question.carried.last,
        )  # fmt: skip
        carried = firewall.carry(error, cast.server.interface, number)
        packet = Packet(
            format_address(error.source),
            format_address(goal),
            protocol,
            wire="eth0",
            icmp_type=icmp_type,
            quoted=left,
        )
        replay.firewall.station.throw([packet])
        serial = replay.firewall.station.thrown
        seen = [data for data in replay.listeners["eth1"]() if _serial(data) == serial]
        assert State(carried.tracked.state).name.lower() == state
        assert serial in replay.held()[state]
        assert bool(seen) is (carried.verdict is Verdict.PASSES)
        for data in seen:
            head = 20 if family == 4 else 40
            quoted = _seen(data[head + 8 :], UDP)
            about = carried.last.about
            assert about is not None
            assert quoted.source == format_address(about.source)
            assert quoted.ports == about.ports
            assert _seen(data, protocol).destination == format_address(carried.last.destination)


# --- TCP at random ------------------------------------------------------------------------------

TAKEN_APART = (0x02, 0x12, 0x10, 0x10, 0x11, 0x18, 0x04)


def _at_random(seed: int, policy: str) -> Story:
    """A connection whose ends send what comes to their minds, one packet after another."""
    drawn = random.Random(seed)
    resolved, rule, asker = resolved_of(policy, f"tcp 22 {LAN_TO_WAN[4]}")
    wanted = staging.Wanted("plain")
    cast = next(staging.casts(asker.asked(rule), wanted, resolved.zones))
    firewall = Modelled(machine_of(lower(resolved, Report())), cast.world)
    stage = Stage(firewall, cast.hosts)
    link = stage.dial("walk", TCP, cast.client, 42_000 + seed, (cast.dialled, 22))
    stage.forth(link, flags=0x02)
    for _ in range(7):
        send = stage.forth if drawn.random() < 0.5 else stage.back
        with suppress(Died):
            send(link, flags=drawn.choice(TAKEN_APART))
    return stage.story(None)


def test_tcp_at_random_has_the_states_that_are_told(replay: Replay) -> None:
    """Whatever flags follow one another, conntrack is of the same mind as its model."""
    policy = f"{ZONES}allow tcp 22 from lan to wan\n"
    compare(replay, policy, *(_at_random(seed, policy) for seed in range(WALKS)))


WALKS = 12
