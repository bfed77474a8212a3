"""What is said in each kind of conversation, from the first packet to the last.

Acknowledgements that carry nothing else are left out, except where conntrack learns from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from policylang.analysis.completing import PORTED
from policylang.analysis.conversation.casting import ECHO_REQUEST
from policylang.analysis.conversation.playing import Died, End, Link, Stage
from policylang.analysis.conversation.story import Story
from policylang.analysis.conversation.wire import ECHOES, GRE, Message, Offer, Style, Wire
from policylang.analysis.conversation.world import Host
from policylang.packets import fields
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    TCP_ACK,
    TCP_SYN,
    UDP,
    State,
)
from policylang.packets.values import Ranges

CLIENT_PORT = 40_000  # of the range from which Linux draws (net.ipv4.ip_local_port_range)
DATA_PORT = 50_000  # where one waits for the second connection
FTP_DATA = 20  # RFC 959, from which a server opens active connections

FTP, TFTP, SIP, IRC, PPTP = "ftp", "tftp", "sip", "irc", "pptp"
SANE, AMANDA, H323, NETBIOS_NS, SNMP = "sane", "amanda", "h323", "netbios-ns", "snmp"
PLAIN, PACKET = "plain", "packet"


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation to play: `kind` is one of `KINDS`, `mode` one of those that it has.

    `client` begins it by dialling `dialled`; `protocol` and `port` are of the first connection.
    ICMP has a type in the place of the port. `client_port` is that from which it is opened, and
    `data_ports` are those on which further connections are waited for. A single packet may have
    `flags` and a `state` of its own, and be answered.
    """

    kind: str
    mode: str | None
    protocol: int
    port: int
    client: Host
    dialled: int
    client_port: int = CLIENT_PORT
    data_ports: Ranges | None = None
    flags: int | None = None
    state: State | None = None
    is_answered: bool = False

    @property
    def far(self) -> End:
        return (self.dialled, self.port)

    def waits_at(self, number: int = 0) -> int:
        """A port on which one waits for a further connection; another one for each number.

        They are even, so that the one behind each is free as well, where there is room.
        """
        ports = Ranges.between(DATA_PORT, 60_999) if self.data_ports is None else self.data_ports
        low, high = ports.pairs[0]
        if DATA_PORT in ports:
            low = DATA_PORT
        start = low + low % 2 if low < high else low
        return start + 2 * number if start + 2 * number + 1 <= high else start


def perform(stage: Stage, session: Session) -> Story:
    """Play a session to its end, or to the packet without which it does not go on."""
    try:
        _SCRIPTS[session.kind](stage, session)
    except Died as died:
        return stage.story(died.event)
    return stage.story(None)


def _say(text: str) -> Message:
    return Message(text.split(" ", 1)[0], text.replace("{", "{{").replace("}", "}}"))


# --- plain ------------------------------------------------------------------------------------


USUAL, TOO_BIG, UNREACHABLE = "usual", "too-big", "unreachable"  # the modes of plain exchanges


def _plain(stage: Stage, session: Session) -> None:
    """A request and its answer; with an error, what a machine on the way says about a packet."""
    match session.protocol:
        case fields.TCP:
            link = stage.connect("connection", session.client, session.client_port, session.far)
            stage.forth(link, _say("a request"))
            if _is_stopped(stage, session, link):
                return
            stage.back(link, _say("an answer"))
            stage.close(link)
        case fields.ICMP | fields.ICMPV6:
            is_echo = session.port == ECHO_REQUEST[session.protocol]
            _echo(stage, session, "echo" if is_echo else "message")
        case _:
            port = session.client_port if session.protocol in PORTED else 0
            link = stage.dial("exchange", session.protocol, session.client, port, session.far)
            stage.forth(link, _say("a question"))
            if not _is_stopped(stage, session, link):
                stage.back(link, _say("its answer"))


# What a router says of a packet: by family the type of ICMP (RFC 792, RFC 1191, RFC 4443).
_ERRORS = {
    TOO_BIG: ({4: 3, 6: 2}, "fragmentation needed, next-hop MTU 1400"),
    UNREACHABLE: ({4: 3, 6: 1}, "port-unreachable"),
}


