"""A program that reads netfilter queues and decides what is in them (linux/nfnetlink_queue.h)."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.kernel.ground import Namespace

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE
PACKET, VERDICT, CONFIG = range(3)  # nfqnl_msg_types
CFG_CMD, CFG_PARAMS = 1, 2
BIND = 1
COPY_PACKET = 2
PACKET_HDR, VERDICT_HDR, PAYLOAD = 1, 2, 10
NF_DROP, NF_ACCEPT = 0, 1
SILENCE_S = 0.2


@dataclass(slots=True)
class Reader:
    """Reads queues of a namespace."""

    opened: socket.socket

    def decide(
        self, passes: Callable[[bytes], bool], most: int | None = None
    ) -> list[tuple[int, bytes]]:
        """Decide what is waiting, until so many are done or no more come.

        Returns each packet with its queue's number.
        """
        found: list[tuple[int, bytes]] = []
        while len(found) != most and select.select([self.opened], [], [], SILENCE_S)[0]:
            data = self.opened.recv(65536)
            kind, queue, attributes = _read(data)
            if kind != SUBSYSTEM | PACKET:
                raise AssertionError(f"a message of type {kind}")
            (number,) = struct.unpack_from("!I", attributes[PACKET_HDR])
            packet = attributes[PAYLOAD]
            found.append((queue, packet))
            verdict = struct.pack("!II", NF_ACCEPT if passes(packet) else NF_DROP, number)
            self.opened.send(_message(VERDICT, queue, {VERDICT_HDR: verdict}))
        return found


@contextmanager
def reading(namespace: Namespace, queues: Iterable[int]) -> Iterator[Reader]:
    """Read these queues for as long as this lasts."""
    with namespace.entered():
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with opened:
        opened.bind((0, 0))
        for queue in queues:
            for attributes in (
                {CFG_CMD: struct.pack("!BxH", BIND, 0)},
                {CFG_PARAMS: struct.pack("!IB", 0xFFFF, COPY_PACKET)},
            ):
                opened.send(_message(CONFIG, queue, attributes, NLM_F_ACK))
                answer = opened.recv(4096)
                kind, code = struct.unpack_from("=4xH10xi", answer)
                assert (kind, code) == (NLMSG_ERROR, 0), code
        yield Reader(opened)


def _message(kind: int, queue: int, attributes: dict[int, bytes], flags: int = 0) -> bytes:
    body = struct.pack("!BBH", 0, 0, queue)
    for number, value in attributes.items():
        body += struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
    head = struct.pack("=IHHII", 16 + len(body), SUBSYSTEM | kind, NLM_F_REQUEST | flags, 1, 0)
    return head + body


def _read(data: bytes) -> tuple[int, int, dict[int, bytes]]:
    length, kind = struct.unpack_from("=IH", data)
    (queue,) = struct.unpack_from("!H", data, 18)
    attributes: dict[int, bytes] = {}
    at = 20
    while at < length:
        size, number = struct.unpack_from("=HH", data, at)
        attributes[number & 0x3FFF] = data[at + 4 : at + size]
        at += size + -size % 4
    return kind, queue, attributes
