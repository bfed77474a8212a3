"""Trivial file transfer (RFC 1350): a request, and the first block from a new port."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .talk import Flow, SilenceError, Talk

RRQ, WRQ, DATA, ACK = 1, 2, 3, 4  # RFC 1350 section 5


def read(talk: Talk) -> Iterator[Flow]:
    """The client asks for a file; the server sends it."""
    yield from _transfer(talk, RRQ, struct.pack("!HH", DATA, 1) + b"content")


def write(talk: Talk) -> Iterator[Flow]:
    """The client offers a file; the server takes it."""
    yield from _transfer(talk, WRQ, struct.pack("!HH", ACK, 0))


def _transfer(talk: Talk, request: int, answer: bytes) -> Iterator[Flow]:
    line = talk.line
    server = talk.datagrams(line.server, talk.port.own)
    client = talk.datagrams(line.client)
    asked = struct.pack("!H", request) + b"file\0octet\0"
    _, source = talk.deliver(client, (line.dialled, talk.port.dialled), server, asked)
    talk.agree("the client's address", source[0], line.caller)
    transfer = talk.datagrams(line.server)
    name = "what the server sends from its new port"
    try:
        with talk.announced():
            _, seen = talk.deliver(transfer, source, client, answer)
            talk.agree("the server's address", seen[0], line.dialled)
            talk.deliver(client, seen, transfer, struct.pack("!HH", ACK, 1))
    except SilenceError:
        yield Flow(name, False)
    else:
        yield Flow(name, True)
