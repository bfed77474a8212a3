"""Zones as they are told by addresses alone, where the way out says nothing.

A zone means its networks then or, where it has none, every address that is in no other zone's
networks (LANGUAGE 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from policylang.model.types import AnyEnd, End, EndElement, EndList, SelfEnd, Zone, ZoneEnd
from policylang.packets.values import ADDRESSES, Ranges


def by_address(end: End, zones: tuple[Zone, ...]) -> End:
    """An end whose zones are known by addresses alone."""
    return End(tuple(_list_by_address(one, zones) for one in end.lists))


def _list_by_address(one: EndList, zones: tuple[Zone, ...]) -> EndList:
    return replace(
        one,
        elements=_all_by_address(one.elements, zones),
        exceptions=_all_by_address(one.exceptions, zones),
    )


def _all_by_address(
    elements: Iterable[EndElement], zones: tuple[Zone, ...]
) -> tuple[EndElement, ...]:
    return tuple(_element_by_address(element, zones) for element in elements)


def _element_by_address(element: EndElement, zones: tuple[Zone, ...]) -> EndElement:
    if isinstance(element, (AnyEnd, SelfEnd)):
        return element
    within = tuple(_zone_by_address(zone, zones) for zone in element.within)
    if isinstance(element, ZoneEnd):
        return ZoneEnd(_zone_by_address(element.zone, zones), within)
    return replace(element, within=within)


def _zone_by_address(zone: Zone, zones: tuple[Zone, ...]) -> Zone:
    """A zone as it is told from a destination before routing."""
    networks = zone.networks
    if networks is None:
        networks = ADDRESSES
        for other in zones:
            if other.name != zone.name and other.networks is not None:
                networks = networks - other.networks
    if zone.interfaces is not None and not zone.interfaces:
        networks = Ranges()  # of no interface: nobody is there
    return replace(zone, interfaces=None, networks=networks)
