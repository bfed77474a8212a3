"""Where the firewall stands between client and server, and what a user writes for it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from tests.kernel.ground import Addresses, Family, Ground

from .talk import End, Line

# Nothing passes but what the statement under test lets pass.
CLOSED = """\
zone wan { interface wan0 }
zone lan { interface lan0 }
default deny inbound
default deny outbound
default deny forward
"""

BEHIND = Addresses("198.51.100.2", "2001:db8:51::2")  # the machine in `lan`


class Place(Enum):
    """What the firewall is to the connection that carries the helper."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    FORWARDED = "forwarded"
    MASQUERADED = "masqueraded"
    DNAT = "behind dnat"
    DNAT_PORT = "on another port"

    @property
    def is_published(self) -> bool:
        """Whether the client dials the firewall and meets a machine behind it."""
        return self in (Place.DNAT, Place.DNAT_PORT)

    def line(self, laid: Ground, family: Family, patience_s: float) -> Line:
        """The two machines that talk, and how they know each other."""
        lan, wan, firewall = laid["lan"], laid["wan"], laid.firewall
        inside = End(lan.neighbour, lan.far.of(family))
        outside = End(wan.neighbour, wan.far.of(family))
        self_ = End(firewall, wan.near.of(family))
        match self:
            case Place.INBOUND:
                client, server, dialled, caller = outside, self_, self_, outside
            case Place.OUTBOUND:
                client, server, dialled, caller = self_, outside, outside, self_
            case Place.FORWARDED:
                client, server, dialled, caller = inside, outside, outside, inside
            case Place.MASQUERADED:
                client, server, dialled, caller = inside, outside, outside, self_
            case Place.DNAT | Place.DNAT_PORT:
                client, server, dialled, caller = outside, inside, self_, outside
        return Line(client, server, family, dialled.address, caller.address, patience_s)

    def statements(self, service: str, families: Iterable[Family], port: int) -> str:
        """The policy's statements for that service; `port` is the server's own."""
        targets = ", ".join(BEHIND.of(family) for family in families)
        match self:
            case Place.INBOUND:
                return f"allow {service} inbound from wan\n"
            case Place.OUTBOUND:
                return f"allow {service} outbound to wan\n"
            case Place.FORWARDED:
                return f"allow {service} from lan to wan\n"
            case Place.MASQUERADED:
                each = "".join(MASQUERADE[family] for family in families)
                return f"allow {service} from lan to wan\n{each}"
            case Place.DNAT:
                return f"dnat {service} from wan to {targets}\n"
            case Place.DNAT_PORT:
                return f"dnat {service} from wan to {targets} port {port}\n"


MASQUERADE = {
    Family.IPV4: "masquerade from lan to wan\n",
    Family.IPV6: "masquerade from lan to wan ipv6\n",
}
