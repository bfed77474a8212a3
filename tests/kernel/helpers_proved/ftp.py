"""File transfer (RFC 959, RFC 2428): just enough of both ends to agree on a data connection."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from tests.kernel.ground import Family

from .talk import Address, End, Flow, SilenceError, Talk, port_of

_NUMBERS = re.compile(rb"(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)")
_EXTENDED = re.compile(rb"\|(?P<family>\d?)\|(?P<address>[^|]*)\|(?P<port>\d+)\|")


def passive(talk: Talk) -> Iterator[Flow]:
    """PASV, or EPSV over IPv6: the server waits, and the client opens the data connection."""
    client, server = _logged_in(talk)
    line = talk.line
    waiting = talk.listener(line.server)
    port = port_of(waiting)
    if line.family is Family.IPV4:
        talk.carry(client, server, b"PASV\r\n")
        told = b"227 Entering Passive Mode (" + _numbers(line.server, port) + b").\r\n"
        target = talk.named("227", _address(talk.carry(server, client, told)), line.server)
    else:
        talk.carry(client, server, b"EPSV\r\n")
        told = b"229 Entering Extended Passive Mode (|||%d|)\r\n" % port
        target = (line.dialled, _extended(talk.carry(server, client, told))[1])
    yield talk.tcp_flow("data, opened by the client", line.client, target, waiting)


def active(talk: Talk) -> Iterator[Flow]:
    """PORT, or EPRT over IPv6: the client waits, and the server opens the data connection."""
    client, server = _logged_in(talk)
    line = talk.line
    waiting = talk.listener(line.client)
    port = port_of(waiting)
    if line.family is Family.IPV4:
        told = b"PORT " + _numbers(line.client, port) + b"\r\n"
        heard = _address(talk.carry(client, server, told))
    else:
        told = b"EPRT |2|%s|%d|\r\n" % (line.client.address.encode(), port)
        heard = _extended(talk.carry(client, server, told))
    talk.carry(server, client, b"200 PORT command successful.\r\n")
    target = talk.named("PORT", heard, line.client)
    yield talk.tcp_flow("data, opened by the server", line.server, target, waiting)


def _logged_in(talk: Talk) -> tuple[socket.socket, socket.socket]:
    """A control connection after its login: the helper reads no first line."""
    client, server = talk.control()
    talk.carry(server, client, b"220 ready\r\n")
    for said, answer in (
        (b"USER anonymous\r\n", b"331 any password\r\n"),
        (b"PASS pl@example\r\n", b"230 welcome\r\n"),
    ):
        talk.carry(client, server, said)
        talk.carry(server, client, answer)
    return client, server


def _numbers(end: End, port: int) -> bytes:
    return f"{end.address.replace('.', ',')},{port // 256},{port % 256}".encode()


def _address(said: bytes) -> Address:
    found = _NUMBERS.search(said)
    if found is None:
        raise SilenceError(f"no address in {said!r}")
    numbers = [int(number) for number in found.groups()]
    return ".".join(map(str, numbers[:4])), numbers[4] * 256 + numbers[5]


def _extended(said: bytes) -> Address:
    found = _EXTENDED.search(said)
    if found is None:
        raise SilenceError(f"no address in {said!r}")
    return found["address"].decode(), int(found["port"])
