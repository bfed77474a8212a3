"""What is proved: each service with a helper, the conversations that need it, and what cannot be.

Data alone; the words in it are the page's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.kernel.ground import Family

from . import amanda, broadcast, ftp, h323, irc, pptp, sane, sip, tftp
from .places import MASQUERADE, Place
from .talk import Conversation, Ports


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation, and what it shows."""

    title: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Gap:
    """Where something cannot be had, and why. It is tried all the same where it makes sense."""

    places: tuple[Place, ...]
    families: tuple[Family, ...]
    reason: str
    is_tried: bool


@dataclass(frozen=True, slots=True)
class Besides:
    """A statement that a user has to write besides, and why."""

    statement: str
    reason: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A service with its helper: its ports, in the language's words, and where it is offered.

    On another port it is a service of the policy's own, named `other`. `is_own` is one that is of
    the policy's own everywhere. `also` is what a user has to write besides.
    """

    helper: str
    service: str
    ports: str
    port: int
    other: str
    other_ports: str
    other_port: int
    peers: str
    rows: tuple[Row, ...]
    families: tuple[Family, ...] = tuple(Family)
    is_own: bool = False
    also: Mapping[Place, Besides] = field(default_factory=lambda: MappingProxyType({}))
    gaps: tuple[Gap, ...] = ()

    def dialled(self, place: Place) -> Ports:
        """The port that the client dials at that place, and the server's own."""
        return Ports(self.other_port if place is Place.DNAT_PORT else self.port, self.port)

    def gap(self, place: Place, family: Family) -> Gap | None:
        """What cannot be had at that place over that family, if so."""
        found = (g for g in self.gaps if place in g.places and family in g.families)
        return next(found, None)

    def tried(self, place: Place) -> tuple[Family, ...]:
        """The families over which it is tried at that place."""
        gaps = {family: self.gap(place, family) for family in self.families}
        return tuple(f for f, gap in gaps.items() if gap is None or gap.is_tried)

    def definitions(self, place: Place, *, has_helper: bool) -> str:
        """What the policy says about the service; nothing where the catalogue's own is meant."""
        is_other = place is Place.DNAT_PORT
        if has_helper and not is_other and not self.is_own:
            return ""
        name, ports = (self.other, self.other_ports) if is_other else (self.service, self.ports)
        return f"service {name} {{ {ports}{f'  helper {self.helper}' * has_helper} }}\n"

    def statements(self, place: Place) -> str:
        """What the policy says with the service."""
        service = self.other if place is Place.DNAT_PORT else self.service
        said = place.statements(service, self.tried(place), self.port)
        besides = self.also.get(place)
        return said + (besides.statement if besides else "")


TRANSLATED = (Place.MASQUERADED, Place.DNAT, Place.DNAT_PORT)
PUBLISHED = (Place.DNAT, Place.DNAT_PORT)
ELSEWHERE = tuple(place for place in Place if place is not Place.OUTBOUND)

BROADCASTS = Gap(
    ELSEWHERE,
    (Family.IPV4,),
    "broadcasts are not routed, and the kernel heeds those of this host itself alone",
    is_tried=False,
)

OWN_CONNECTIONS = MappingProxyType(
    dict.fromkeys(
        PUBLISHED,
        Besides(
            MASQUERADE[Family.IPV4],
            "with `masquerade from lan to wan` besides: of what the side of the server opens the "
            "kernel translates nothing by itself",
        ),
    )
)
H323_GAP = Gap(
    TRANSLATED,
    (Family.IPV6,),
    "the kernel's translation of H.323 is for IPv4 alone: addresses in messages stay as they are",
    is_tried=True,
)

