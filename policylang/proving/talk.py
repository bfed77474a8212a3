"""A conversation of two machines, acted out step by step by one thread that holds both ends.

It knows sockets, and what a message does on its way; no protocol above TCP and UDP, and no rules.
"""

from __future__ import annotations

import secrets
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from policylang.packets.values import Ranges
from policylang.proving.namespaces import Namespace

MOST_BYTES = 65536  # of one message: each fits a segment, and comes as one
PATIENCE_S = 2.0  # a lost SYN comes again after one second
WORD_BYTES = 3000  # more than one segment
TRIES = 32

Address = tuple[str, int]


class SilenceError(Exception):
    """What was sent did not arrive; the message says what."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One that talks, and the address that it knows itself by."""

    namespace: Namespace
    address: str


@dataclass(frozen=True, slots=True)
class Line:
    """A client and a server. The client dials `dialled`; the server hears on one of `ports`.

    `data_ports` are those to which what is announced goes; None lets the kernel choose.
    """

    client: Machine
    server: Machine
    family: int
    dialled: Address
    ports: tuple[int, ...]
    source_port: int = 0
    data_ports: Ranges | None = None


@dataclass(slots=True)
class Talk:
    """One conversation: the sockets that it opened."""

    line: Line
    _opened: ExitStack = field(default_factory=ExitStack)

    # --- sockets --------------------------------------------------------------------------------

    def listener(self, machine: Machine, port: int = 0) -> socket.socket:
        """A TCP socket that listens on the machine's address; port 0 takes a free one."""
        opened = self._socket(machine, socket.SOCK_STREAM)
        opened.bind((machine.address, port))
        opened.listen(8)
        return opened

    def datagrams(self, machine: Machine, port: int = 0) -> socket.socket:
        """A UDP socket bound to the machine's address; port 0 takes a free one."""
        opened = self._socket(machine, socket.SOCK_DGRAM)
        opened.bind((machine.address, port))
        return opened

    def for_data(self, machine: Machine, *, is_stream: bool) -> socket.socket:
        """A socket on a port to which what is announced may go; a stream listens."""
        made = self.listener if is_stream else self.datagrams
        if self.line.data_ports is None:
            return made(machine)
        for low, high in self.line.data_ports:
            for port in range(low, min(high, low + TRIES) + 1):
                with suppress(OSError):  # taken
                    return made(machine, port)
        raise SilenceError("no port for data is free")

    def pair_for_data(self, machine: Machine) -> tuple[socket.socket, socket.socket]:
        """Two UDP sockets, on an even port and on the odd one behind it: RTP and RTCP."""
        for _ in range(TRIES):
            first = self.for_data(machine, is_stream=False)
            port = port_of(first)
            if port % 2 == 0:
                with suppress(OSError):
                    return first, self.datagrams(machine, port + 1)
            if self.line.data_ports is not None:
                continue  # it stays open, so that another is found
            first.close()
        raise SilenceError("no two neighbouring ports are free")

    def connected(self, machine: Machine, to: Address, what: str, port: int = 0) -> socket.socket:
        """A TCP connection from that machine; SilenceError where none comes about."""
        opened = self._socket(machine, socket.SOCK_STREAM)
        opened.settimeout(PATIENCE_S)
        try:
            opened.bind((machine.address, port))
            opened.connect(to)
        except OSError as error:
            raise SilenceError(f"{what}, to {_place(to)}, does not come about") from error
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def accepted(self, listeners: Sequence[socket.socket], what: str) -> socket.socket:
        """The next connection that arrives at one of them."""
        opened, _ = self._ready(listeners, what).accept()
        opened.settimeout(PATIENCE_S)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._opened.enter_context(opened)

    def _ready(self, some: Sequence[socket.socket], what: str) -> socket.socket:
        waiting = select.poll()
        for one in some:
            waiting.register(one, select.POLLIN)
        ready = waiting.poll(PATIENCE_S * 1000)
        if not ready:
            raise SilenceError(f"{what} does not arrive")
        return next(one for one in some if one.fileno() == ready[0][0])

    def _socket(self, machine: Machine, kind: int) -> socket.socket:
        family = socket.AF_INET if self.line.family == 4 else socket.AF_INET6
        opened = machine.namespace.socket(family, kind)
        self._opened.enter_context(opened)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return opened

    # --- messages -------------------------------------------------------------------------------

    def carry(self, source: socket.socket, target: socket.socket, message: bytes) -> bytes:
        """Send a message through a connection; what arrives of it at the other end."""
        target.settimeout(PATIENCE_S)
        what = message[:20].decode(errors="replace").strip()
        try:
            source.sendall(message)
            arrived = target.recv(MOST_BYTES)
        except OSError as error:
            raise SilenceError(f"`{what}` does not arrive") from error
        if not arrived:
            raise SilenceError(f"the connection is closed at `{what}`")
        return arrived

    def deliver(
        self,
        source: socket.socket,
        target: Address,
        receivers: Sequence[socket.socket],
        datagram: bytes,
        what: str,
    ) -> tuple[bytes, Address, socket.socket]:
        """Send a datagram: what arrives, where it seems to come from, and at which socket."""
        try:
            source.sendto(datagram, target)
            receiver = self._ready(receivers, f"{what}, to {_place(target)},")
            arrived, seen = receiver.recvfrom(MOST_BYTES)
        except OSError as error:  # an ICMP error, or one that the firewall forbids
            raise SilenceError(f"{what}, to {_place(target)}, is refused") from error
        return arrived, seen[:2], receiver

    def exchange(self, one: socket.socket, other: socket.socket, what: str) -> None:
        """Send bytes through a connection, each way, and compare them."""
        for source, target in ((one, other), (other, one)):
            self.transfer(source, target, what)

    def transfer(self, source: socket.socket, target: socket.socket, what: str) -> None:
        """Send bytes through a connection and compare them."""
        word, arrived = secrets.token_bytes(WORD_BYTES), b""
        target.settimeout(PATIENCE_S)
        try:
            source.sendall(word)
            while len(arrived) < len(word):
                some = target.recv(MOST_BYTES)
                if not some:
                    break
                arrived += some
        except OSError as error:
            raise SilenceError(f"the bytes of {what} do not arrive") from error
        if arrived != word:
            raise SilenceError(f"the bytes of {what} do not arrive as they were sent")

    # --- the first connection -------------------------------------------------------------------

    def control(self) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's end of the TCP connection that is dialled."""
        line = self.line
        listeners = [self.listener(line.server, port) for port in line.ports]
        what = "the connection that is dialled"
        client = self.connected(line.client, line.dialled, what, line.source_port)
        return client, self.accepted(listeners, what)

    def close(self) -> None:
        """Close every socket."""
        self._opened.close()


@contextmanager
def talk(line: Line) -> Iterator[Talk]:
    """A conversation whose sockets are closed afterwards."""
    made = Talk(line)
    try:
        yield made
    finally:
        made.close()


def port_of(opened: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = opened.getsockname()[1]
    return port


def _place(to: Address) -> str:
    address, port = to
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
