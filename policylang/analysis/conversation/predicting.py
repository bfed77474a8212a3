"""What conntrack helpers read in packets, and what they expect because of it.

After net/netfilter/nf_conntrack_*.c and nf_nat_*.c, one function a helper. Which connections have
a helper is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from policylang.analysis.conversation.tracking import (
    ORIGINAL,
    REPLY,
    Connection,
    Expectation,
    Follow,
    Tracked,
    other,
)
from policylang.analysis.conversation.wire import GRE, Message, Offer, Style, Wire
from policylang.packets.fields import TCP, UDP, FlowDirection, State


@dataclass(frozen=True, slots=True)
class Reading:
    """What a helper made of a packet: what it expects, and the message as it goes on.

    `ignored` says why something that looks like an announcement was none, where it was not.
    """

    expects: tuple[Expectation, ...] = ()
    message: Message | None = None
    ignored: str | None = None


NOTHING = Reading()


@dataclass(frozen=True, slots=True)
class Heard:
    """A packet of a connection that has a helper, as the helper comes to see it.

    `prefix_len` is that of the network into which this host broadcasts the packet, None where it
    does not.
    """

    wire: Wire
    message: Message
    tracked: Tracked
    connection: Connection
    number: int
    prefix_len: int | None = None

    @property
    def direction(self) -> FlowDirection:
        return self.tracked.direction

    @property
    def is_established(self) -> bool:
        return self.tracked.state is State.ESTABLISHED

    @property
    def sender(self) -> int:
        """The address from which the sender of the packet speaks, in truth."""
        return self.connection.flow(self.direction).source

    @property
    def sender_seen(self) -> int:
        """The address by which the other end knows the sender."""
        return self.connection.flow(other(self.direction)).destination

    @property
    def receiver(self) -> int:
        """The address from which the other end answers, in truth."""
        return self.connection.flow(other(self.direction)).source


def read(heard: Heard) -> Reading:
    """What the connection's helper makes of a packet."""
    assert heard.connection.helper is not None
    reader = _READERS.get(heard.connection.helper)
    return NOTHING if reader is None else reader(heard)


def _awaits(heard: Heard, offer: Offer, protocol: int, follow: Follow) -> Reading:
    """The other end of the connection will connect to where the packet's sender waits.

    With translation it sees the sender under another address, and is told that one.
    """
    expectation = Expectation(
        heard.connection,
        protocol,
        heard.receiver,
        None,
        heard.sender_seen,
        offer.port,
        other(heard.direction),
        heard.number,
    )
    if not heard.connection.is_translated:
        return Reading((expectation,))
    followed = replace(expectation, saved=(heard.sender, offer.port), follow=follow)
    return Reading((followed,), _readdressed(heard.message, heard.sender, heard.sender_seen))


def _readdressed(message: Message, old: int, new: int) -> Message:
    """The message, with an address that the other end knows in the place of the true one."""
    offers = tuple(
        replace(offer, address=new) if offer.address == old else offer for offer in message.offers
    )
    return replace(message, offers=offers)


# --- file transfer ----------------------------------------------------------------------------

FTP_ANNOUNCEMENTS = {ORIGINAL: ("PORT", "EPRT"), REPLY: ("227", "229")}


def _ftp(heard: Heard) -> Reading:
    """nf_conntrack_ftp: who may connect is the other end, to the announcing one alone."""
    message = heard.message
    if not heard.is_established or message.kind not in FTP_ANNOUNCEMENTS[heard.direction]:
        return NOTHING
    (offer,) = message.offers
    if offer.style is not Style.PORT_ALONE and offer.address != heard.sender:
        return Reading(ignored="it names an address that is not the sender's")
    return _awaits(heard, offer, TCP, Follow.MASTER)