def _is_stopped(stage: Stage, session: Session, link: Link) -> bool:
    """Let an error be told about the last packet, or about one of this host's own.

    Whether the exchange ends with it; what was too big is sent once more, in smaller pieces.
    """
    if session.mode not in _ERRORS:
        return False
    assert link.acceptor is not None
    if link.acceptor.is_firewall:
        stage.back(link, _say("a large answer"))
    types, text = _ERRORS[session.mode]
    about = stage.last.carried.last
    goal = stage.last.sender
    beyond = stage.last.receiver
    is_from_host = session.mode == UNREACHABLE
    teller = beyond if is_from_host else stage.neighbour(beyond, "router on the way")
    protocol = ICMP if link.family == 4 else ICMPV6
    source = about.destination if is_from_host else teller.address
    said = Message(session.mode, text)
    error = Wire(
        link.family,
        protocol,
        source,
        about.source,
        icmp_type=types[link.family],
        message=said,
        about=about,
        size=576,
    )
    stage.send("error", teller, goal, error)
    if session.mode == UNREACHABLE:
        return True
    (stage.back if link.acceptor.is_firewall else stage.forth)(link, _say("the same, smaller"))
    return link.protocol == TCP and link.acceptor.is_firewall


def _echo(stage: Stage, session: Session, label: str = "echo", *, is_answered: bool = True) -> None:
    family = 4 if session.protocol == ICMP else 6
    asked = Wire(
        family,
        session.protocol,
        session.client.address,
        session.dialled,
        icmp_type=session.port,
        identifier=4711,
        size=84,
    )
    goal = stage.expected_at(session.dialled, session.client)
    arrived = stage.send(label, session.client, goal, asked, state=session.state)
    answers = ECHOES[session.protocol]
    if session.port not in answers or not is_answered:
        return
    got = arrived.carried.last
    reply = Wire(
        family,
        session.protocol,
        stage.answers_from(arrived),
        got.source,
        icmp_type=answers[session.port],
        identifier=got.identifier,
        size=84,
    )
    stage.send(label, arrived.receiver, session.client, reply, state=_of_answer(session))


def _of_answer(session: Session) -> State | None:
    """The state of the answer, where it does not follow: of what is untracked both ways are."""
    return State.UNTRACKED if session.state is State.UNTRACKED else None


def _packet(stage: Stage, session: Session) -> None:
    """One packet, with the flags and the state that it is said to have, and perhaps an answer."""
    if session.protocol in ECHOES:
        _echo(stage, session, "packet", is_answered=session.is_answered)
        return
    port = session.client_port if session.protocol in PORTED else 0
    link = stage.dial("packet", session.protocol, session.client, port, session.far)
    flags = session.flags
    if flags is None and session.protocol == TCP:
        flags = TCP_SYN if session.state in (None, State.NEW, State.RELATED) else TCP_ACK
    stage.forth(link, flags=flags, state=session.state)
    if session.is_answered:
        answer = TCP_SYN | TCP_ACK if flags == TCP_SYN else TCP_ACK
        stage.back(link, flags=answer, state=_of_answer(session))


# --- file transfer ----------------------------------------------------------------------------


def _ftp(stage: Stage, session: Session) -> None:
    """RFC 959; over IPv6 and with addresses translated by RFC 2428."""
    control = stage.connect("control connection", session.client, session.client_port, session.far)
    stage.back(control, _say("220 ready"))
    stage.forth(control, _say("USER anonymous"))
    stage.back(control, _say("331 password?"))
    stage.forth(control, _say("PASS guest@"))
    stage.back(control, _say("230 logged in"))
    if session.mode == "active":
        data = _ftp_active(stage, session, control)
    else:
        data = _ftp_passive(stage, session, control)
    sender, close_by_opener = (
        (stage.forth, True)
        if session.mode == "active"
        else (
            stage.back,
            False,
        )
    )
    sender(data, _say("the listing"))
    stage.close(data, by_opener=close_by_opener)
    stage.back(control, _say("226 transfer complete"))
    stage.forth(control, _say("QUIT"))
    stage.back(control, _say("221 goodbye"))
    stage.close(control, by_opener=False)


def _ftp_passive(stage: Stage, session: Session, control: Link) -> Link:
    is_v6 = control.family == 6
    stage.forth(control, _say("EPSV" if is_v6 else "PASV"))
    place = control.place[0]
    style = Style.PORT_ALONE if is_v6 else Style.COMMAS
    offer = Offer(style, place, session.waits_at())
    if is_v6:
        reply = Message("229", "229 Entering Extended Passive Mode ({})", (offer,))
    else:
        reply = Message("227", "227 Entering Passive Mode ({})", (offer,))
    heard = stage.back(control, reply)
    assert heard is not None
    (told,) = heard.offers
    address = session.dialled if is_v6 else told.address
    data = stage.connect(
        "data connection", session.client, session.client_port + 2, (address, told.port)
    )
    stage.forth(control, _say("LIST"))
    stage.back(control, _say("150 here it comes"))
    return data


