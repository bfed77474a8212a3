"""Servers and clients that say just enough for a conntrack helper, and carry real bytes.

Each function acts one conversation out; SilenceError says what of it did not come about.
"""

from __future__ import annotations

import re
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from policylang.packets.fields import TCP, UDP
from policylang.proving.talk import Address, Machine, SilenceError, Talk, port_of

Conversation = Callable[[Talk, int], None]  # with the protocol of the connection that is dialled

DATA = "the data connection"

# --- one connection ---------------------------------------------------------------------------


def plain(talk: Talk, protocol: int) -> None:
    """One connection, over TCP or UDP, with bytes each way."""
    line = talk.line
    if protocol == TCP:
        talk.exchange(*talk.control(), "the connection")
        return
    servers = [talk.datagrams(line.server, port) for port in line.ports]
    client = talk.datagrams(line.client, line.source_port)
    word = secrets.token_bytes(64)
    heard, source, server = talk.deliver(client, line.dialled, servers, word, "the datagram")
    answer, _, _ = talk.deliver(server, source, [client], heard, "the answer")
    if answer != word:
        raise SilenceError("the answer is not what was sent")


# --- FTP: RFC 959, RFC 2428 -------------------------------------------------------------------

_PASV = re.compile(rb"\((\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\)")
_EPSV = re.compile(rb"\(\|\|\|(\d+)\|\)")
_PORT = re.compile(rb"^PORT (\d+),(\d+),(\d+),(\d+),(\d+),(\d+)\r$", re.MULTILINE)
_EPRT = re.compile(rb"^EPRT \|[12]\|([^|]+)\|(\d+)\|\r$", re.MULTILINE)


def _logged_in(talk: Talk) -> tuple[socket.socket, socket.socket]:
    # The helper reads no first line, so there has to be a greeting and a log-in.
    client, server = talk.control()
    talk.carry(server, client, b"220 ready\r\n")
    for said, answer in ((b"USER anonymous", b"331 password"), (b"PASS x@example", b"230 in")):
        talk.carry(client, server, said + b"\r\n")
        talk.carry(server, client, answer + b"\r\n")
    return client, server


def ftp_passive(talk: Talk, protocol: int) -> None:
    """The server opens a port, the client connects to it and fetches a file."""
    line = talk.line
    client, server = _logged_in(talk)
    listener = talk.for_data(line.server, is_stream=True)
    port = port_of(listener)
    if line.family == 4:
        talk.carry(client, server, b"PASV\r\n")
        numbers = f"{line.server.address.replace('.', ',')},{port >> 8},{port & 255}"
        heard = talk.carry(server, client, f"227 Entering Passive Mode ({numbers}).\r\n".encode())
        to = _address(_PASV, heard)
    else:
        talk.carry(client, server, b"EPSV\r\n")
        said = f"229 Entering Extended Passive Mode (|||{port}|)\r\n"
        heard = talk.carry(server, client, said.encode())
        found = _EPSV.search(heard)
        if found is None:
            raise SilenceError(f"no port in {heard!r}")
        to = line.dialled[0], int(found[1])
    talk.carry(client, server, b"RETR file\r\n")
    data = talk.connected(line.client, to, DATA)
    sender = talk.accepted([listener], DATA)
    talk.carry(server, client, b"150 here it comes\r\n")
    talk.transfer(sender, data, "the file")


def ftp_active(talk: Talk, protocol: int) -> None:
    """The client opens a port, the server connects to it and sends a file."""
    line = talk.line
    client, server = _logged_in(talk)
    listener = talk.for_data(line.client, is_stream=True)
    port = port_of(listener)
    if line.family == 4:
        numbers = f"{line.client.address.replace('.', ',')},{port >> 8},{port & 255}"
        heard = talk.carry(client, server, f"PORT {numbers}\r\n".encode())
        to = _address(_PORT, heard)
    else:
        said = f"EPRT |2|{line.client.address}|{port}|\r\n"
        heard = talk.carry(client, server, said.encode())
        found = _EPRT.search(heard)
        if found is None:
            raise SilenceError(f"no port in {heard!r}")
        to = found[1].decode(), int(found[2])
    talk.carry(server, client, b"200 noted\r\n")
    talk.carry(client, server, b"RETR file\r\n")
    talk.carry(server, client, b"150 here it comes\r\n")
    # RFC 959 section 3.2: from the port next to that of the control connection.
    own = max(0, server.getsockname()[1] - 1)
    data = talk.connected(line.server, to, DATA, own)
    talk.transfer(data, talk.accepted([listener], DATA), "the file")


