"""A host among several, and what questions and addresses are as it sees them.

It knows which addresses are behind which interface, by the networks of zones, and no rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from policylang.analysis.machine import Machine
from policylang.model.policy import Policy
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    End,
    EndElement,
    HostEnd,
    PolicyRule,
    SelfEnd,
    ZoneEnd,
)
from policylang.packets.values import ADDRESSES, Ranges


@dataclass(frozen=True, slots=True)
class OneHost:
    """A host: its addresses, its policy, and its rules, one line a statement."""

    name: str
    addresses: Ranges
    is_gateway: bool
    policy: Policy
    machine: Machine


def by_its_way(host: OneHost, rule: PolicyRule) -> PolicyRule:
    """A question in which others are in the zones in which their addresses are."""
    return replace(
        rule,
        source=_in_zones(host, rule.source),
        destination=_in_zones(host, rule.destination),
    )


def _in_zones(host: OneHost, end: End) -> End:
    zones = [zone for zone in host.policy.zones if zone.interfaces is not None]
    if not zones:
        return end
    known = Ranges.merged(pair for zone in zones for pair in zone.networks or ())

    def placed(element: EndElement) -> Iterator[EndElement]:
        match element:
            case AnyEnd():
                yield SelfEnd()
                yield from map(ZoneEnd, zones)
            case AddressEnd(addresses, ()):
                yield from within(addresses)
            case HostEnd(others=others, within=()):
                yield replace(element, others=Ranges())
                yield from within(others)
            case _:
                yield element

    def within(addresses: Ranges) -> Iterator[EndElement]:
        for zone in zones:
            there = addresses - known if zone.networks is None else addresses & zone.networks
            if there:
                yield AddressEnd(there, (zone,))

    return End(
        tuple(
            replace(one, elements=tuple(e for old in one.elements for e in placed(old)))
            for one in end.lists
        )
    )


def seen_from(host: OneHost, rule: PolicyRule) -> PolicyRule:
    """A question in which this host's own addresses are its own, however they are named."""

    def seen(element: EndElement) -> EndElement:
        if not isinstance(element, AddressEnd) or element.within:
            return element
        own = element.addresses & host.addresses
        return HostEnd(own, element.addresses - own, is_passed=True)

    return with_elements(rule, seen)


def with_elements(rule: PolicyRule, become: Callable[[EndElement], EndElement]) -> PolicyRule:
    """A question with other elements at its ends, among the exceptions too."""

    def changed(end: End) -> End:
        return End(
            tuple(
                replace(
                    one,
                    elements=tuple(map(become, one.elements)),
                    exceptions=tuple(map(become, one.exceptions)),
                )
                for one in end.lists
            )
        )

    return replace(rule, source=changed(rule.source), destination=changed(rule.destination))


def in_zones(hosts: Iterable[OneHost]) -> dict[str, Ranges]:
    """The addresses that are in zones, by their names, as all hosts together have them.

    Of a zone without networks it is every address that is in no other one's, as in `beyond`.
    """
    found: dict[str, Ranges] = {}
    for host in hosts:
        zones = host.policy.zones
        named = (z.networks for z in zones if z.interfaces is not None and z.networks is not None)
        left = ADDRESSES - Ranges.merged(pair for networks in named for pair in networks)
        for zone in zones:
            there = left if zone.networks is None else zone.networks
            found[zone.name] = found.get(zone.name, Ranges()) | (there - host.addresses)
    return found


def beyond(host: OneHost) -> Iterator[tuple[Ranges, Ranges]]:
    """The interfaces of a host's zones, each with the addresses that are beyond them."""
    left, others = ADDRESSES, Ranges()
    for zone in host.policy.zones:
        if zone.interfaces is None:
            continue
        if zone.networks is None:
            others = others | zone.interfaces
        else:
            left = left - zone.networks
            yield zone.interfaces, zone.networks
    if others:
        yield others, left
