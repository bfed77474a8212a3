"""Rules that let the whole world do what other rules let some do alone."""

from __future__ import annotations

from policylang.analysis.lints.management import Ports, managed_ports
from policylang.analysis.lints.subject import FIRST, Subject
from policylang.analysis.machine import Hook
from policylang.diagnostics import Label, Report
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    End,
    EndElement,
    EndList,
    PolicyRule,
    SelfEnd,
    Verb,
    ZoneEnd,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import FAMILY_ADDRESSES, Field
from policylang.packets.values import Ranges

MOST_LABELS = 4


def find_wider(subject: Subject, report: Report) -> None:
    """Report each rule that lets anyone manage something: `wider-than-neighbours`."""
    known = managed_ports()
    managing = {
        rule.span: (rule, service)
        for rule in subject.policy.rules
        if rule.verb is Verb.ALLOW
        and not is_anyone(subject, rule.destination, but_self=True)
        and (service := _managed(rule, known)) is not None
    }
    wide = [(r, s) for r, s in managing.values() if is_anyone(subject, r.source)]
    narrow = [(r, s) for r, s in managing.values() if _is_someone(subject, r)]
    if not narrow:
        return
    for rule, service in wide:
        if not _reaches(subject, rule, known):
            continue
        report.add(
            "wider-than-neighbours",
            f"anyone may reach `{service}`, while other rules about such services name who may",
            rule.span,
            help="say who may: `from ADDRESSES`",
            labels=[
                Label(one.span, f"here `{of}` is for some alone")
                for one, of in narrow[:MOST_LABELS]
            ],
        )


def _managed(rule: PolicyRule, known: Ports) -> str | None:
    """What a rule speaks of by which something is managed."""
    for traffic in rule.what:
        protocol = None if traffic.protocols is None else traffic.protocols.single
        if protocol is None or traffic.ports is None:
            continue
        for (number, ports), service in known.items():
            if number == protocol and ports.covers(traffic.ports):
                return traffic.service or service
    return None


def is_anyone(subject: Subject, end: End, *, but_self: bool = False) -> bool:
    """Whether an end is the whole world, but for what it excepts; `but_self`: and not this host."""
    if but_self and any(isinstance(e, AnyEnd) for one in end.lists for e in one.elements):
        return False
    return all(
        any(_is_world(subject, e) for e in one.elements) and not _is_halved(one)
        for one in end.lists
    )


def _is_world(subject: Subject, element: EndElement) -> bool:
    match element:
        case AnyEnd():
            return True
        case ZoneEnd(zone, within):
            return not within and zone.name in subject.outward
        case _:
            return False


def _is_halved(one: EndList) -> bool:
    """Whether exceptions take most addresses of a family away, or another sort of end."""
    for element in one.exceptions:
        match element:
            case AddressEnd(addresses):
                for family in FAMILY_ADDRESSES.values():
                    if 2 * (addresses & family).count > family.count:
                        return True
            case SelfEnd():
                pass
            case _:
                return True
    return False


def _is_someone(subject: Subject, rule: PolicyRule) -> bool:
    """Whether a rule names who may."""
    if any(isinstance(e, SelfEnd) for one in rule.source.lists for e in one.elements):
        return False
    return any(
        isinstance(e, AddressEnd) or (isinstance(e, ZoneEnd) and not _is_world(subject, e))
        for one in rule.source.lists
        for e in one.elements
    ) and not is_anyone(subject, rule.source)


def _reaches(subject: Subject, rule: PolicyRule, known: Ports) -> bool:
    """Whether it is that rule by which new connections to what is managed come in."""
    wanted = subject.space.of(FIRST) & subject.space.of_all(
        Cube.of({Field.L4PROTO: Ranges.of(protocol), Field.DPORT: ports})
        for protocol, ports in known
    )
    if any(c is not None for c in (rule.conditions.macs, rule.conditions.ipsec)):
        return False
    return any(
        subject.accepted.get((base.chain, rule.span), subject.space.nothing).meets(wanted)
        for base in subject.filters
        if base.hook is not Hook.OUTPUT
    )
