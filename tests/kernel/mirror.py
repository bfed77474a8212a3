"""Servers that tell whoever comes what they see, so that both ends of a connection can be compared.

They say nothing of what a translation should have done with it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from .ground import Family, Namespace, Reach, family_of, reach_of

MUST_PASS_S = 3.0  # what an answer may need on a busy machine, a lost packet included
MUST_FAIL_S = 0.15  # what passes comes within milliseconds
LONGEST = 2048  # of what is said here, in bytes

# linux/in.h and linux/in6.h: what Python's socket module has no names for
IP_TRANSPARENT, IP_RECVORIGDSTADDR, IP_PKTINFO = 19, 20, 8
IPV6_TRANSPARENT, IPV6_RECVORIGDSTADDR = 75, 74


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server saw: who it is, where the connection came from, and where it was meant to go.

    Two are the same whatever the source port.
    """

    server: str
    source: str
    address: str
    port: int
    source_port: int = field(default=0, compare=False)

    def line(self) -> bytes:
        """As the server says it."""
        words = (self.server, self.source, self.address, self.port, self.source_port)
        return " ".join(map(str, words)).encode()

    @classmethod
    def of(cls, line: bytes) -> Seen:
        """As it was said."""
        server, source, address, port, source_port = line.decode().split()
        return cls(server, source, address, int(port), int(source_port))


# --- servers ---------------------------------------------------------------------------------


@contextmanager
def mirrors(
    namespace: Namespace, name: str, ports: Iterable[int], *, transparent: bool = False
) -> Iterator[None]:
    """Tell whoever comes to one of the ports, over TCP or UDP of either family, what is seen.

    With `transparent` also those who meant to go elsewhere and were proxied.
    """
    over, switch = os.pipe()
    waiting = select.poll()
    waiting.register(over, select.POLLIN)
    answers: dict[int, Callable[[], None]] = {}
    with ExitStack() as stack:
        for family in Family:
            for port in ports:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    opened = stack.enter_context(namespace.opened(family, kind))
                    _prepare(opened, family, transparent=transparent)
                    opened.bind(("", port))
                    waiting.register(opened, select.POLLIN)
                    if kind is socket.SOCK_STREAM:
                        opened.listen(64)
                        answers[opened.fileno()] = _stream(opened, name)
                    elif transparent:
                        answers[opened.fileno()] = _proxied_datagrams(opened, name, namespace)
                    else:
                        answers[opened.fileno()] = _datagrams(opened, name)

        def serve() -> None:
            while True:
                for number, _ in waiting.poll():
                    if number == over:
                        return
                    # Whoever came has gone, or the firewall forbids the answer.
                    with suppress(OSError):
                        answers[number]()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(switch)
            thread.join()
            os.close(over)


def _prepare(opened: socket.socket, family: Family, *, transparent: bool) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is Family.IPV6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if transparent:
        make_transparent(opened, family)
    if opened.type is not socket.SOCK_DGRAM:
        return
    if family is Family.IPV4:
        option = IP_RECVORIGDSTADDR if transparent else IP_PKTINFO
        opened.setsockopt(socket.IPPROTO_IP, option, 1)
    else:
        option = IPV6_RECVORIGDSTADDR if transparent else socket.IPV6_RECVPKTINFO
        opened.setsockopt(socket.IPPROTO_IPV6, option, 1)


def make_transparent(opened: socket.socket, family: Family) -> None:
    """Let a socket take what is meant for others, and speak for them."""
    if family is Family.IPV4:
        opened.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


def _stream(listener: socket.socket, name: str) -> Callable[[], None]:
    def answer() -> None:
        opened, source = listener.accept()
        with opened:
            own = opened.getsockname()
            opened.sendall(Seen(name, source[0], own[0], own[1], source[1]).line())

    return answer


