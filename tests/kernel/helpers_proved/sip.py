"""Internet telephony (RFC 3261) with media of RFC 3550: calls, and calls to a registered phone.

Messages have the headers that RFC 3261 demands, since translation rewrites them.
"""

from __future__ import annotations

import re
import secrets
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from .talk import MOST_BYTES, MUST_WORK_S, Address, End, Flow, SilenceError, Talk, port_of

_CONNECTION = re.compile(rb"^c=IN IP[46] (\S+)\r$", re.MULTILINE)
_MEDIA = re.compile(rb"^m=audio (\d+) ", re.MULTILINE)
_CONTACT = re.compile(rb"^Contact: <sip:\w+@(\[[^]]+\]|[^:>]+):(\d+)", re.MULTILINE)

RTP_VERSION, PCMU = 2, 0  # RFC 3550 section 5.1, RFC 3551 table 4


class Transport(Enum):
    """What carries the signalling, as the Via header spells it."""

    UDP = "UDP"
    TCP = "TCP"


@dataclass(frozen=True, slots=True)
class _Party:
    """One of those who talk: where it takes signalling, and where media."""

    name: str
    end: End
    signalling: int
    rtp: socket.socket
    rtcp: socket.socket


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _session(party: _Party) -> str:
    family = "IP6" if ":" in party.end.address else "IP4"
    return "".join(
        f"{line}\r\n"
        for line in (
            "v=0",
            f"o={party.name} 1 1 IN {family} {party.end.address}",
            "s=call",
            f"c=IN {family} {party.end.address}",
            "t=0 0",
            f"m=audio {port_of(party.rtp)} RTP/AVP 0",
            "a=rtpmap:0 PCMU/8000",
        )
    )


def _message(first: str, via: str, headers: tuple[str, ...], body: str = "") -> bytes:
    kind = ("Content-Type: application/sdp",) if body else ()
    lines = (first, via, "Max-Forwards: 70", *headers, *kind, f"Content-Length: {len(body)}")
    return ("".join(f"{line}\r\n" for line in lines) + "\r\n" + body).encode()


def _header(said: bytes, name: str) -> str:
    for line in said.decode().split("\r\n"):
        if line.startswith(f"{name}: "):
            return line
    raise SilenceError(f"no {name} in {said!r}")


def _invite(transport: Transport, caller: _Party, callee: str, to: Address) -> bytes:
    own = f"{_bracketed(caller.end.address)}:{caller.signalling}"
    target = f"sip:{callee}@{_bracketed(to[0])}:{to[1]}"
    return _message(
        f"INVITE {target} SIP/2.0",
        f"Via: SIP/2.0/{transport.value} {own};branch=z9hG4bK{secrets.token_hex(4)}",
        (
            f"From: <sip:{caller.name}@{own}>;tag=1",
            f"To: <{target}>",
            f"Call-ID: {secrets.token_hex(8)}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:{caller.name}@{own}>",
        ),
        _session(caller),
    )


def _accepted(invitation: bytes, callee: _Party) -> bytes:
    own = f"{_bracketed(callee.end.address)}:{callee.signalling}"
    return _message(
        "SIP/2.0 200 OK",
        _header(invitation, "Via"),
        (
            _header(invitation, "From"),
            f"{_header(invitation, 'To')};tag=2",
            _header(invitation, "Call-ID"),
            _header(invitation, "CSeq"),
            f"Contact: <sip:{callee.name}@{own}>",
        ),
        _session(callee),
    )


def _media(talk: Talk, said: bytes, owner: End) -> tuple[Address, Address]:
    """Where a description that was heard says that its owner takes RTP and RTCP."""
    connection, media = _CONNECTION.search(said), _MEDIA.search(said)
    if connection is None or media is None:
        raise SilenceError(f"no media in {said!r}")
    heard = connection[1].decode(), int(media[1])
    address, port = talk.named("the media address", heard, owner)
    return (address, port), (address, port + 1)


def _party(talk: Talk, name: str, end: End, signalling: int) -> _Party:
    return _Party(name, end, signalling, *talk.pair_of_datagrams(end))


def _streams(
    talk: Talk, said_to: tuple[bytes, bytes], caller: _Party, callee: _Party, first: _Party
) -> Iterator[Flow]:
    """RTP and RTCP, opened by one of the two; `said_to` the caller and to the callee."""
    to_callee = _media(talk, said_to[0], callee.end)
    to_caller = _media(talk, said_to[1], caller.end)
    other, targets = (callee, to_callee) if first is caller else (caller, to_caller)
    for name, source, target, receiver in (
        ("RTP", first.rtp, targets[0], other.rtp),
        ("RTCP", first.rtcp, targets[1], other.rtcp),
    ):
        yield talk.udp_flow(f"{name}, from the {first.name} first", source, target, receiver)


