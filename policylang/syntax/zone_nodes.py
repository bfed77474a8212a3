"""The nodes of zones, and of hosts, which have some."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.leaves import Address, Name, Node


@dataclass(frozen=True, slots=True)
class InterfaceItem(Node):
    """`interface eth0, "wlan*"`."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class NetworkItem(Node):
    """`network 192.0.2.0/24, some-set`."""

    elements: tuple[Address | Name, ...]


@dataclass(frozen=True, slots=True)
class ZoneDecl(Node):
    name: Name
    items: tuple[InterfaceItem | NetworkItem, ...]


@dataclass(frozen=True, slots=True)
class AddressItem(Node):
    """`address 10.0.2.10, 2001:db8::10` of a host."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class GatewayItem(Node):
    """`gateway`: the host passes on what goes from one host to another."""


HostItem = AddressItem | GatewayItem | ZoneDecl


@dataclass(frozen=True, slots=True)
class HostDecl(Node):
    """`host NAME { items }`."""

    name: Name
    items: tuple[HostItem, ...]

    @property
    def is_gateway(self) -> bool:
        return any(isinstance(item, GatewayItem) for item in self.items)

    @property
    def zones(self) -> tuple[ZoneDecl, ...]:
        return tuple(item for item in self.items if isinstance(item, ZoneDecl))
