"""The catalogue as the compiler understands it: what every service in it speaks of."""

from __future__ import annotations

from functools import cache

from policylang.diagnostics import Report
from policylang.model.elements import Elements
from policylang.model.protocols import PROTOCOLS
from policylang.model.scope import Scope
from policylang.model.services import Services
from policylang.packets.fields import PORTS
from policylang.packets.values import Ranges
from policylang.syntax import tree
from policylang.syntax.loader import load_catalogue

# Ports by the name of their protocol; protocols without ports have `NO_PORTS`.
Spoken = dict[str, Ranges]
NO_PORTS = Ranges()

NAMES = {number: name for name, number in reversed(PROTOCOLS.items())}


@cache
def loaded() -> tree.Loaded:
    """All of the catalogue, as written."""
    report = Report()
    result = load_catalogue(report)
    assert not report.diagnostics, report.diagnostics
    return result


@cache
def resolved() -> tuple[Services, Elements]:
    """The catalogue's services and groups, ready to be asked for."""
    report = Report()
    scope = Scope(loaded(), report)
    elements = Elements(scope, report)
    services = Services(scope, elements, report)
    for service in loaded().services.values():
        services.traffic_of(service, service.name)
    for group in loaded().sets.values():
        elements.set_value(group, group.name)
    assert not report.diagnostics, report.diagnostics
    return services, elements


def spoken_by(name: str) -> Spoken:
    """The ports and protocols of a service of the catalogue; ICMP types do not count."""
    services, _ = resolved()
    declaration = loaded().services[name]
    spoken: Spoken = {}
    for traffic in services.traffic_of(declaration, declaration.name):
        assert traffic.protocols is not None
        for low, high in traffic.protocols:
            for number in range(low, high + 1):
                protocol = NAMES.get(number, str(number))
                ports = traffic.ports if traffic.ports is not None else NO_PORTS
                spoken[protocol] = spoken.get(protocol, NO_PORTS) | ports
    return spoken


def addresses_of(name: str) -> Ranges:
    """The addresses of a group of the catalogue."""
    _, elements = resolved()
    declaration = loaded().sets[name]
    return elements.set_value(declaration, declaration.name).values


def all_spoken() -> dict[str, Spoken]:
    """What every service of the catalogue speaks of, by its name."""
    return {name: spoken_by(name) for name in loaded().services}


def ports(*numbers: int | tuple[int, int]) -> Ranges:
    """Ports and ranges of ports; raises AssertionError for what is no port."""
    found = Ranges.merged((n, n) if isinstance(n, int) else n for n in numbers)
    assert PORTS.covers(found), found
    return found