def _tftp(heard: Heard) -> Reading:
    """nf_conntrack_tftp: the server answers from a port of its choice."""
    if heard.message.kind not in ("RRQ", "WRQ"):
        return NOTHING
    connection = heard.connection
    answers = connection.answered
    expectation = Expectation(
        connection,
        UDP,
        answers.source,
        None,
        answers.destination,
        answers.destination_port,
        REPLY,
        heard.number,
    )
    if connection.is_translated:
        opened = connection.opened
        saved = (opened.source, opened.source_port)
        expectation = replace(expectation, saved=saved, follow=Follow.MASTER)
    return Reading((expectation,))


# --- telephony --------------------------------------------------------------------------------


def _sip(heard: Heard) -> Reading:
    """nf_conntrack_sip: media to where a description says, and calls to a registered phone.

    Both come from the other end of the connection, and go to its sender alone (sip_direct_media,
    sip_direct_signalling).
    """
    expects: list[Expectation] = []
    message = heard.message
    for offer in message.offers:
        if offer.style is Style.SDP and offer.address == heard.sender:
            for port in (offer.port, offer.port + 1):  # RTP and RTCP
                media = replace(offer, port=port)
                expects += _awaits(heard, media, UDP, Follow.ADDRESS).expects
        elif (message.kind, heard.direction) == ("REGISTER", ORIGINAL) and (
            offer.style is Style.CONTACT and offer.address == heard.sender
        ):
            heard.connection.memory["registers"] = str(offer.port)
    if message.kind == "200 REGISTER" and "registers" in heard.connection.memory:
        expects.append(_registered(heard))
    if not expects and not heard.connection.is_translated:
        return NOTHING
    told = message
    if heard.connection.is_translated:
        told = _readdressed(message, heard.sender, heard.sender_seen)
    return Reading(tuple(expects), told)


def _registered(heard: Heard) -> Expectation:
    """Signalling to the contact, once the registrar has agreed; it brings calls, with a helper."""
    connection = heard.connection
    port = int(connection.memory["registers"])
    opened, answers = connection.opened, connection.answered
    same_port = port == opened.source_port
    expectation = Expectation(
        connection,
        connection.opened.protocol,
        answers.source,
        None,
        answers.destination,
        answers.destination_port if same_port else port,
        REPLY,
        heard.number,
        helper=connection.helper,
        is_permanent=True,
    )
    if connection.is_translated:
        saved = (opened.source, port)
        expectation = replace(expectation, saved=saved, follow=Follow.ADDRESS)
    return expectation


def _of_h323(heard: Heard, offer: Offer, protocol: int) -> Reading:
    """As `_awaits`; its companion knows IPv4 alone, and senders who are translated themselves."""
    reading = _awaits(heard, offer, protocol, Follow.MASTER)
    if heard.wire.family == 4 and heard.sender != heard.sender_seen:
        return reading
    (expected,) = reading.expects
    return Reading((replace(expected, saved=None, follow=Follow.NOT),))


def _q931(heard: Heard) -> Reading:
    """nf_conntrack_h323: a call that is set up names where H.245 waits."""
    if heard.message.kind not in ("CONNECT", "SETUP") or not heard.message.offers:
        return NOTHING
    (offer,) = heard.message.offers
    reading = _of_h323(heard, offer, TCP)
    (expected,) = reading.expects
    return replace(reading, expects=(replace(expected, helper="H.245"),))


def _h245(heard: Heard) -> Reading:
    """Logical channels that are opened name where RTP and RTCP are waited for."""
    if not heard.message.offers:
        return NOTHING
    (offer,) = heard.message.offers
    first = _of_h323(heard, offer, UDP)
    second = _of_h323(heard, replace(offer, port=offer.port + 1), UDP)
    return replace(first, expects=(*first.expects, *second.expects))


# --- chat, tunnels, scanning, backup -------------------------------------------------------------


