"""A list of ports, types or protocols while it is read: later elements may go on with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from policylang.model.services import Services, icmp_traffic
from policylang.model.types import Traffic
from policylang.packets.values import Range, Ranges
from policylang.syntax import tree


@dataclass(slots=True)
class OpenList:
    """A list of ports, types or protocols that later elements may go on with."""

    protocol: str  # tcp, udp, sctp, dccp, icmp, icmpv6 or protocol
    start: tree.Node
    elements: list[Range] = field(default_factory=list)
    exceptions: list[Range] = field(default_factory=list)
    in_except: bool = False
    wants_exception: bool = False  # `except` stands last: what follows must be ports

    @property
    def takes_ports(self) -> bool:
        return self.protocol not in ("icmp", "icmpv6", "protocol")

    def add(self, pair: Range) -> None:
        (self.exceptions if self.in_except else self.elements).append(pair)

    def traffic(self, services: Services) -> Traffic:
        values = Ranges.merged(self.elements) - Ranges.merged(self.exceptions)
        if self.takes_ports:
            return services.port_traffic(self.protocol, values, None)
        if self.protocol == "protocol":
            return Traffic(protocols=values)
        return icmp_traffic(self.protocol, values, None)
