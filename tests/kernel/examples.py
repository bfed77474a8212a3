"""What the tests of the examples share: an example in the kernel, more machines on a wire, tries.

It knows no example: which policy, which machines and what is expected is said by the tests.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from unittest import mock

import pytest

from policylang.cli import main
from tests.differential.frames import Probe, packet_bytes

from .ground import (
    REPOSITORY,
    CommandError,
    Family,
    Loader,
    Namespace,
    Reach,
    Segment,
    family_of,
    probe_tcp,
    probe_udp,
)

on_every_loader = pytest.mark.parametrize("loader", Loader)

MUST_PASS_S = 3.0  # what a handshake may need on a busy machine, a lost SYN included
MUST_FAIL_S = 0.3


def load_example(
    name: str,
    firewall: Namespace,
    loader: Loader,
    directory: Path,
    changes: Mapping[str, str] | None = None,
) -> None:
    """Apply an example as it is kept, or with some of its text replaced (each once).

    By the command itself, within this process: to start another one takes longer than to apply.
    Raises `CommandError` with the compiler's words.
    """
    folder = directory / name
    shutil.copytree(REPOSITORY / "examples" / name, folder, dirs_exist_ok=True)
    policy = folder / f"{name}.policy"
    text = policy.read_text()
    for before, after in (changes or {}).items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    policy.write_text(text)
    # Legacy iptables takes one lock for the whole machine unless told another.
    lock = {"XTABLES_LOCKFILE": str(directory / f"{firewall.name}.lock")}
    told = io.StringIO()
    with mock.patch.dict(os.environ, lock), redirect_stdout(told), redirect_stderr(told):
        status = main(["apply", "--yes", str(policy), "--netns", firewall.name, *loader.options])
    if status != 0:
        raise CommandError(f"{told.getvalue()}\n{text}")


def forget_connections(firewall: Namespace) -> None:
    """Let every packet that comes now be the first of its connection."""
    firewall.run(["conntrack", "--flush"])


# --- machines --------------------------------------------------------------------------------


def move_in(laid_by: Namespace, segment: Segment, *addresses: str) -> None:
    """Give the neighbour behind `segment` more addresses; the firewall routes them there."""
    lengths = [(a, 128 if ":" in a else 32) for a in addresses]
    segment.neighbour.ip(*(f"addr add {a}/{n} dev eth0{' nodad' * (n == 128)}" for a, n in lengths))
    laid_by.ip(
        *(f"route replace {a}/{n} dev {segment.interface}" for a, n in lengths),
        *(
            f"neigh replace {a} lladdr {segment.far_mac} dev {segment.interface} nud permanent"
            for a in addresses
        ),
    )


@contextmanager
def serving_ports(
    namespace: Namespace,
    tcp: Iterable[int] = (),
    udp: Iterable[int] = (),
    udp_as: Iterable[str] = ("0.0.0.0", "::"),
) -> Iterator[None]:
    """Listen on every address of both families: handshakes are answered, datagrams echoed.

    A machine with several addresses echoes as those of `udp_as`.
    """
    with ExitStack() as stack:
        for family in Family:
            for port in tcp:
                stack.enter_context(namespace.listen(family, port))
        for port in udp:
            for address in udp_as:
                stack.enter_context(namespace.udp_echo(family_of(address), port, address))
        yield


# --- tries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt to reach a port, and what is to come of it."""

    client: Namespace
    target: str
    port: int
    expected: Reach = Reach.OPEN
    protocol: str = "tcp"
    source: str = ""  # tcp: the client's address, where it has several

    def outcome(self) -> Reach:
        """Try; with little patience where silence is expected."""
        patience_s = MUST_FAIL_S if self.expected is Reach.TIMEOUT else MUST_PASS_S
        if self.protocol == "udp":
            return probe_udp(self.client, self.target, self.port, patience_s)
        return probe_tcp(self.client, self.target, self.port, patience_s, source=self.source)

    def __str__(self) -> str:
        return f"{self.client.name} {self.source} to {self.target} {self.protocol} {self.port}"


def all_as_expected(tries: Iterable[Try]) -> None:
    """Assert that each attempt ends as it says; they are made at once."""
    made = list(tries)
    with ThreadPoolExecutor(64) as pool:  # they do little but wait
        outcomes = list(pool.map(Try.outcome, made))
    surprises = [
        f"{one}: {came.value}, not {one.expected.value}"
        for one, came in zip(made, outcomes, strict=True)
        if came is not one.expected
    ]
    assert not surprises, "\n".join(surprises)