def _irc(heard: Heard) -> Reading:
    """nf_conntrack_irc: the client's offers alone, and anybody may answer them."""
    if heard.message.kind != "DCC" or heard.direction is REPLY or not heard.is_established:
        return NOTHING
    (offer,) = heard.message.offers
    if offer.address not in (heard.sender, heard.sender_seen):
        return Reading(ignored="it names an address that is not the sender's")
    reading = _awaits(heard, offer, TCP, Follow.MASTER)
    (expected,) = reading.expects
    return replace(reading, expects=(replace(expected, source=None),))


def _pptp(heard: Heard) -> Reading:
    """nf_conntrack_pptp: a call that is up is carried by GRE, either way, with two call numbers."""
    connection, message = heard.connection, heard.message
    if message.kind == "Outgoing-Call-Request" and heard.direction is ORIGINAL:
        connection.memory["call"] = str(message.offers[0].port)
    if message.kind != "Outgoing-Call-Reply" or "call" not in connection.memory:
        return NOTHING
    of_client, of_server = int(connection.memory["call"]), message.offers[0].port
    expects = []
    for direction in FlowDirection:
        flow = connection.flow(direction)
        ours, theirs = (of_client, of_server) if direction is ORIGINAL else (of_server, of_client)
        expectation = Expectation(
            connection, GRE, flow.source, ours, flow.destination, theirs, direction, heard.number
        )
        if connection.is_translated:
            saved = (connection.sent_on(direction).destination, theirs)
            expectation = replace(expectation, saved=saved, follow=Follow.MASTER)
        expects.append(expectation)
    return Reading(tuple(expects))


def _sane(heard: Heard) -> Reading:
    """nf_conntrack_sane: the client fetches the image at a port of the server.

    There is no companion for translations: rules translate the second connection by themselves.
    """
    memory = heard.connection.memory
    if not heard.is_established:
        return NOTHING
    if heard.direction is ORIGINAL:
        memory["asked"] = heard.message.kind
        return NOTHING
    if memory.get("asked") != "START" or heard.message.kind != "START reply":
        return NOTHING
    return Reading((_from_client(heard, heard.message.offers[0]),))


def _amanda(heard: Heard) -> Reading:
    """nf_conntrack_amanda: the backup server connects to the ports that its client names."""
    if heard.direction is ORIGINAL or heard.message.kind != "CONNECT":
        return NOTHING
    expects = [_from_client(heard, offer) for offer in heard.message.offers]
    connection = heard.connection
    if connection.is_translated:
        to = connection.sent_on(ORIGINAL).destination
        expects = [
            replace(e, saved=(to, e.destination_port), follow=Follow.MASTER) for e in expects
        ]
    return Reading(tuple(expects))


def _from_client(heard: Heard, offer: Offer) -> Expectation:
    """The client connects once more, to another port of what it dialled."""
    opened = heard.connection.opened
    return Expectation(
        heard.connection,
        TCP,
        opened.source,
        None,
        opened.destination,
        offer.port,
        ORIGINAL,
        heard.number,
    )


# --- broadcasts -------------------------------------------------------------------------------


def _broadcast(answers_from: int) -> Callable[[Heard], Reading]:
    """nf_conntrack_broadcast: what this host broadcasts is answered by machines of that network."""

    def reader(heard: Heard) -> Reading:
        if heard.prefix_len is None or heard.direction is REPLY:
            return NOTHING
        answers = heard.connection.answered
        return Reading(
            (
                Expectation(
                    heard.connection,
                    UDP,
                    answers.source,
                    answers_from,
                    answers.destination,
                    answers.destination_port,
                    REPLY,
                    heard.number,
                    source_prefix_len=heard.prefix_len,
                    is_permanent=True,
                ),
            )
        )

    return reader


# By the kernel's names of the helpers.
_READERS: Mapping[str, Callable[[Heard], Reading]] = {
    "ftp": _ftp,
    "tftp": _tftp,
    "sip": _sip,
    "irc": _irc,
    "pptp": _pptp,
    "sane": _sane,
    "amanda": _amanda,
    "Q.931": _q931,
    "H.245": _h245,
    "netbios-ns": _broadcast(137),
    "snmp": _broadcast(161),
}
