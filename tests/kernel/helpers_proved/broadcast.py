"""Queries that a machine broadcasts, and answers from single machines: NetBIOS names and SNMP."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface

from .talk import Flow, SilenceError, Talk

PREFIX_LEN = 24  # of the wire between the two

NB, INTERNET = 0x20, 1  # RFC 1002 section 4.2.1.3
BROADCAST_QUERY, POSITIVE_ANSWER = 0x0110, 0x8500  # RFC 1002 section 4.2.1.1

INTEGER, OCTETS, NULL, OBJECT, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30  # X.690 section 8
GET, RESPONSE = 0xA0, 0xA2  # RFC 3416 section 3
SYSTEM_NAME = bytes((0x2B, 6, 1, 2, 1, 1, 5, 0))  # sysName.0, RFC 3418
VERSION_2C = 1  # RFC 1901


def _asked_of_everybody(talk: Talk, query: bytes, answer: bytes) -> Iterator[Flow]:
    line = talk.line
    everybody = socket.AF_INET, socket.SOCK_DGRAM
    with line.server.namespace.entered():
        server = talk.keep(socket.socket(*everybody))
    server.bind(("", talk.port.own))
    client = talk.datagrams(line.client)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    network = IPv4Interface(f"{line.client.address}/{PREFIX_LEN}").network
    target = str(network.broadcast_address), talk.port.dialled
    _, source = talk.deliver(client, target, server, query)
    talk.agree("the source of the query", source[0], line.caller)
    name = "the answer of a single machine"
    try:
        with talk.announced():
            heard, seen = talk.deliver(server, source, client, answer)
            talk.agree(name, (heard, seen), (answer, (line.dialled, talk.port.own)))
    except SilenceError:
        yield Flow(name, False)
    else:
        yield Flow(name, True)


def name(talk: Talk) -> Iterator[Flow]:
    """A NetBIOS name is asked for (RFC 1002 sections 4.2.12 and 4.2.13)."""
    encoded = b"".join(bytes((0x41 + (c >> 4), 0x41 + (c & 15))) for c in b"PRINTER".ljust(16))
    asked = bytes((len(encoded),)) + encoded + b"\0" + struct.pack("!HH", NB, INTERNET)
    number = secrets.randbelow(0x10000)
    query = struct.pack("!HHHHHH", number, BROADCAST_QUERY, 1, 0, 0, 0) + asked
    address = socket.inet_aton(talk.line.server.address)
    found = struct.pack("!IHH", 300, 6, 0) + address
    answer = struct.pack("!HHHHHH", number, POSITIVE_ANSWER, 0, 1, 0, 0) + asked + found
    yield from _asked_of_everybody(talk, query, answer)


def system_name(talk: Talk) -> Iterator[Flow]:
    """The name of every agent is asked for (RFC 3416 section 4.2.1)."""
    yield from _asked_of_everybody(
        talk,
        _snmp(GET, _encoded(NULL, b"")),
        _snmp(RESPONSE, _encoded(OCTETS, b"printer")),
    )


def _snmp(kind: int, value: bytes) -> bytes:
    binding = _encoded(SEQUENCE, _encoded(OBJECT, SYSTEM_NAME) + value)
    numbers = b"".join(_encoded(INTEGER, bytes((n,))) for n in (1, 0, 0))
    pdu = _encoded(kind, numbers + _encoded(SEQUENCE, binding))
    version = _encoded(INTEGER, bytes((VERSION_2C,)))
    return _encoded(SEQUENCE, version + _encoded(OCTETS, b"public") + pdu)


def _encoded(tag: int, content: bytes) -> bytes:
    assert len(content) < 128  # the short form of a length, X.690 section 8.1.3.4
    return bytes((tag, len(content))) + content