def _call(talk: Talk, transport: Transport, *, is_caller_first: bool) -> Iterator[Flow]:
    line = talk.line
    if transport is Transport.TCP:
        client, server = talk.control()
        caller = _party(talk, "caller", line.client, port_of(client))
        callee = _party(talk, "callee", line.server, talk.port.own)
        invitation = _invite(transport, caller, "callee", (line.dialled, talk.port.dialled))
        invited = talk.carry(client, server, invitation)
        answered = talk.carry(server, client, _accepted(invited, callee))
    else:
        server = talk.datagrams(line.server, talk.port.own)
        client = talk.datagrams(line.client)
        caller = _party(talk, "caller", line.client, port_of(client))
        callee = _party(talk, "callee", line.server, talk.port.own)
        dialled = (line.dialled, talk.port.dialled)
        invited, source = talk.deliver(
            client, dialled, server, _invite(transport, caller, "callee", dialled)
        )
        talk.agree("the caller's address", source[0], line.caller)
        answered, _ = talk.deliver(server, source, client, _accepted(invited, callee))
    first = caller if is_caller_first else callee
    yield from _streams(talk, (answered, invited), caller, callee, first)


def call(talk: Talk) -> Iterator[Flow]:
    """A call over UDP; the caller's media come first."""
    yield from _call(talk, Transport.UDP, is_caller_first=True)


def early_media(talk: Talk) -> Iterator[Flow]:
    """A call over UDP; the callee's media come first."""
    yield from _call(talk, Transport.UDP, is_caller_first=False)


def call_over_tcp(talk: Talk) -> Iterator[Flow]:
    """A call over TCP; the caller's media come first."""
    yield from _call(talk, Transport.TCP, is_caller_first=True)


def early_media_over_tcp(talk: Talk) -> Iterator[Flow]:
    """A call over TCP; the callee's media come first."""
    yield from _call(talk, Transport.TCP, is_caller_first=False)


def registered(talk: Talk) -> Iterator[Flow]:
    """A phone registers, and a call comes in to the contact that it named; media follow.

    The phone registers from one port and takes calls on another, as phones behind a connection
    of their own do, and the registrar calls from a new port: no part of the registration.
    """
    line = talk.line
    registrar = talk.datagrams(line.server, talk.port.own)
    phone = talk.datagrams(line.client)
    ringing = talk.datagrams(line.client)
    own = f"{_bracketed(line.client.address)}:{port_of(phone)}"
    contact = f"{_bracketed(line.client.address)}:{port_of(ringing)}"
    domain = _bracketed(line.dialled)
    register = _message(
        f"REGISTER sip:{domain} SIP/2.0",
        f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{secrets.token_hex(4)}",
        (
            f"From: <sip:phone@{domain}>;tag=1",
            f"To: <sip:phone@{domain}>",
            f"Call-ID: {secrets.token_hex(8)}",
            "CSeq: 1 REGISTER",
            f"Contact: <sip:phone@{contact}>",
            "Expires: 600",
        ),
    )
    heard, source = talk.deliver(phone, (line.dialled, talk.port.dialled), registrar, register)
    talk.agree("the phone's address", source[0], line.caller)
    bound = _header(heard, "Contact")
    found = _CONTACT.search(heard)
    if found is None:
        raise SilenceError(f"no contact in {heard!r}")
    told = found[1].decode().strip("[]"), int(found[2])
    granted = _message(
        "SIP/2.0 200 OK",
        _header(heard, "Via"),
        (
            _header(heard, "From"),
            f"{_header(heard, 'To')};tag=2",
            _header(heard, "Call-ID"),
            "CSeq: 1 REGISTER",
            f"{bound};expires=600",
        ),
    )
    talk.deliver(registrar, source, phone, granted)
    target = talk.named("the contact of the phone", told, line.client)

    outgoing = talk.datagrams(line.server)
    caller = _party(talk, "caller", line.server, port_of(outgoing))
    callee = _party(talk, "phone", line.client, port_of(ringing))
    try:
        with talk.announced():
            invitation = _invite(Transport.UDP, caller, "phone", target)
            invited, seen = talk.deliver(outgoing, target, ringing, invitation)
            answered, _ = talk.deliver(ringing, seen, outgoing, _accepted(invited, callee))
    except SilenceError:
        yield Flow("an incoming call", False)
        return
    yield Flow("an incoming call", True)
    yield from _streams(talk, (answered, invited), caller, callee, caller)


def call_echoed(talk: Talk) -> Iterator[Flow]:
    """A call over UDP to a real server that sends back each packet of media that it takes."""
    line = talk.line
    client = talk.datagrams(line.client)
    caller = _party(talk, "caller", line.client, port_of(client))
    dialled = (line.dialled, talk.port.dialled)
    invitation = _invite(Transport.UDP, caller, "callee", dialled)
    client.sendto(invitation, dialled)
    target, _ = _media(talk, _answer(client), line.server)
    packet = struct.pack("!BBHII", RTP_VERSION << 6, PCMU, 1, 0, 1) + secrets.token_bytes(160)
    try:
        with talk.announced():
            heard, seen = talk.deliver(caller.rtp, target, caller.rtp, packet)
    except SilenceError:
        yield Flow("RTP, there and back", False)
    else:
        talk.agree("the media sent back", (heard, seen), (packet, target))
        yield Flow("RTP, there and back", True)


def _answer(client: socket.socket) -> bytes:
    """The final answer to an invitation, after the provisional ones; raises SilenceError."""
    client.settimeout(MUST_WORK_S)
    try:
        while not (heard := client.recv(MOST_BYTES)).startswith(b"SIP/2.0 200 "):
            pass
    except OSError as error:
        raise SilenceError("nobody answered the call") from error
    return heard