def _datagrams(opened: socket.socket, name: str) -> Callable[[], None]:
    family, port = _family(opened), opened.getsockname()[1]

    def answer() -> None:
        _, ((_, _, told),), _, source = opened.recvmsg(LONGEST, LONGEST)
        address = _addressed(told, family)
        said = Seen(name, source[0], address, port, source[1]).line()
        opened.sendmsg([said], [_from_address(address, family)], 0, source)

    return answer


def _proxied_datagrams(
    opened: socket.socket, name: str, namespace: Namespace
) -> Callable[[], None]:
    family = _family(opened)

    def answer() -> None:
        _, ((_, _, told),), _, source = opened.recvmsg(LONGEST, LONGEST)
        address, port = _original(told, family)
        with namespace.opened(family, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            make_transparent(other, family)
            other.bind((address, port))
            other.sendto(Seen(name, source[0], address, port, source[1]).line(), source)

    return answer


def _family(opened: socket.socket) -> Family:
    return Family.IPV6 if opened.family is socket.AF_INET6 else Family.IPV4


def _original(told: bytes, family: Family) -> tuple[str, int]:
    """The address and port in a sockaddr_in or a sockaddr_in6."""
    (port,) = struct.unpack_from("!H", told, 2)
    offset, size = (4, 4) if family is Family.IPV4 else (8, 16)
    return socket.inet_ntop(family.af, told[offset : offset + size]), port


def _addressed(told: bytes, family: Family) -> str:
    """The address in a struct in_pktinfo (its last part) or a struct in6_pktinfo (its first)."""
    packed = told[8:12] if family is Family.IPV4 else told[:16]
    return socket.inet_ntop(family.af, packed)


def _from_address(address: str, family: Family) -> tuple[int, int, bytes]:
    packed = socket.inet_pton(family.af, address)
    if family is Family.IPV4:
        return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, packed, bytes(4))
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16si", packed, 0)


# --- those who come --------------------------------------------------------------------------


def look(
    client: Namespace,
    address: str,
    port: int,
    protocol: str = "tcp",
    *,
    source: str = "",
    source_port: int = 0,
    patience_s: float = MUST_PASS_S,
) -> Seen | Reach:
    """Go there, and return what the server that answered saw, or why none did."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with client.opened(family_of(address), kind) as opened:
        opened.settimeout(patience_s)
        if source or source_port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((source, source_port))
        try:
            opened.connect((address, port))
            if protocol == "udp":
                opened.send(b"who am I")
            told = opened.recv(LONGEST)
        except OSError as error:
            return reach_of(error)
    return Seen.of(told) if told else Reach.REFUSED


@dataclass(frozen=True, slots=True)
class Visit:
    """One attempt to reach a port, and what is to come of it: what the server sees, or nothing."""

    client: Namespace
    target: str
    port: int
    expected: Seen | Reach
    protocol: str = "tcp"
    source: str = ""
    source_port: int = 0

    def outcome(self) -> Seen | Reach:
        """Try; with little patience where silence is expected."""
        patience_s = MUST_FAIL_S if self.expected is Reach.TIMEOUT else MUST_PASS_S
        return look(
            self.client,
            self.target,
            self.port,
            self.protocol,
            source=self.source,
            source_port=self.source_port,
            patience_s=patience_s,
        )

    def __str__(self) -> str:
        return f"{self.client.name} {self.source} to {self.target} {self.protocol} {self.port}"


def all_seen_as_expected(visits: Iterable[Visit]) -> list[Seen | Reach]:
    """Assert that each attempt ends as it says, and return how; they are made at once."""
    made = list(visits)
    with ThreadPoolExecutor(64) as pool:  # they do little but wait
        outcomes = list(pool.map(Visit.outcome, made))
    surprises = [
        f"{one}: {came}, not {one.expected}"
        for one, came in zip(made, outcomes, strict=True)
        if came != one.expected
    ]
    assert not surprises, "\n".join(surprises)
    return outcomes
