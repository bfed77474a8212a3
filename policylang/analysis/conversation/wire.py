"""A packet as it is on the wire, and what it says; knows no firewall.

Addresses are the numbers of `packets.values`, ports the protocols' own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP
from policylang.packets.values import V6_BASE, format_address

GRE = 47
IGMP = 2

PROTOCOL_NAMES = {
    ICMP: "icmp",
    IGMP: "igmp",
    TCP: "tcp",
    UDP: "udp",
    DCCP: "dccp",
    GRE: "gre",
    ICMPV6: "icmpv6",
    SCTP: "sctp",
}


class Style(StrEnum):
    """How a message writes an address and a port."""

    COMMAS = "commas"  # RFC 959: h1,h2,h3,h4,p1,p2
    EXTENDED = "extended"  # RFC 2428: |1|address|port|
    PORT_ALONE = "port alone"  # RFC 2428, of EPSV: |||port|
    SDP = "sdp"  # RFC 4566: c= and m=
    CONTACT = "contact"  # RFC 3261: sip:name@address:port
    DCC = "dcc"  # the address as one number
    NUMBER = "number"  # the port alone, in digits
    NAMED = "named"  # address:port, as people write what a binary message says


@dataclass(frozen=True, slots=True)
class Offer:
    """What a message says of where its sender waits for a further connection."""

    style: Style
    address: int
    port: int

    @property
    def text(self) -> str:
        """The offer as the message writes it."""
        address = format_address(self.address)
        is_v6 = self.address >= V6_BASE
        match self.style:
            case Style.COMMAS:
                high, low = divmod(self.port, 256)
                return f"{address.replace('.', ',')},{high},{low}"
            case Style.EXTENDED:
                return f"|{2 if is_v6 else 1}|{address}|{self.port}|"
            case Style.PORT_ALONE:
                return f"|||{self.port}|"
            case Style.SDP:
                return f"c=IN IP{6 if is_v6 else 4} {address}, m=audio {self.port}"
            case Style.CONTACT:
                host = f"[{address}]" if is_v6 else address
                return f"sip:phone@{host}:{self.port}"
            case Style.DCC:
                return f"{self.address} {self.port}"
            case Style.NUMBER:
                return f"{self.port}"
            case Style.NAMED:
                return f"[{address}]:{self.port}" if is_v6 else f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Message:
    """What a packet carries: `kind` is what helpers tell it by.

    `pattern` is its text, with `{}` for each of `offers`, in order.
    """

    kind: str
    pattern: str
    offers: tuple[Offer, ...] = ()

    @property
    def text(self) -> str:
        return self.pattern.format(*(offer.text for offer in self.offers))


@dataclass(frozen=True, slots=True)
class Flow:
    """What tells the packets of one direction of a connection (struct nf_conntrack_tuple).

    Of ICMP the first port is the identifier and the second the type; of GRE both are call numbers,
    as PPTP has them.
    """

    protocol: int
    source: int
    source_port: int
    destination: int
    destination_port: int

    @property
    def inverted(self) -> Flow:
        """The flow of the answers."""
        if self.protocol in ECHOES:
            asked = ECHOES[self.protocol]
            types = asked | {answer: question for question, answer in asked.items()}
            icmp_type = types.get(self.destination_port, self.destination_port)
            return Flow(self.protocol, self.destination, self.source_port, self.source, icmp_type)
        return Flow(
            self.protocol, self.destination, self.destination_port, self.source, self.source_port
        )


# What asks and what answers it: echo, and of ICMP timestamp, information and address mask
# (`icmp_invmap` of nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c).
ECHOES = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMPV6: {128: 129, 139: 140}}


@dataclass(frozen=True, slots=True)
class Wire:
    """One packet. `about` is the packet that an ICMP error quotes.

    `ports` are of what has them, of GRE its call numbers; of ICMP `icmp_type` and `identifier`.
    `flags` are the TCP flags. A packet that `is_broken` fits no connection: a wrong
    checksum, a sequence number out of the window.
    """

    family: int
    protocol: int
    source: int
    destination: int
    ports: tuple[int, int] | None = None
    flags: int = 0
    icmp_type: int | None = None
    identifier: int = 0
    message: Message | None = None
    about: Wire | None = None
    size: int = 60
    is_broken: bool = False

    @property
    def flow(self) -> Flow:
        """The flow that the packet belongs to."""
        if self.ports is not None:
            first, second = self.ports
        else:
            first, second = self.identifier, self.icmp_type or 0
        return Flow(self.protocol, self.source, first, self.destination, second)

    def with_ends(
        self,
        *,
        source: tuple[int, int] | None = None,
        destination: tuple[int, int] | None = None,
    ) -> Wire:
        """The packet with another source or destination: an address and a port.

        What has no ports keeps what it has in their place.
        """
        changed = self
        if source is not None:
            changed = replace(changed, source=source[0])
            if changed.ports is not None:
                changed = replace(changed, ports=(source[1], changed.ports[1]))
        if destination is not None:
            changed = replace(changed, destination=destination[0])
            if changed.ports is not None:
                changed = replace(changed, ports=(changed.ports[0], destination[1]))
        return changed
