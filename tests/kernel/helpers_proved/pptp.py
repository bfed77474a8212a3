"""Point-to-point tunnelling (RFC 2637): a call is set up, and GRE flows."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .talk import End, Flow, SilenceError, Talk

MAGIC = 0x1A2B3C4D  # section 1.4
START_REQUEST, START_REPLY, CALL_REQUEST, CALL_REPLY = 1, 2, 7, 8  # section 2
SUCCESS = 1

ENHANCED_GRE = 0x3001  # section 4.1: key and sequence number present, version 1
PPP = 0x880B
IPV4_HEADER_BYTES = 20


def _message(kind: int, body: bytes) -> bytes:
    return struct.pack("!HHIHH", len(body) + 12, 1, MAGIC, kind, 0) + body


def _start(kind: int, result: int) -> bytes:
    """Start-Control-Connection-Request or -Reply, sections 2.1 and 2.2."""
    common = struct.pack("!HBBIIHH", 0x0100, result, 0, 3, 3, 1, 1)
    return _message(kind, common + bytes(64) + bytes(64))


def _outgoing_call(call: int) -> bytes:
    """Outgoing-Call-Request, section 2.7."""
    fixed = struct.pack("!HHIIIIHHHH", call, 1, 300, 100_000_000, 3, 3, 64, 0, 0, 0)
    return _message(CALL_REQUEST, fixed + bytes(64) + bytes(64))


def _call_answer(call: int, peer: int) -> bytes:
    """Outgoing-Call-Reply, section 2.8."""
    fixed = struct.pack("!HHBBHIHHI", call, peer, SUCCESS, 0, 0, 100_000_000, 64, 0, 0)
    return _message(CALL_REPLY, fixed)


@dataclass(frozen=True, slots=True)
class _Tunnel:
    """One end of the tunnel: its socket, its own call number, and the peer's as it heard it."""

    end: End
    raw: socket.socket
    call: int
    peer_call: int
    peer: str

    def frame(self, payload: bytes) -> bytes:
        """Enhanced GRE for the peer, with a sequence number (section 4.1)."""
        return struct.pack("!HHHHI", ENHANCED_GRE, PPP, len(payload), self.peer_call, 0) + payload


def tunnel(talk: Talk) -> Iterator[Flow]:
    """A call is set up, and the client sends first through the tunnel."""
    client, server = _called(talk)
    yield _through("GRE, from the client first", talk, client, server)


def tunnel_from_server(talk: Talk) -> Iterator[Flow]:
    """A call is set up, and the server sends first through the tunnel."""
    client, server = _called(talk)
    yield _through("GRE, from the server first", talk, server, client)


def _called(talk: Talk) -> tuple[_Tunnel, _Tunnel]:
    line = talk.line
    client, server = talk.control()
    talk.carry(client, server, _start(START_REQUEST, 0))
    talk.carry(server, client, _start(START_REPLY, SUCCESS))
    client_call, server_call = (secrets.randbelow(0xFFFF) + 1 for _ in range(2))
    asked = talk.carry(client, server, _outgoing_call(client_call))
    client_as_heard = struct.unpack_from("!H", asked, 12)[0]
    answer = talk.carry(server, client, _call_answer(server_call, client_as_heard))
    server_as_heard, own = struct.unpack_from("!HH", answer, 12)
    talk.agree("the client's call number, told back", own, client_call)
    tunnels = [talk.raw(end, socket.IPPROTO_GRE) for end in (line.client, line.server)]
    return (
        _Tunnel(line.client, tunnels[0], client_call, server_as_heard, line.dialled),
        _Tunnel(line.server, tunnels[1], server_call, client_as_heard, line.caller),
    )


def _through(name: str, talk: Talk, first: _Tunnel, second: _Tunnel) -> Flow:
    try:
        for source, target in ((first, second), (second, first)):
            target.raw.settimeout(talk.line.patience_s)
            seen = _send(source, target, secrets.token_bytes(16))
            talk.agree(f"{name}: the source", seen, talk.line.known_by_other(source.end))
    except SilenceError:
        return Flow(name, False)
    return Flow(name, True)


def _send(source: _Tunnel, target: _Tunnel, payload: bytes) -> str:
    """Send through the tunnel; the frame arrives with the call number that the target chose."""
    try:
        source.raw.sendto(source.frame(payload), (source.peer, 0))
        while True:
            packet, seen = target.raw.recvfrom(2048)
            frame = packet[IPV4_HEADER_BYTES:]
            if frame.endswith(payload) and struct.unpack_from("!H", frame, 6)[0] == target.call:
                return str(seen[0])
    except OSError as error:
        raise SilenceError("no GRE arrived") from error
