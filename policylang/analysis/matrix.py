"""Who reaches what, all at once: from each zone to each zone and to this host, by services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.analysis.machine import Machine
from policylang.analysis.questions import Answer, Beginnings
from policylang.lower.asked import Asking
from policylang.lower.paths import LOOPBACK
from policylang.model.policy import Policy
from policylang.model.translations import Clamp, Netmap, Offloading
from policylang.model.types import (
    AnyEnd,
    End,
    EndElement,
    EndList,
    NativeRule,
    PolicyRule,
    SelfEnd,
    Traffic,
    Verb,
    Zone,
    ZoneEnd,
)
from policylang.packets.fields import Field
from policylang.packets.values import Ranges, name_pattern
from policylang.source import SourceFile, Span

SELF, ANY = "self", "any"


@dataclass(frozen=True, slots=True)
class Service:
    """What a column is about, by the name that it has there."""

    name: str
    what: tuple[Traffic, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """From one end to the other: an answer for each service, None where no packet goes there."""

    source: str
    destination: str
    answers: tuple[Answer | None, ...]


def mentioned(policy: Policy) -> tuple[Service, ...]:
    """The services that a policy speaks of, by name, in the order in which it names them."""
    found: dict[str, dict[Traffic, None]] = {}
    for statement in policy.statements:
        if isinstance(statement, NativeRule | Clamp | Netmap | Offloading):
            continue
        for traffic in statement.what:
            if traffic.service is not None:
                found.setdefault(traffic.service, {})[traffic] = None
    return tuple(Service(name, tuple(traffic)) for name, traffic in found.items())


def interfaces_of(machine: Machine) -> tuple[Zone, ...]:
    """The interfaces that rules name, a zone for each name or pattern, where there are no zones."""
    found: dict[str, Zone] = {}
    nowhere = Span(SourceFile("", ""), 0, 0)
    for lines in machine.chains.values():
        for cube in (cube for line in lines for cube in line.cubes):
            for f, values in cube:
                for pair in values if f in (Field.IIF, Field.OIF) else ():
                    name = name_pattern(*pair)
                    if name and name not in (LOOPBACK, "*"):
                        found.setdefault(name, Zone(name, Ranges((pair,)), None, nowhere))
    return tuple(found[name] for name in sorted(found))


def matrix(
    zones: Iterable[Zone], services: Iterable[Service], asking: Asking, beginnings: Beginnings
) -> Iterator[Row]:
    """The rows of the table: every zone, and this host, to every other and to each zone itself.

    Without zones the ends are `any` and `self`. Raises `TooLargeError`.
    """
    columns = tuple(services)
    ends: dict[str, EndElement] = {zone.name: ZoneEnd(zone) for zone in zones}
    if not ends:
        ends = {ANY: AnyEnd()}
    ends[SELF] = SelfEnd()
    for source, start in ends.items():
        for destination, goal in ends.items():
            if source == destination == SELF:
                continue
            yield Row(
                source,
                destination,
                tuple(
                    _answer(_question(service, start, goal), asking, beginnings)
                    for service in columns
                ),
            )


def _answer(question: PolicyRule, asking: Asking, beginnings: Beginnings) -> Answer | None:
    return beginnings.quick_answer(asking.asked(question))


def _question(service: Service, source: EndElement, destination: EndElement) -> PolicyRule:
    nowhere = Span(SourceFile("", ""), 0, 0)
    return PolicyRule(
        Verb.ALLOW,
        service.what,
        End((EndList((source,)),)),
        End((EndList((destination,)),)),
        None,
        None,
        None,
        nowhere,
    )
