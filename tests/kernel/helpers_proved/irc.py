"""Internet Relay Chat (RFC 1459) and its direct connections (DCC, the CTCP specification)."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

from .talk import MOST_BYTES, MUST_WORK_S, Address, Flow, SilenceError, Talk, port_of

_OFFER = re.compile(rb"DCC \w+ \S+ (\d+) (\d+)")

# What a client can offer: each has words of its own before address and port.
OFFERS = (b"CHAT chat", b"SEND photo.jpg")


def direct(talk: Talk) -> Iterator[Flow]:
    """The client offers a chat and a file, and the server's side comes to fetch them."""
    line = talk.line
    client, server = talk.control()
    talk.carry(client, server, b"NICK alice\r\nUSER alice 0 * :Alice\r\n")
    talk.carry(server, client, b":irc.example 001 alice :welcome\r\n")
    for offer in OFFERS:
        waiting = talk.listener(line.client)
        place = b"%d %d" % (int(IPv4Address(line.client.address)), port_of(waiting))
        heard = talk.carry(
            client, server, b"PRIVMSG bob :\1DCC " + offer + b" " + place + b"\1\r\n"
        )
        target = _told(talk, heard)
        yield talk.tcp_flow(f"DCC {offer.split()[0].decode()}", line.server, target, waiting)


def relayed(talk: Talk) -> Iterator[Flow]:
    """The same with a real server between the two users: it passes the offer on.

    The other user is on the server's machine.
    """
    line = talk.line
    alice = talk.connected(line.client, (line.dialled, talk.port.dialled))
    bob = talk.connected(line.server, (line.server.address, talk.port.own))
    names = [f"{name}{secrets.token_hex(3)}".encode() for name in ("a", "b")]
    for user, name in zip((alice, bob), names, strict=True):
        user.settimeout(MUST_WORK_S)
        user.sendall(b"NICK %b\r\nUSER x 0 * :x\r\n" % name)
        _until(user, b" 001 ")
    waiting = talk.listener(line.client)
    place = b"%d %d" % (int(IPv4Address(line.client.address)), port_of(waiting))
    alice.sendall(b"PRIVMSG " + names[1] + b" :\1DCC CHAT chat " + place + b"\1\r\n")
    target = _told(talk, _until(bob, b"DCC "))
    yield talk.tcp_flow("DCC CHAT", line.server, target, waiting)


def _told(talk: Talk, heard: bytes) -> Address:
    found = _OFFER.search(heard)
    if found is None:
        raise SilenceError(f"no offer in {heard!r}")
    told = str(IPv4Address(int(found[1]))), int(found[2])
    return talk.named("DCC", told, talk.line.client)


def _until(user: socket.socket, word: bytes) -> bytes:
    """What a user hears up to the line with that word; raises SilenceError where it never comes."""
    heard = b""
    while word not in heard or not heard.endswith(b"\n"):
        try:
            more = user.recv(MOST_BYTES)
        except OSError as error:
            raise SilenceError(f"no {word!r} in {heard!r}") from error
        if not more:
            raise SilenceError(f"the server hung up after {heard!r}")
        heard += more
    return heard