def outcomes_as_user(namespace: Namespace, user: int, *tries: tuple[str, str, int]) -> list[Reach]:
    """What processes of a user come to, each trying protocol, address and port."""
    words = [f"{protocol},{address},{port}" for protocol, address, port in tries]
    told = namespace.run(
        [sys.executable, "-m", f"{__package__}.as_user", str(user), *words],
        env={"PYTHONPATH": str(REPOSITORY)},
    ).stdout
    return [Reach(line) for line in told.split()]


@dataclass(frozen=True, slots=True)
class Session:
    """Both ends of an open connection."""

    client: socket.socket
    server: socket.socket

    @classmethod
    @contextmanager
    def opened(
        cls, segment: Segment, listener: socket.socket, family: Family, source: str
    ) -> Iterator[Session]:
        """Connect an address of the neighbour to the firewall, where somebody listens."""
        with segment.neighbour.opened(family, socket.SOCK_STREAM) as client:
            client.settimeout(MUST_PASS_S)
            client.bind((source, 0))
            client.connect((segment.near.of(family), listener.getsockname()[1]))
            listener.settimeout(MUST_PASS_S)
            while True:
                server, origin = listener.accept()
                if origin[:2] == client.getsockname()[:2]:
                    break
                server.close()  # of a probe that has gone again
            with server:
                yield cls(client, server)

    def is_alive(self) -> bool:
        """Whether what either end says is heard at the other."""
        return all(
            self._is_heard(*ends)
            for ends in ((self.client, self.server), (self.server, self.client))
        )

    @staticmethod
    def _is_heard(speaker: socket.socket, listener: socket.socket) -> bool:
        speaker.send(b"word")
        listener.settimeout(MUST_FAIL_S)
        try:
            return listener.recv(16) == b"word"
        except TimeoutError:
            return False


# --- packets ---------------------------------------------------------------------------------

ETH_P_ALL = 0x0003  # linux/if_ether.h
PACKET_OUTGOING = 4  # linux/if_packet.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
ECHO = {Family.IPV4: (1, 8, 0), Family.IPV6: (58, 128, 129)}  # protocol, request, reply

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"


