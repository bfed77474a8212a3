"""Network scanning (the SANE network protocol, section 5.2): a scan is started."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .talk import Flow, Talk, port_of

SANE_NET_START = 7  # section 5.2.8
SUCCESS = 0
LITTLE_ENDIAN = 0x1234


def scan(talk: Talk) -> Iterator[Flow]:
    """The server names the port where the client fetches the image."""
    line = talk.line
    client, server = talk.control()
    waiting = talk.listener(line.server)
    talk.carry(client, server, struct.pack("!II", SANE_NET_START, 1))
    # Status, port and byte order, each a word, and an empty string for the resource.
    told = struct.pack("!IIII", SUCCESS, port_of(waiting), LITTLE_ENDIAN, 0)
    heard = talk.carry(server, client, told)
    target = line.dialled, int(struct.unpack_from("!I", heard, 4)[0])
    yield talk.tcp_flow("the image, fetched by the client", line.client, target, waiting)
