"""Hosts, and zones of other hosts, as ends of rules, seen from the host that is meant."""

from __future__ import annotations

from policylang.model.elements import Elements
from policylang.model.types import HostEnd, Zone
from policylang.packets.values import Ranges
from policylang.syntax import tree


def hosts_end(elements: Elements, addresses: Ranges, within: tuple[Zone, ...]) -> HostEnd:
    """The end that hosts of these addresses are: this one among them by its own."""
    own = addresses & own_addresses(elements)
    return HostEnd(own, addresses - own, within, _is_gateway(_here(elements)))


def elsewhere_end(elements: Elements, name: tree.Name, within: tuple[Zone, ...]) -> HostEnd:
    """The end that a zone of other hosts is here: its networks.

    Nobody, unless every host that has such a zone tells by its networks who is in it.
    """
    zones, _ = elements.scope.loaded.elsewhere[name.text]
    told = [[item for item in z.items if isinstance(item, tree.NetworkItem)] for z in zones]
    nodes = (node for items in told if all(told) for item in items for node in item.elements)
    networks = elements.addresses(nodes)
    is_passed = _is_gateway(_here(elements))
    return HostEnd(Ranges(), networks, within, is_passed, name.text, name.span)


def own_addresses(elements: Elements) -> Ranges:
    """The addresses of the host that is meant; none where there is one firewall."""
    here = _here(elements)
    return Ranges() if here is None else elements.host_value(here)


def _here(elements: Elements) -> tree.HostDecl | None:
    name = elements.scope.loaded.here
    found = None if name is None else elements.scope.find(name)
    return found if isinstance(found, tree.HostDecl) else None


def _is_gateway(here: tree.HostDecl | None) -> bool:
    return here is not None and here.is_gateway
