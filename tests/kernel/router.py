"""A router between three zones, with machines that tell what they see, for policies to be applied.

It knows no statement of the language: which policy, and what comes of it, is said by the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .applied import apply_text
from .examples import forget_connections
from .ground import Addresses, Family, Ground, Loader, Namespace, Segment, family_of, ground
from .mirror import mirrors

ZONES = """\
zone wan { interface wan0 }
zone lan { interface lan0  network 198.51.100.0/24, 2001:db8:51::/64 }
zone dmz { interface dmz0  network 203.0.113.0/24, 2001:db8:113::/64 }
"""
SWITCH = "br0"  # where the machine in `lan` has its addresses
NAMES = ("wan", "lan", "dmz")


@dataclass(frozen=True, slots=True)
class Router:
    """A router that takes policies by one loader, each in place of the one before.

    `other` is a second machine on the wire of `lan`, under `other_addresses`.
    """

    laid: Ground
    loader: Loader
    directory: Path
    other: Namespace
    other_addresses: Addresses

    def apply(self, statements: str, zones: str = ZONES) -> None:
        """Apply a policy, its zones being there; no connection is open since.

        Raises `CommandError` with the compiler's words.
        """
        apply_text(zones + statements, self.loader, self.firewall, self.directory)
        self.forget()

    def forget(self) -> None:
        """Let no connection be open."""
        forget_connections(self.firewall)

    def inhabit(self, zone: str, *addresses: str) -> None:
        """Give the machine in a zone more addresses, which the router knows; none is its first."""
        segment = self.laid[zone]
        interface = SWITCH if zone == "lan" else "eth0"
        segment.neighbour.ip(*(secondary(address, interface) for address in addresses))
        self.firewall.ip(
            *(
                f"neigh replace {address} lladdr {segment.far_mac} dev {segment.interface}"
                " nud permanent"
                for address in addresses
            )
        )

    @property
    def firewall(self) -> Namespace:
        """The router itself."""
        return self.laid.firewall

    def client(self, zone: str) -> Namespace:
        """The machine in that zone."""
        return self.laid[zone].neighbour

    def near(self, zone: str, family: Family) -> str:
        """The router's address in that zone."""
        return self.laid[zone].near.of(family)

    def far(self, zone: str, family: Family) -> str:
        """The address of the machine in that zone."""
        return self.laid[zone].far.of(family)


@contextmanager
def router(loader: Loader, directory: Path, ports: tuple[int, ...]) -> Iterator[Router]:
    """Lay a router whose neighbours, and who itself, tell on these ports what they see.

    They are called by their zones, the router `self` and the second machine in `lan` `other`.
    """
    addresses = Addresses("198.51.100.3", "2001:db8:51::3")
    with ground(*NAMES) as laid, ExitStack() as stack:
        other = stack.enter_context(beside(laid, "lan", addresses))
        for name in NAMES:
            stack.enter_context(mirrors(laid[name].neighbour, name, ports))
        stack.enter_context(mirrors(other, "other", ports))
        stack.enter_context(mirrors(laid.firewall, "self", ports))
        yield Router(laid, loader, directory, other, addresses)


@contextmanager
def beside(laid: Ground, zone: str, addresses: Addresses) -> Iterator[Namespace]:
    """Put a second machine on the wire of a zone: the neighbour there is the switch as well."""
    segment, mac = laid[zone], "02:00:00:00:03:01"
    other = Namespace.create(f"{zone}-other")
    try:
        here = segment.neighbour
        here.ip(
            f"link add {SWITCH} address {segment.far_mac} type bridge",
            f"link set eth0 master {SWITCH}",
            f"link add port1 type veth peer name eth0 address {mac} netns {other.name}",
            f"link set port1 master {SWITCH}",
            f"link set {SWITCH} up",
            "link set port1 up",
            *(f"addr del {segment.far.of(family)}/{_length(family)} dev eth0" for family in Family),
            *(_address(segment.far, family, SWITCH) for family in Family),
            *_routes(segment, SWITCH),
            *_introduced(SWITCH, addresses, mac),
        )
        other.ip(
            "link set eth0 up",
            *(_address(addresses, family, "eth0") for family in Family),
            *_routes(segment, "eth0"),
            *_introduced("eth0", segment.far, segment.far_mac),
        )
        laid.firewall.ip(*_introduced(segment.interface, addresses, mac))
        yield other
    finally:
        other.delete()


def secondary(address: str, interface: str) -> str:
    """The `ip` command for one more address, by which nothing leaves unless it is bound to it."""
    if family_of(address) is Family.IPV4:
        return f"addr add {address}/32 dev {interface}"
    return f"addr add {address}/128 dev {interface} nodad preferred_lft 0"


def behind(segment: Segment, *addresses: str) -> None:
    """Let the neighbour take the firewall for whoever has these addresses, as on its own wire."""
    segment.neighbour.ip(
        *(f"neigh replace {a} lladdr {segment.near_mac} dev eth0 nud permanent" for a in addresses)
    )


def _length(family: Family) -> int:
    return 24 if family is Family.IPV4 else 64


def _address(addresses: Addresses, family: Family, interface: str) -> str:
    nodad = " nodad" if family is Family.IPV6 else ""
    return f"addr add {addresses.of(family)}/{_length(family)} dev {interface}{nodad}"


def _routes(segment: Segment, interface: str) -> Iterator[str]:
    yield from _introduced(interface, segment.near, segment.near_mac)
    for every, family in (("default", Family.IPV4), ("::/0", Family.IPV6)):
        yield f"route replace {every} via {segment.near.of(family)} dev {interface}"


def _introduced(interface: str, other: Addresses, mac: str) -> Iterator[str]:
    for family in Family:
        yield (f"neigh replace {other.of(family)} lladdr {mac} dev {interface} nud permanent")
