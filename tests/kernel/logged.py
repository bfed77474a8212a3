"""What rules log: by nfnetlink_log to a group of one namespace, or to the kernel's log.

It knows how the kernel tells of a packet, and nothing of the rule that logged it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .ground import Namespace

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_log.h
NETLINK_NETFILTER = 12
NLMSG_ERROR, NLM_F_REQUEST, NLM_F_ACK = 2, 1, 4
SUBSYSTEM, MSG_PACKET, MSG_CONFIG = 4, 0, 1
CFG_CMD, CFG_MODE, CFG_QTHRESH, CMD_BIND, COPY_PACKET = 1, 2, 5, 1, 2
PAYLOAD, PREFIX = 9, 10

HEADER = struct.Struct("=IHHII")
GENERIC = struct.Struct("!BBH")
ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Entry:
    """A packet that was logged: under which prefix, to which group, and the packet."""

    prefix: str
    group: int
    data: bytes

    @property
    def family(self) -> int:
        return self.data[0] >> 4

    @property
    def destination_port(self) -> int:
        """Of a packet without options or extension headers."""
        (port,) = struct.unpack_from("!H", self.data, 22 if self.family == 4 else 42)
        return int(port)


class Listener:
    """A reader of log groups."""

    def __init__(self, namespace: Namespace, *groups: int) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for group in groups:
            self._configure(
                group,
                _attribute(CFG_CMD, bytes((CMD_BIND,)))
                + _attribute(CFG_MODE, struct.pack("!IBx", 128, COPY_PACKET))
                # Each packet at once, not many together after a while.
                + _attribute(CFG_QTHRESH, struct.pack("!I", 1)),
            )
        self._socket.setblocking(False)

    def _configure(self, group: int, attributes: bytes) -> None:
        body = GENERIC.pack(socket.AF_UNSPEC, 0, group) + attributes
        kind, flags = SUBSYSTEM << 8 | MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, group, 0) + body)
        answer = self._socket.recv(4096)
        (code,) = struct.unpack_from("=i", answer, HEADER.size)
        if code:
            raise OSError(-code, f"log group {group}: {os.strerror(-code)}")

    def entries(self) -> list[Entry]:
        """What was logged since it was asked last. The kernel hands a packet over as it logs it."""
        found: list[Entry] = []
        with suppress(BlockingIOError):
            while True:
                found += _entries(self._socket.recv(1 << 17))
        return found

    def close(self) -> None:
        self._socket.close()


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _entries(data: bytes) -> Iterator[Entry]:
    while data:
        size, kind, *_ = HEADER.unpack_from(data)
        if kind == SUBSYSTEM << 8 | MSG_PACKET:
            _, _, group = GENERIC.unpack_from(data, HEADER.size)
            held = dict(_attributes(data[HEADER.size + GENERIC.size : size]))
            yield Entry(held.get(PREFIX, b"").rstrip(b"\0").decode(), group, held[PAYLOAD])
        data = data[size + -size % 4 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind = ATTRIBUTE.unpack_from(data)
        yield kind & 0x3FFF, data[ATTRIBUTE.size : size]
        data = data[size + -size % 4 :]


ALL_NAMESPACES = Path("/proc/sys/net/netfilter/nf_log_all_netns")


@dataclass(frozen=True, slots=True)
class KernelLog:
    """What was written to the kernel's log since it was opened."""

    descriptor: int

    def lines(self, prefix: str) -> list[tuple[int, str]]:
        """The level and the text of the lines that start so."""
        found = []
        with suppress(BlockingIOError):
            while True:
                # Documentation/ABI/testing/dev-kmsg: `priority,sequence,time,flags;text`
                head, _, text = os.read(self.descriptor, 8192).decode().partition(";")
                if text.startswith(prefix):
                    found.append((int(head.split(",")[0]) & 7, text.splitlines()[0]))
        return found


@contextmanager
def kernel_log() -> Iterator[KernelLog]:
    """Let every namespace write to the kernel's log (as it was before, afterwards)."""
    before = ALL_NAMESPACES.read_text()
    ALL_NAMESPACES.write_text("1")
    try:
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(descriptor, 0, os.SEEK_END)
            yield KernelLog(descriptor)
        finally:
            os.close(descriptor)
    finally:
        ALL_NAMESPACES.write_text(before)