def _ftp_active(stage: Stage, session: Session, control: Link) -> Link:
    is_v6 = control.family == 6
    style = Style.EXTENDED if is_v6 else Style.COMMAS
    offer = Offer(style, session.client.address, session.waits_at())
    command = (
        Message("EPRT", "EPRT {}", (offer,)) if is_v6 else Message("PORT", "PORT {}", (offer,))
    )
    heard = stage.forth(control, command)
    assert heard is not None and control.acceptor is not None
    (told,) = heard.offers
    stage.back(control, _say("200 fine"))
    stage.forth(control, _say("LIST"))
    server = Host(control.acceptor.name, control.place[0], control.acceptor.interface)
    data = stage.connect("data connection", server, FTP_DATA, (told.address, told.port))
    stage.back(control, _say("150 here it comes"))
    return data


def _tftp(stage: Stage, session: Session) -> None:
    """RFC 1350: the server answers from a port of its own choice."""
    request = stage.dial("request", UDP, session.client, session.client_port, session.far)
    writes = session.mode == "write"
    kind = "WRQ" if writes else "RRQ"
    stage.forth(request, Message(kind, f"{kind} boot.img octet"))
    assert request.acceptor is not None
    server = Host(request.acceptor.name, request.place[0], request.acceptor.interface)
    transfer = stage.dial("transfer", UDP, server, session.waits_at(), request.seen)
    stage.forth(transfer, _say("ACK 0" if writes else "DATA block 1"))
    stage.back(transfer, _say("DATA block 1" if writes else "ACK 1"))
    stage.forth(transfer, _say("ACK 1" if writes else "DATA block 2, the last"))


# --- telephony --------------------------------------------------------------------------------


def _sip(stage: Stage, session: Session) -> None:
    """RFC 3261, RFC 4566: a call, and the voices of both sides (RTP, RTCP)."""
    if session.protocol == TCP:
        signalling = stage.connect("signalling", session.client, session.client_port, session.far)
    else:
        signalling = stage.dial("signalling", UDP, session.client, session.port, session.far)
    rtp = session.waits_at()
    own = Offer(Style.SDP, session.client.address, rtp)
    invited = stage.forth(signalling, Message("INVITE", "INVITE, {}", (own,)))
    stage.back(signalling, _say("180 Ringing"))
    theirs = Offer(Style.SDP, signalling.place[0], session.waits_at(2))
    accepted = stage.back(signalling, Message("200 INVITE", "200 OK, {}", (theirs,)))
    stage.forth(signalling, _say("ACK"))
    assert invited is not None and accepted is not None
    _media(stage, session.client, rtp, accepted.offers[0], invited.offers[0])
    stage.forth(signalling, _say("BYE"))
    stage.back(signalling, _say("200 OK"))


def _media(stage: Stage, caller: Host, rtp: int, told: Offer, heard: Offer) -> None:
    """Voices and reports, the caller's first; each side sends to where it was told to."""
    for label, plus in (("voice (RTP)", 0), ("reports (RTCP)", 1)):
        link = stage.dial(label, UDP, caller, rtp + plus, (told.address, told.port + plus))
        stage.forth(link, _say(f"{label} of the caller"))
        answer = _say(f"{label} of the callee")
        goal = (heard.address, heard.port + plus)
        if goal == link.seen:
            stage.back(link, answer)
            continue
        assert link.acceptor is not None
        callee = Host(link.acceptor.name, link.place[0], link.acceptor.interface)
        stage.forth(stage.dial(label, UDP, callee, link.place[1], goal), answer)


def _h323(stage: Stage, session: Session) -> None:
    """A call over Q.931, channels over H.245, and the voices."""
    call = stage.connect("call (Q.931)", session.client, session.client_port, session.far)
    stage.forth(call, Message("SETUP", "SETUP"))
    h245 = Offer(Style.NAMED, call.place[0], session.waits_at())
    heard = stage.back(call, Message("CONNECT", "CONNECT, H.245 at {}", (h245,)))
    assert heard is not None
    (told,) = heard.offers
    channels = stage.connect(
        "channels (H.245)", session.client, session.client_port + 2, (told.address, told.port)
    )
    rtp = session.waits_at(1)
    own = Offer(Style.NAMED, session.client.address, rtp)
    opened = stage.forth(channels, Message("OLC", "OpenLogicalChannel, RTP at {}", (own,)))
    theirs = Offer(Style.NAMED, channels.place[0], session.waits_at(2))
    agreed = stage.back(channels, Message("OLC", "OpenLogicalChannelAck, RTP at {}", (theirs,)))
    assert opened is not None and agreed is not None
    _media(stage, session.client, rtp, agreed.offers[0], opened.offers[0])


# --- chat, tunnels, scanning, backup -------------------------------------------------------------