def _address(pattern: re.Pattern[bytes], heard: bytes) -> Address:
    found = pattern.search(heard)
    if found is None:
        raise SilenceError(f"no port in {heard!r}")
    numbers = [int(number) for number in found.groups()]
    return ".".join(map(str, numbers[:4])), numbers[4] << 8 | numbers[5]


# --- TFTP: RFC 1350 ---------------------------------------------------------------------------

_RRQ, _WRQ, _BLOCK, _ACK = 1, 2, 3, 4


def tftp_read(talk: Talk, protocol: int) -> None:
    """The client asks for a file; the server sends it from a new port."""
    block = _block()
    arrived = _tftp(talk, _RRQ, block, _acknowledgement(1))
    if arrived[0] != block:
        raise SilenceError("the bytes of the file do not arrive as they were sent")


def tftp_write(talk: Talk, protocol: int) -> None:
    """The client announces a file; the server agrees from a new port, and the file goes there."""
    block = _block()
    arrived = _tftp(talk, _WRQ, _acknowledgement(0), block)
    if arrived[1] != block:
        raise SilenceError("the bytes of the file do not arrive as they were sent")


def _tftp(talk: Talk, request: int, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """What arrives of the server's first packet and of the client's answer to it."""
    line = talk.line
    servers = [talk.datagrams(line.server, port) for port in line.ports]
    client = talk.datagrams(line.client, line.source_port)
    asked = struct.pack("!H", request) + b"file\0octet\0"
    _, source, _ = talk.deliver(client, line.dialled, servers, asked, "the request")
    transfer = talk.for_data(line.server, is_stream=False)
    came, seen, _ = talk.deliver(transfer, source, [client], first, "the server's transfer")
    went, _, _ = talk.deliver(client, seen, [transfer], second, "the client's transfer")
    return came, went


def _block() -> bytes:
    return struct.pack("!HH", _BLOCK, 1) + secrets.token_bytes(100)


def _acknowledgement(number: int) -> bytes:
    return struct.pack("!HH", _ACK, number)


# --- SIP: RFC 3261, with media of RFC 3550 ----------------------------------------------------

_CONNECTION = re.compile(rb"^c=IN IP[46] (\S+)\r$", re.MULTILINE)
_MEDIA = re.compile(rb"^m=audio (\d+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Party:
    """One of those who telephone: where it takes signalling, and where media."""

    name: str
    machine: Machine
    signalling: int
    rtp: socket.socket
    rtcp: socket.socket

    @property
    def own(self) -> str:
        return f"{_bracketed(self.machine.address)}:{self.signalling}"

    @property
    def session(self) -> str:
        family = "IP6" if ":" in self.machine.address else "IP4"
        lines = (
            "v=0",
            f"o={self.name} 1 1 IN {family} {self.machine.address}",
            "s=call",
            f"c=IN {family} {self.machine.address}",
            "t=0 0",
            f"m=audio {port_of(self.rtp)} RTP/AVP 0",
            "a=rtpmap:0 PCMU/8000",
        )
        return "".join(f"{line}\r\n" for line in lines)


def sip(talk: Talk, protocol: int) -> None:
    """A call: an invitation, its acceptance, and media both ways, the caller's first."""
    line = talk.line
    if protocol == TCP:
        client, server = talk.control()
        caller = _party(talk, "caller", line.client, port_of(client))
        callee = _party(talk, "callee", line.server, port_of(server))
        invited = talk.carry(client, server, _invitation("TCP", caller, line.dialled))
        answered = talk.carry(server, client, _acceptance(invited, callee))
    else:
        servers = [talk.datagrams(line.server, port) for port in line.ports]
        client = talk.datagrams(line.client, line.source_port)
        caller = _party(talk, "caller", line.client, port_of(client))
        said = _invitation("UDP", caller, line.dialled)
        invited, source, server = talk.deliver(
            client, line.dialled, servers, said, "the invitation"
        )
        callee = _party(talk, "callee", line.server, port_of(server))
        accepted = _acceptance(invited, callee)
        answered, _, _ = talk.deliver(server, source, [client], accepted, "the answer")
    address, port = _media(answered)
    for what, mine, theirs, to in (
        ("RTP", caller.rtp, callee.rtp, (address, port)),
        ("RTCP", caller.rtcp, callee.rtcp, (address, port + 1)),
    ):
        word = secrets.token_bytes(64)
        heard, seen, _ = talk.deliver(mine, to, [theirs], word, what)
        back, _, _ = talk.deliver(theirs, seen, [mine], word, f"{what} back")
        if (heard, back) != (word, word):
            raise SilenceError(f"{what} does not arrive as it was sent")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _party(talk: Talk, name: str, machine: Machine, signalling: int) -> _Party:
    return _Party(name, machine, signalling, *talk.pair_for_data(machine))


def _message(first: str, via: str, headers: tuple[str, ...], body: str) -> bytes:
    lines = (
        *(first, via, "Max-Forwards: 70", *headers),
        *("Content-Type: application/sdp", f"Content-Length: {len(body)}"),
    )
    return ("".join(f"{line}\r\n" for line in lines) + "\r\n" + body).encode()


def _header(said: bytes, name: str) -> str:
    for line in said.decode(errors="replace").split("\r\n"):
        if line.startswith(f"{name}: "):
            return line
    raise SilenceError(f"no {name} in what was said")


def _invitation(transport: str, caller: _Party, to: Address) -> bytes:
    target = f"sip:callee@{_bracketed(to[0])}:{to[1]}"
    return _message(
        f"INVITE {target} SIP/2.0",
        f"Via: SIP/2.0/{transport} {caller.own};branch=z9hG4bK{secrets.token_hex(4)}",
        (
            f"From: <sip:caller@{caller.own}>;tag=1",
            f"To: <{target}>",
            f"Call-ID: {secrets.token_hex(8)}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:caller@{caller.own}>",
        ),
        caller.session,
    )


def _acceptance(invitation: bytes, callee: _Party) -> bytes:
    return _message(
        "SIP/2.0 200 OK",
        _header(invitation, "Via"),
        (
            _header(invitation, "From"),
            f"{_header(invitation, 'To')};tag=2",
            _header(invitation, "Call-ID"),
            _header(invitation, "CSeq"),
            f"Contact: <sip:callee@{callee.own}>",
        ),
        callee.session,
    )


def _media(said: bytes) -> Address:
    """Where a description that was heard says that its owner takes RTP."""
    connection, media = _CONNECTION.search(said), _MEDIA.search(said)
    if connection is None or media is None:
        raise SilenceError("the answer names no media")
    return connection[1].decode(), int(media[1])


# --- scanning, backup, chat -------------------------------------------------------------------

_SANE_START, _SANE_ORDER = 7, 0x1234  # the SANE network protocol, sections 5.2.8 and 4.2


def sane(talk: Talk, protocol: int) -> None:
    """A scan is started; the server names the port where the client fetches the image."""
    line = talk.line
    client, server = talk.control()
    listener = talk.for_data(line.server, is_stream=True)
    talk.carry(client, server, struct.pack("!II", _SANE_START, 1))
    # Status, port and byte order, each a word, and an empty string for the resource.
    told = struct.pack("!IIII", 0, port_of(listener), _SANE_ORDER, 0)
    heard = talk.carry(server, client, told)
    to = line.dialled[0], int(struct.unpack_from("!I", heard, 4)[0])
    image = talk.connected(line.client, to, "the connection for the image")
    talk.transfer(talk.accepted([listener], "the connection for the image"), image, "the image")


_CONNECT = re.compile(rb"CONNECT DATA (\d+) MESG (\d+) INDEX (\d+)")
_AMANDA = b"Amanda 2.6 %b HANDLE 000-00000000 SEQ 1\n"


def amanda(talk: Talk, protocol: int) -> None:
    """The machine that is saved names three ports, and the backup server connects to them."""
    line = talk.line
    saved = [talk.datagrams(line.server, port) for port in line.ports]
    client = talk.datagrams(line.client, line.source_port)
    request = _AMANDA % b"REQ" + b"SERVICE sendbackup\nOPTIONS features=fff;\n"
    _, source, server = talk.deliver(client, line.dialled, saved, request, "the request")
    streams = ("DATA", "MESG", "INDEX")
    listeners = [talk.for_data(line.server, is_stream=True) for _ in streams]
    ports = " ".join(f"{n} {port_of(one)}" for n, one in zip(streams, listeners, strict=True))
    reply = _AMANDA % b"REP" + f"CONNECT {ports}\nOPTIONS features=fff;\n".encode()
    heard, _, _ = talk.deliver(server, source, [client], reply, "the reply")
    found = _CONNECT.search(heard)
    if found is None:
        raise SilenceError(f"no ports in {heard!r}")
    for name, port, listener in zip(streams, found.groups(), listeners, strict=True):
        what = f"the connection for {name}"
        stream = talk.connected(line.client, (line.dialled[0], int(port)), what)
        talk.exchange(stream, talk.accepted([listener], what), what)


_DCC = re.compile(rb"DCC CHAT chat (\d+) (\d+)")


def irc(talk: Talk, protocol: int) -> None:
    """The client offers a chat (DCC), and the server's side takes it up."""
    line = talk.line
    client, server = talk.control()
    talk.carry(client, server, b"NICK alice\r\nUSER alice 0 * :Alice\r\n")
    talk.carry(server, client, b":irc.example 001 alice :welcome\r\n")
    listener = talk.for_data(line.client, is_stream=True)
    own = int.from_bytes(socket.inet_aton(line.client.address))
    offer = f"PRIVMSG bob :\1DCC CHAT chat {own} {port_of(listener)}\1\r\n"
    heard = talk.carry(client, server, offer.encode())
    found = _DCC.search(heard)
    if found is None:
        raise SilenceError(f"no offer in {heard!r}")
    to = socket.inet_ntoa(int(found[1]).to_bytes(4)), int(found[2])
    chat = talk.connected(line.server, to, "the direct chat")
    talk.exchange(chat, talk.accepted([listener], "the direct chat"), "the direct chat")


# By the kind of a session and its mode.
_CONVERSATIONS: Mapping[tuple[str, str | None], Conversation] = MappingProxyType(
    {
        ("plain", None): plain,
        ("ftp", "passive"): ftp_passive,
        ("ftp", "active"): ftp_active,
        ("tftp", None): tftp_read,
        ("tftp", "read"): tftp_read,
        ("tftp", "write"): tftp_write,
        ("sip", None): sip,
        ("sip", "udp"): sip,
        ("sip", "tcp"): sip,
        ("sane", None): sane,
        ("amanda", None): amanda,
        ("irc", None): irc,
    }
)
_OVER: Mapping[str, tuple[int, ...]] = MappingProxyType({"udp": (UDP,), "tcp": (TCP,)})


def conversation_of(kind: str, mode: str | None) -> Conversation | None:
    """The conversation of a kind and a mode of `SESSION_MODES`; None where none is played."""
    return _CONVERSATIONS.get((kind, mode))


def spoken_over(mode: str | None) -> tuple[int, ...]:
    """The protocols over which conversations of a mode are held, as far as there are sockets."""
    return (TCP, UDP) if mode is None else _OVER.get(mode, (TCP, UDP))