TRANSFER = (
    Subject(
        helper="ftp",
        service="ftp",
        ports="tcp 21",
        port=21,
        other="ftp-alt",
        other_ports="tcp 2121",
        other_port=2121,
        peers="both ends emulated; real ones below",
        rows=(
            Row("passive transfers (PASV, EPSV)", ftp.passive),
            Row("active transfers (PORT, EPRT)", ftp.active),
        ),
    ),
    Subject(
        helper="tftp",
        service="tftp",
        ports="udp 69",
        port=69,
        other="tftp-alt",
        other_ports="udp 6969",
        other_port=6969,
        peers="both ends emulated; real ones below",
        rows=(Row("reading a file", tftp.read), Row("writing a file", tftp.write)),
    ),
    Subject(
        helper="amanda",
        service="amanda",
        ports="udp 10080  tcp 10080",
        port=10080,
        other="amanda-alt",
        other_ports="udp 11080",
        other_port=11080,
        peers="both ends emulated",
        rows=(Row("a backup with its three connections", amanda.backup),),
    ),
    Subject(
        helper="sane",
        service="sane",
        ports="tcp 6566",
        port=6566,
        other="sane-alt",
        other_ports="tcp 7566",
        other_port=7566,
        peers="both ends emulated",
        rows=(Row("a scan, and the image fetched", sane.scan),),
    ),
)

TELEPHONY = (
    Subject(
        helper="sip",
        service="sip",
        ports="udp 5060  tcp 5060",
        port=5060,
        other="sip-alt",
        other_ports="udp 5070  tcp 5070",
        other_port=5070,
        peers="both ends emulated",
        rows=(
            Row("a call over UDP, RTP and RTCP from the caller first", sip.call),
            Row("a call over UDP, RTP and RTCP from the callee first", sip.early_media),
            Row("a call over TCP, RTP and RTCP from the caller first", sip.call_over_tcp),
            Row("a call over TCP, RTP and RTCP from the callee first", sip.early_media_over_tcp),
            Row("a registration, and a call that comes in by it", sip.registered),
        ),
    ),
    Subject(
        helper="h323",
        service="h323",
        ports="udp 1719  tcp 1720",
        port=1720,
        other="h323-alt",
        other_ports="tcp 2720",
        other_port=2720,
        peers="both ends emulated",
        rows=(
            Row("Q.931, H.245 opened by the caller, RTP and RTCP", h323.call),
            Row(
                "Q.931, H.245 opened by the callee, RTP and RTCP", h323.call_with_control_at_caller
            ),
        ),
        also=OWN_CONNECTIONS,
        gaps=(H323_GAP,),
    ),
    Subject(
        helper="h323",
        service="h323",
        ports="udp 1719  tcp 1720",
        port=1719,
        other="ras-alt",
        other_ports="udp 2719",
        other_port=2719,
        peers="both ends emulated",
        rows=(Row("RAS, and a call of the gatekeeper with all that follows", h323.registered),),
        also=OWN_CONNECTIONS,
        gaps=(H323_GAP,),
    ),
)

OTHERS = (
    Subject(
        helper="irc",
        service="irc",
        ports="tcp 6667",
        port=6667,
        other="irc-alt",
        other_ports="tcp 7000",
        other_port=7000,
        peers="both ends emulated; a real server below",
        rows=(Row("DCC chat and DCC file, offered by the client", irc.direct),),
        families=(Family.IPV4,),
    ),
    Subject(
        helper="pptp",
        service="pptp",
        ports="tcp 1723",
        port=1723,
        other="pptp-alt",
        other_ports="tcp 2723",
        other_port=2723,
        peers="both ends emulated",
        rows=(
            Row("GRE, from the client first", pptp.tunnel),
            Row("GRE, from the server first", pptp.tunnel_from_server),
        ),
        families=(Family.IPV4,),
    ),
    Subject(
        helper="netbios-ns",
        service="names",
        ports="udp 137",
        port=137,
        other="names-alt",
        other_ports="udp 1137",
        other_port=1137,
        peers="both ends emulated; real ones below",
        rows=(Row("a name asked for by broadcast, by no `answers from any`", broadcast.name),),
        families=(Family.IPV4,),
        is_own=True,
        gaps=(BROADCASTS,),
    ),
    Subject(
        helper="snmp",
        service="agents",
        ports="udp 161",
        port=161,
        other="agents-alt",
        other_ports="udp 1161",
        other_port=1161,
        peers="both ends emulated",
        rows=(
            Row("agents asked for by broadcast, by no `answers from any`", broadcast.system_name),
        ),
        families=(Family.IPV4,),
        is_own=True,
        gaps=(BROADCASTS,),
    ),
)