def _irc(stage: Stage, session: Session) -> None:
    """A chat (DCC) that the client offers to another user, who takes it up."""
    link = stage.connect("chat server", session.client, session.client_port, session.far)
    stage.forth(link, _say("NICK me, USER me"))
    stage.back(link, _say("001 welcome"))
    offer = Offer(Style.DCC, session.client.address, session.waits_at())
    text = "PRIVMSG you :DCC CHAT chat {}"
    heard = stage.forth(link, Message("DCC", text, (offer,)))
    assert heard is not None and link.acceptor is not None
    (told,) = heard.offers
    if link.acceptor.is_firewall or link.place != session.far:
        other = Host(link.acceptor.name, link.place[0], link.acceptor.interface)  # a bot there
    else:
        other = stage.neighbour(link.acceptor, "other user")
    direct = stage.connect("direct chat", other, CLIENT_PORT, (told.address, told.port))
    stage.forth(direct, _say("hello"))


CALL_OF_CLIENT, CALL_OF_SERVER = 100, 200


def _pptp(stage: Stage, session: Session) -> None:
    """RFC 2637: a call is set up over TCP, and carried by GRE."""
    link = stage.connect("call control", session.client, session.client_port, session.far)
    stage.forth(link, _say("Start-Control-Connection-Request"))
    stage.back(link, _say("Start-Control-Connection-Reply"))
    ours = Offer(Style.NUMBER, session.client.address, CALL_OF_CLIENT)
    request = "Outgoing-Call-Request, call {}"
    stage.forth(link, Message("Outgoing-Call-Request", request, (ours,)))
    theirs = Offer(Style.NUMBER, link.place[0], CALL_OF_SERVER)
    reply = "Outgoing-Call-Reply, call {}"
    stage.back(link, Message("Outgoing-Call-Reply", reply, (theirs,)))
    far = (session.dialled, CALL_OF_SERVER)
    tunnel = stage.dial("tunnel (GRE)", GRE, session.client, CALL_OF_CLIENT, far)
    stage.forth(tunnel, _say("a packet of the tunnel"))
    stage.back(tunnel, _say("a packet of the tunnel"))


def _sane(stage: Stage, session: Session) -> None:
    """A scan, and the image fetched at a port that the server names."""
    link = stage.connect("scanner", session.client, session.client_port, session.far)
    stage.forth(link, Message("START", "SANE_NET_START"))
    offer = Offer(Style.NUMBER, link.place[0], session.waits_at())
    heard = stage.back(link, Message("START reply", "port {}", (offer,)))
    assert heard is not None
    (told,) = heard.offers
    image = stage.connect(
        "image", session.client, session.client_port + 2, (session.dialled, told.port)
    )
    stage.back(image, _say("the image"))


def _amanda(stage: Stage, session: Session) -> None:
    """A backup: the backup server asks, and connects to the ports that the machine names."""
    link = stage.dial("request", UDP, session.client, 999, session.far)
    stage.forth(link, _say("REQ"))
    offers = tuple(Offer(Style.NUMBER, link.place[0], session.waits_at(n)) for n in range(3))
    text = "CONNECT DATA {} MESG {} INDEX {}"
    heard = stage.back(link, Message("CONNECT", text, offers))
    assert heard is not None
    for number, (label, told) in enumerate(
        zip(("data", "messages", "index"), heard.offers, strict=True)
    ):
        near = session.client_port + 2 + number
        stream = stage.connect(label, session.client, near, (session.dialled, told.port))
        stage.back(stream, _say(label))


# --- broadcasts -------------------------------------------------------------------------------


def _broadcast(answers_from: int, text: str) -> Callable[[Stage, Session], None]:
    def script(stage: Stage, session: Session) -> None:
        """A question to a whole network, and the answer of one machine in it."""
        link = stage.dial("question", UDP, session.client, session.client_port, session.far)
        stage.forth(link, _say(text))
        assert link.acceptor is not None
        answering = stage.neighbour(link.acceptor, "a machine there")
        answer = stage.dial("answer", UDP, answering, answers_from, link.near)
        stage.forth(answer, _say("it is me"))

    return script


_SCRIPTS: Mapping[str, Callable[[Stage, Session], None]] = MappingProxyType(
    {
        PLAIN: _plain,
        PACKET: _packet,
        FTP: _ftp,
        TFTP: _tftp,
        SIP: _sip,
        IRC: _irc,
        PPTP: _pptp,
        SANE: _sane,
        AMANDA: _amanda,
        H323: _h323,
        NETBIOS_NS: _broadcast(137, "who has this name?"),
        SNMP: _broadcast(161, "which agents are there?"),
    }
)
KINDS = tuple(_SCRIPTS)