def probe(source: str, destination: str, protocol: int, **other: object) -> Probe:
    """A packet that no machine needs to have an address for."""
    return Probe(None, None, ip_address(source), ip_address(destination), protocol, **other)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Wire:
    """The far end of a wire, where packets are made by hand and everything is heard."""

    segment: Segment
    _socket: socket.socket

    def send(self, packets: Iterable[Probe], to_mac: str | None = None) -> None:
        """Send packets to the firewall, or to another MAC address."""
        ends = _mac(to_mac or self.segment.near_mac) + _mac(self.segment.far_mac)
        for serial, packet in enumerate(packets, 1):
            self._socket.send(ends + ETHERTYPE[packet.family] + packet_bytes(packet, serial))

    def heard(self) -> Iterator[bytes]:
        """The IP packets that arrive, until none has lately."""
        give_up = time.monotonic() + MUST_FAIL_S
        while (left := give_up - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame, (_, _, kind, _, _) = self._socket.recvfrom(2048)
            except TimeoutError:
                break
            if kind != PACKET_OUTGOING:
                give_up = time.monotonic() + MUST_FAIL_S
                yield frame[14:]

    def echoes(self, count: int, *ends: tuple[str, str]) -> list[int]:
        """How many of `count` echo requests are answered, for each source and target."""
        for source, target in ends:
            protocol, request, _ = ECHO[family_of(source)]
            self.send([probe(source, target, protocol, ports=(7, 0), icmp_type=request)] * count)
        came: Counter[tuple[str, str]] = Counter()
        for packet in self.heard():
            for source, target in ends:
                reply = ECHO[family_of(source)][2]
                if is_between(packet, target, source) and _icmp_type(packet) == reply:
                    came[source, target] += 1
            if came.total() == count * len(ends):
                break
        return [came[one] for one in ends]


@contextmanager
def wire_of(segment: Segment) -> Iterator[Wire]:
    """Hold the far end of a wire."""
    with segment.neighbour.entered():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    with opened:
        # Room for a flood: the size that is usual holds some 128 packets.
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        opened.bind(("eth0", ETH_P_ALL))
        yield Wire(segment, opened)


def arrived(came: Segment, left: Segment, packets: Iterable[Probe]) -> Counter[tuple[str, str]]:
    """How many of the packets that come by one wire leave by the other, by their two ends."""
    sent = list(packets)
    ends = {(str(p.source), str(p.destination)) for p in sent}
    found: Counter[tuple[str, str]] = Counter()
    with wire_of(came) as here, wire_of(left) as there:
        here.send(sent)
        for packet in there.heard():
            found.update(one for one in ends if is_between(packet, *one))
    return found


def is_between(packet: bytes, source: str, destination: str) -> bool:
    """Whether an IP packet says that it goes from one address to another."""
    ends = ip_address(source).packed + ip_address(destination).packed
    version, offset = (4, 12) if len(ends) == 8 else (6, 8)
    return packet[0] >> 4 == version and packet[offset:].startswith(ends)


def _icmp_type(packet: bytes) -> int | None:
    """The ICMP or ICMPv6 type of a packet without extension headers."""
    if packet[0] >> 4 == 4:
        return packet[(packet[0] & 15) * 4] if packet[9] == socket.IPPROTO_ICMP else None
    return packet[40] if packet[6] == socket.IPPROTO_ICMPV6 else None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


# --- questions to everybody ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A datagram to a group or to everybody, and the answer of one who heard it."""

    group: str
    port: int
    source_port: int = 0  # 0: any
    answer_port: int = 0  # 0: any
    answer_source: str = ""  # the address that answers, where it is not the first one
    to_group: bool = False  # the answer goes to all in the group as well, not to who asked

    @property
    def family(self) -> Family:
        """The family of both."""
        return Family.IPV6 if ":" in self.group else Family.IPV4


@dataclass(frozen=True, slots=True)
class Place:
    """An interface of a machine."""

    machine: Namespace
    interface: str


def answered(
    questions: Mapping[str, Question],
    asker: Place,
    hearer: Place,
    *,
    shift: int = 0,
    after_s: float = 0,
) -> set[str]:
    """Ask, and return which of the questions get an answer.

    The answers go, `after_s` later, to the port `shift` further up than the one that asked.
    """
    with ExitStack() as stack:
        out: dict[str, tuple[socket.socket, tuple[str, int]]] = {}
        for name, question in questions.items():
            out[name] = stack.enter_context(_asked(question, asker, hearer, shift))
        time.sleep(after_s)
        for name, (_, origin) in out.items():
            _answer(questions[name], hearer, origin, shift)
        give_up = time.monotonic() + MUST_FAIL_S
        return {n for n, (ear, _) in out.items() if _hears(ear, b"answer", give_up)}


@contextmanager
def _asked(
    question: Question, asker: Place, hearer: Place, shift: int
) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """Yield the socket that waits for the answer, and where those who heard saw the question."""
    group = question.group
    with (
        datagrams(question.family, hearer, question.port, group) as ear,
        datagrams(question.family, asker, question.source_port, group) as mouth,
    ):
        mouth.sendto(b"question", (group, question.port))
        ear.settimeout(MUST_PASS_S)
        data, origin = ear.recvfrom(2048)
        assert data == b"question", question
        if not shift:
            yield mouth, origin
            return
        with datagrams(question.family, asker, origin[1] + shift, group) as other:
            yield other, origin


def _answer(question: Question, hearer: Place, to: Sequence[object], shift: int) -> None:
    host, port, *scope = (question.group, question.port) if question.to_group else to
    assert isinstance(port, int)
    with (
        datagrams(
            question.family, hearer, question.answer_port, question.group, question.answer_source
        ) as mouth,
        suppress(PermissionError),  # the firewall's word; that nothing arrives says it too
    ):
        mouth.sendto(b"answer", (host, port + shift, *scope))


def _hears(ear: socket.socket, what: bytes, give_up: float) -> bool:
    while (left := give_up - time.monotonic()) > 0:
        ear.settimeout(left)
        try:
            if ear.recv(2048) == what:
                return True
        except TimeoutError:
            break
    return False


@contextmanager
def datagrams(
    family: Family, place: Place, port: int, group: str, source: str = ""
) -> Iterator[socket.socket]:
    """Yield a socket on a port of an interface, in a group unless that is a broadcast address."""
    with place.machine.entered():
        opened = socket.socket(family.af, socket.SOCK_DGRAM)
        index = socket.if_nametoindex(place.interface)
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, place.interface.encode())
        opened.bind((source, port))
        if ip_address(group).is_multicast:
            packed = ip_address(group).packed
            number = index.to_bytes(4, sys.byteorder)
            if family is Family.IPV4:
                # struct ip_mreqn: group, address, interface
                membership = packed + bytes(4) + number
                opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            else:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + number)
        yield opened
