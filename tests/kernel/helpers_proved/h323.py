"""Telephony of H.323: registration (RAS), call signalling (Q.931), control (H.245) and media.

Each message holds what H.225.0 and H.245 demand, and the addresses that the kernel reads.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from .per import Packed
from .talk import Address, End, Flow, SilenceError, Talk, port_of

VERSION = bytes((0, 8, 0x91, 0x4A, 0, 4))  # itu-t recommendation h 2250 version 4
CONFERENCE = bytes(range(16))
IPV4, IPV6 = 0, 3  # which choice of H.225.0 TransportAddress
UNICAST_IPV4, UNICAST_IPV6 = 0, 2  # which choice of H.245 UnicastAddress
AUDIO_SESSION = 1  # H.245 section C.2

SETUP, CONNECT = 5, 7  # Q.931 table 4-2
SETUP_BODY, CONNECT_BODY = 0, 2  # which choice of H.225.0 h323-message-body
USER_TO_USER, ASN1 = 0x7E, 5  # Q.931 section 4.5.30 as H.225.0 section 7.2 uses it
REGISTRATION_REQUEST, REGISTRATION_CONFIRM = 3, 4  # which choices of H.225.0 RasMessage


def _packed(address: Address) -> bytes:
    return ip_address(address[0]).packed + struct.pack("!H", address[1])


def _transport_address(message: Packed, address: Address) -> Packed:
    """H.225.0 TransportAddress."""
    is_ipv6 = ":" in address[0]
    message.flags(False).small(IPV6 if is_ipv6 else IPV4, 3)
    if is_ipv6:
        message.flags(False)
    return message.octets(_packed(address))


def _unicast_address(message: Packed, address: Address) -> Packed:
    """H.245 TransportAddress."""
    is_ipv6 = ":" in address[0]
    message.flags(False, False)
    message.flags(False).small(UNICAST_IPV6 if is_ipv6 else UNICAST_IPV4, 3)
    return message.flags(False).octets(_packed(address))


def _terminal(message: Packed) -> Packed:
    """H.225.0 EndpointType of a terminal that is neither a bridge nor unknown."""
    message.flags(False).flags(False, False, False, False, False, True)
    return message.flags(False, False).flags(False, False)


# --- call signalling -------------------------------------------------------------------------


def _signal(kind: int, body: int, content: Callable[[Packed], Packed]) -> bytes:
    """Q.931 with an H323-UserInformation, in a TPKT (RFC 1006 section 6)."""
    message = Packed().flags(False, False).flags(False, False).flags(False).small(body, 3)
    information = bytes((ASN1,)) + content(message).encoded()
    q931 = struct.pack("!BBHB", 8, 2, 1, kind)
    q931 += struct.pack("!BH", USER_TO_USER, len(information)) + information
    return _tpkt(q931)


def _tpkt(content: bytes) -> bytes:
    return struct.pack("!BBH", 3, 0, len(content) + 4) + content


def _setup(h245: Address | None) -> bytes:
    """Setup-UUIE of a call from one terminal to another."""

    def content(message: Packed) -> Packed:
        message.flags(False).flags(h245 is not None, False, False, False, False, False, False)
        message.counted(VERSION)
        if h245 is not None:
            _transport_address(message, h245)
        _terminal(message).flags(False).octets(CONFERENCE)
        return message.flags(False).small(0, 2).flags(False).small(0, 2)

    return _signal(SETUP, SETUP_BODY, content)


def _connect(h245: Address | None) -> bytes:
    """Connect-UUIE."""

    def content(message: Packed) -> Packed:
        message.flags(False).flags(h245 is not None).counted(VERSION)
        if h245 is not None:
            _transport_address(message, h245)
        return _terminal(message).octets(CONFERENCE)

    return _signal(CONNECT, CONNECT_BODY, content)


# --- control ---------------------------------------------------------------------------------


def _open_channel(rtcp: Address) -> bytes:
    """OpenLogicalChannel for audio; the sender of it takes RTCP at that address."""
    parameters = Packed().flags(False).flags(*(i == 4 for i in range(10))).byte(AUDIO_SESSION)
    _unicast_address(parameters, rtcp)
    message = Packed().flags(False).small(0, 2)  # a request
    message.flags(False).small(3, 4)  # openLogicalChannel
    message.flags(False, False).word(0)  # the first channel there is
    message.flags(False, False)
    message.flags(False).small(3, 3).flags(False).small(3, 4).byte(19)  # G.711, 20 frames
    # The parameters of H.225.0 came to H.245 as an extension: the first one.
    message.flags(True, False).small(0, 6).counted(parameters.encoded())
    return _tpkt(message.encoded())


def _open_channel_ack(rtp: Address, rtcp: Address) -> bytes:
    """OpenLogicalChannelAck: the sender of it takes RTP and RTCP at those addresses."""
    parameters = Packed().flags(False)  # the one choice there is
    parameters.flags(False).flags(False, True, True, True, False).small(AUDIO_SESSION - 1, 8)
    _unicast_address(_unicast_address(parameters, rtp), rtcp)
    message = Packed().flags(False).small(1, 2)  # a response
    message.flags(False).small(5, 5)  # openLogicalChannelAck
    message.flags(True, False).word(0)
    # Of four extensions the second one: forwardMultiplexAckParameters.
    message.flags(False).small(3, 6).flags(False, True, False, False)
    message.counted(parameters.encoded())
    return _tpkt(message.encoded())


# --- registration ----------------------------------------------------------------------------


def _addresses(message: Packed, *addresses: Address) -> Packed:
    message.byte(len(addresses))
    for address in addresses:
        _transport_address(message, address)
    return message


def _registration(signalling: Address, ras: Address) -> bytes:
    """RegistrationRequest of a terminal that takes calls at that address."""
    message = Packed().flags(False).small(REGISTRATION_REQUEST, 5)
    message.flags(False).flags(False, False, False).word(0).counted(VERSION).flags(True)
    _addresses(message, signalling)
    _terminal(_addresses(message, ras))
    # The vendor: country, extension and manufacturer of T.35.
    message.flags(False).flags(False, False).flags(False).byte(181).byte(0).word(1)
    return message.encoded()


def _registered(signalling: Address) -> bytes:
    """RegistrationConfirm of a gatekeeper that takes calls at that address."""
    message = Packed().flags(False).small(REGISTRATION_CONFIRM, 5)
    message.flags(False).flags(False, False, False).word(0).counted(VERSION)
    _addresses(message, signalling)
    return message.small(0, 7).octets("1".encode("utf-16-be")).encoded()


# --- conversations ---------------------------------------------------------------------------


def _heard(told: bytes, heard: bytes, address: Address) -> Address:
    """What came of an address on its way: messages keep their length."""
    packed = _packed(address)
    if len(told) != len(heard):
        raise SilenceError(f"{told!r} became {heard!r}")
    start = told.index(packed)
    found = heard[start : start + len(packed)]
    return str(ip_address(found[:-2])), int.from_bytes(found[-2:])


def _own(end: End, opened: socket.socket) -> Address:
    return end.address, port_of(opened)


def call(talk: Talk) -> Iterator[Flow]:
    """The caller dials; the callee names its H.245 port, and media are agreed on there."""
    line = talk.line
    client, server = talk.control()
    talk.carry(client, server, _setup(None))
    waiting = talk.listener(line.server)
    yield from _controlled(talk, server, client, line.server, waiting, _connect)


def call_with_control_at_caller(talk: Talk) -> Iterator[Flow]:
    """The caller names an H.245 port in its setup, and the callee connects there."""
    line = talk.line
    client, server = talk.control()
    waiting = talk.listener(line.client)
    yield from _controlled(talk, client, server, line.client, waiting, _setup)


def registered(talk: Talk) -> Iterator[Flow]:
    """A terminal registers with a gatekeeper, which then calls it; media follow."""
    line = talk.line
    gatekeeper = talk.datagrams(line.server, talk.port.own)
    terminal = talk.datagrams(line.client)
    ringing = talk.listener(line.client)
    own = _own(line.client, ringing)
    told = _registration(own, _own(line.client, terminal))
    heard, source = talk.deliver(terminal, (line.dialled, talk.port.dialled), gatekeeper, told)
    talk.agree("the terminal's address", source[0], line.caller)
    talk.deliver(gatekeeper, source, terminal, _registered((line.server.address, 1720)))
    target = talk.named("the terminal's signal address", _heard(told, heard, own), line.client)
    try:
        with talk.announced():
            caller = talk.connected(line.server, target)
            callee, seen = talk.accepted(ringing)
            talk.agree("the gatekeeper's address", seen[0], line.dialled)
            talk.carry(caller, callee, _setup(None))
    except SilenceError:
        yield Flow("an incoming call (Q.931)", False)
        return
    yield Flow("an incoming call (Q.931)", True)
    waiting = talk.listener(line.client)
    yield from _controlled(talk, callee, caller, line.client, waiting, _connect)


def _controlled(
    talk: Talk,
    teller: socket.socket,
    hearer: socket.socket,
    owner: End,
    waiting: socket.socket,
    message: Callable[[Address], bytes],
) -> Iterator[Flow]:
    """One end names its H.245 port in a message; the other connects, and opens a channel."""
    line = talk.line
    opener = line.other(owner)
    own = _own(owner, waiting)
    told = message(own)
    target = talk.named(
        "the H.245 address", _heard(told, talk.carry(teller, hearer, told), own), owner
    )
    name = f"H.245, opened by the {'client' if opener is line.client else 'server'}"
    try:
        with talk.announced():
            here = talk.connected(opener, target)
            there, seen = talk.accepted(waiting)
            talk.agree(f"{name}: the source", seen[0], line.known_by_other(opener))
            channel = _channel(talk, opener, owner, here, there)
    except SilenceError:
        yield Flow(name, False)
        return
    yield Flow(name, True)
    for flow in channel:
        yield flow()


def _channel(
    talk: Talk, opener: End, owner: End, here: socket.socket, there: socket.socket
) -> tuple[Callable[[], Flow], ...]:
    """The opener offers audio and the owner of the H.245 port takes it; what both then send.

    Raises SilenceError where they cannot agree.
    """
    sends, controls = talk.pair_of_datagrams(opener)
    takes, is_controlled = talk.pair_of_datagrams(owner)
    offered = _own(opener, controls)
    told = _open_channel(offered)
    heard = talk.carry(here, there, told)
    offered = talk.named("the offered channel", _heard(told, heard, offered), opener)
    rtp, rtcp = _own(owner, takes), _own(owner, is_controlled)
    told = _open_channel_ack(rtp, rtcp)
    heard = talk.carry(there, here, told)
    rtp = talk.named("the channel taken", _heard(told, heard, rtp), owner)
    rtcp = talk.named("its control", _heard(told, heard, rtcp), owner)
    return (
        lambda: talk.udp_flow("RTP", sends, rtp, takes),
        lambda: talk.udp_flow("RTCP, of the sender", controls, rtcp, is_controlled),
        lambda: talk.udp_flow("RTCP, of the receiver", is_controlled, offered, controls),
    )
