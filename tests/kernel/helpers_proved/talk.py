"""A conversation of two machines, acted out step by step by one thread that holds both ends.

It knows sockets, and what a message does on its way; no protocol above TCP, UDP and raw IP, and no
firewall. A step that stays silent is a result here, never an error.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeAlias

from tests.kernel.ground import Family, Namespace

MOST_BYTES = 65536  # of one message: each fits a segment, and comes as one
MUST_WORK_S = 5.0  # what a step of the control connection may take on a busy machine

Address: TypeAlias = tuple[str, int]


class SilenceError(Exception):
    """What was sent did not arrive."""


@dataclass(frozen=True, slots=True)
class End:
    """One of the two machines, with the address that it knows itself by."""

    namespace: Namespace
    address: str


@dataclass(frozen=True, slots=True)
class Line:
    """A client and a server with a firewall between them, or one of them on it.

    `dialled` is the server as the client knows it, `caller` the client as the server does: the
    machine's own address unless it is translated on the way. `patience_s` is for each step of
    what the control connection announced.
    """

    client: End
    server: End
    family: Family
    dialled: str
    caller: str
    patience_s: float

    def known_by_other(self, end: End) -> str:
        """The address under which the other machine knows this one."""
        return self.caller if end is self.client else self.dialled

    def other(self, end: End) -> End:
        """The machine at the other end."""
        return self.server if end is self.client else self.client


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection that the control connection announced, and whether it came about."""

    name: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of a service that the client dials, and the one that the server listens on."""

    dialled: int
    own: int


@dataclass(slots=True)
class Talk:
    """One conversation: the sockets that it opened, and what it saw that was not as agreed."""

    line: Line
    port: Ports
    surprises: list[str] = field(default_factory=list)
    _opened: ExitStack = field(default_factory=ExitStack)
    _patience_s: float = MUST_WORK_S

    def close(self) -> None:
        """Close every socket of the conversation."""
        self._opened.close()

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Try what was announced: with the patience of the line, since it may have to fail."""
        before, self._patience_s = self._patience_s, self.line.patience_s
        try:
            yield
        finally:
            self._patience_s = before

    # --- sockets -----------------------------------------------------------------------------

    def listener(self, end: End, port: int = 0) -> socket.socket:
        """A TCP socket that listens on the machine's address; port 0 takes a free one."""
        opened = self._socket(end, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((end.address, port))
        opened.listen(8)
        return opened

    def datagrams(self, end: End, port: int = 0) -> socket.socket:
        """A UDP socket bound to the machine's address; port 0 takes a free one."""
        opened = self._socket(end, socket.SOCK_DGRAM)
        opened.bind((end.address, port))
        return opened

    def pair_of_datagrams(self, end: End) -> tuple[socket.socket, socket.socket]:
        """Two UDP sockets, on an even port and on the odd one behind it: RTP and RTCP."""
        for _ in range(64):
            first = self.datagrams(end)
            port = port_of(first)
            if port % 2 == 0:
                with suppress(OSError):
                    return first, self.datagrams(end, port + 1)
            first.close()
        raise AssertionError("no two neighbouring ports are free")

    def raw(self, end: End, protocol: int) -> socket.socket:
        """A raw IPv4 socket: what arrives begins with the IP header."""
        with end.namespace.entered():
            opened = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        opened.bind((end.address, 0))
        return self.keep(opened)

    def connected(self, end: End, address: Address) -> socket.socket:
        """A TCP connection from that machine; raises SilenceError where none comes about."""
        opened = self._socket(end, socket.SOCK_STREAM)
        opened.bind((end.address, 0))
        opened.settimeout(self._patience_s)
        try:
            opened.connect(address)
        except OSError as error:
            raise SilenceError(f"no connection to {address}") from error
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def accepted(self, listener: socket.socket) -> tuple[socket.socket, Address]:
        """The next connection that arrives, and where it says it comes from."""
        listener.settimeout(self._patience_s)
        try:
            opened, source = listener.accept()
        except OSError as error:
            raise SilenceError("nobody came") from error
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.keep(opened), source[:2]

    def _socket(self, end: End, kind: socket.SocketKind) -> socket.socket:
        return self.keep(end.namespace.opened(self.line.family, kind))

    def keep(self, opened: socket.socket) -> socket.socket:
        """Let a socket be closed with the conversation."""
        return self._opened.enter_context(opened)

    # --- messages ----------------------------------------------------------------------------

    def carry(self, source: socket.socket, target: socket.socket, message: bytes) -> bytes:
        """Send a message through a connection; returns it as it arrives at the other end.

        Raises SilenceError where it does not.
        """
        target.settimeout(self._patience_s)
        try:
            source.sendall(message)
            arrived = target.recv(MOST_BYTES)
        except OSError as error:
            raise SilenceError(f"{message!r} did not arrive") from error
        if not arrived:
            raise SilenceError("the connection was closed")
        return arrived

    def deliver(
        self, source: socket.socket, target: Address, receiver: socket.socket, datagram: bytes
    ) -> tuple[bytes, Address]:
        """Send a datagram; returns it as it arrives, and where it is seen to come from.

        Raises SilenceError where it does not arrive.
        """
        receiver.settimeout(self._patience_s)
        try:
            source.sendto(datagram, target)
            arrived, seen = receiver.recvfrom(MOST_BYTES)
        except OSError as error:  # an ICMP error, one that the firewall forbids, or a time-out
            raise SilenceError(f"nothing reached {target}") from error
        return arrived, seen[:2]

    # --- the control connection --------------------------------------------------------------

    def control(self) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's end of the TCP connection that carries the helper."""
        line = self.line
        listener = self.listener(line.server, self.port.own)
        client = self.connected(line.client, (line.dialled, self.port.dialled))
        server, source = self.accepted(listener)
        self.agree("the client's address", source[0], line.caller)
        return client, server

    def agree(self, what: str, seen: object, expected: object) -> None:
        """Note it where a machine sees something else than was agreed."""
        if seen != expected:
            self.surprises.append(f"{what}: {seen} and not {expected}")

    def named(self, what: str, heard: Address, owner: End) -> Address:
        """An address that one machine named to the other, as it was heard there.

        A helper that has its part in the translation makes it the address known to the hearer.
        """
        seen = str(ip_address(heard[0]))  # the kernel writes IPv6 addresses in full
        self.agree(what, seen, self.line.known_by_other(owner))
        return seen, heard[1]

    # --- what was announced ------------------------------------------------------------------

    def tcp_flow(self, name: str, source: End, target: Address, listener: socket.socket) -> Flow:
        """Connect to where `listener` is said to be, and send a word each way."""
        word = secrets.token_bytes(16)
        try:
            with self.announced():
                here = self.connected(source, target)
                there, seen = self.accepted(listener)
                self.agree(f"{name}: the source", seen[0], self.line.known_by_other(source))
                self.carry(there, here, self.carry(here, there, word))
        except SilenceError:
            return Flow(name, False)
        return Flow(name, True)

    def udp_flow(
        self, name: str, source: socket.socket, target: Address, receiver: socket.socket
    ) -> Flow:
        """Send a word to where `receiver` is said to be; it is answered to where it came from."""
        word = secrets.token_bytes(16)
        sender = self.line.client if self._is_of_client(source) else self.line.server
        try:
            with self.announced():
                arrived, seen = self.deliver(source, target, receiver, word)
                self.agree(f"{name}: the source", seen[0], self.line.known_by_other(sender))
                self.agree(f"{name}: the word", arrived, word)
                self.deliver(receiver, seen, source, word)
        except SilenceError:
            return Flow(name, False)
        return Flow(name, True)

    def _is_of_client(self, opened: socket.socket) -> bool:
        return bool(opened.getsockname()[0] == self.line.client.address)


def port_of(opened: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = opened.getsockname()[1]
    return port


# The peers of a protocol: what they say until the predicted connections are announced, and then
# each of those, tried. Raises SilenceError where the control connection itself does not work.
Conversation: TypeAlias = Callable[[Talk], Iterator[Flow]]
