"""Speaks netlink, in which the kernel is asked without a program; knows no subsystem's words.

The messages are those of linux/netlink.h: a header of sixteen bytes, a body, attributes that are
padded to four bytes. Sockets belong to the namespace of the thread that opens them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

# linux/netlink.h
ROUTE, NETFILTER = 0, 12  # protocols
ERROR, DONE = 2, 3  # messages
REQUEST, MULTI, ACK, TORN, DUMP = 0x1, 0x2, 0x4, 0x10, 0x300  # flags
NESTED = 0x8000
TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type

SOL_NETLINK, GET_STRICT_CHECK = 270, 12  # linux/socket.h, NETLINK_GET_STRICT_CHK

BUFFER_BYTES = 1 << 18  # a part of a dump is at most 32 KiB (net/netlink/af_netlink.c)
TRIES = 10  # for a list that changes while it is told
AT_ONCE = 64  # messages that are sent before answers are read: their answers fit into the socket
PATIENCE_S = 30.0


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute with its padding."""
    return ATTRIBUTE.pack(4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | NESTED, b"".join(parts))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes from `start` on, by their numbers; of those of one number the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            break
        found[kind & TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


class Socket:
    """A netlink socket; every method raises OSError with the kernel's own number."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._sequence = 0

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of all that the kernel lists; what changes meanwhile may be missing."""
        return self._dumped(kind, body, is_whole=False)

    def whole(self, kind: int, body: bytes) -> list[bytes]:
        """As `dump`, all of one moment; InterruptedError where the list never keeps still."""
        for _ in range(TRIES - 1):
            with suppress(InterruptedError):
                return list(self._dumped(kind, body, is_whole=True))
        return list(self._dumped(kind, body, is_whole=True))

    def _dumped(self, kind: int, body: bytes, *, is_whole: bool) -> Iterator[bytes]:
        self._socket.send(self._message(kind, REQUEST | DUMP, body))
        is_torn = False
        while True:
            for found, flags, _, data in self._received():
                is_torn |= bool(flags & TORN)
                if found == DONE:
                    if is_torn and is_whole:
                        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                    return
                if found == ERROR:
                    raise _error(data)
                yield data
                if not flags & MULTI:
                    return

    def ask(self, kind: int, bodies: Sequence[bytes]) -> list[bytes | int]:
        """For each question the body of its answer, or the number of the error.

        The questions must be of a kind that has exactly one answer.
        """
        return self._exchange(kind, REQUEST, bodies)

    def tell(self, kind: int, bodies: Sequence[bytes]) -> list[int]:
        """For each command the number of its error, 0 where it was carried out."""
        answers = self._exchange(kind, REQUEST | ACK, bodies)
        return [answer if isinstance(answer, int) else 0 for answer in answers]

    def _exchange(self, kind: int, flags: int, bodies: Sequence[bytes]) -> list[bytes | int]:
        answers: list[bytes | int] = []
        for start in range(0, len(bodies), AT_ONCE):
            some = bodies[start : start + AT_ONCE]
            first = self._sequence + 1
            self._socket.send(b"".join(self._message(kind, flags, body) for body in some))
            got: dict[int, bytes | int] = {}
            while len(got) < len(some):
                for found, _, sequence, data in self._received():
                    if sequence >= first:
                        got[sequence] = -_number(data) if found == ERROR else data
            answers += (got[first + n] for n in range(len(some)))
        return answers

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        head = HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0)
        return head + body + bytes(-len(body) % 4)

    def _received(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The type, flags, sequence and body of each message of one part."""
        try:
            data = self._socket.recv(BUFFER_BYTES)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
        at = 0
        while at + HEADER.size <= len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
            yield kind, flags, sequence, data[at + HEADER.size : at + length]
            at += (length + 3) & ~3


@contextmanager
def opened(protocol: int, *, is_strict: bool = False) -> Iterator[Socket]:
    """A socket of that protocol; OSError where the kernel does not have it.

    With `is_strict` a dump lists no more than its body asks for, on kernels that can (5.0): the
    reader must still look.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as made:
        made.settimeout(PATIENCE_S)
        made.bind((0, 0))
        if is_strict:
            with suppress(OSError):
                made.setsockopt(SOL_NETLINK, GET_STRICT_CHECK, 1)
        yield Socket(made)


def _number(data: bytes) -> int:
    """The number in an error message: 0 or less."""
    number: int = struct.unpack_from("=i", data)[0]
    return number


def _error(data: bytes) -> OSError:
    number = -_number(data)
    return OSError(number, os.strerror(number))
