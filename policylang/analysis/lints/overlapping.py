"""Zones that some packets are in at once, where it matters to their fate."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from policylang.analysis.lints.subject import FIRST, Subject
from policylang.analysis.machine import Base
from policylang.diagnostics import Label, Report
from policylang.lower.paths import SOURCE, zone_cube
from policylang.model.types import PolicyRule, Verb, Zone, ZoneEnd
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

# What comes out of a tunnel may have any source, and its interface tells nothing.
AS_SENT = Cube.of({Field.DNATED: Ranges.of(0), Field.IPSEC: Ranges.of(0)})


def find_overlapping(subject: Subject, report: Report) -> None:
    """Report each pair of zones that share packets which fare otherwise in one of them alone.

    `zones-overlap`. A zone that is a part of another one is taken for a deliberate one.
    """
    told: set[frozenset[str]] = set()
    zones = sorted(subject.policy.zones, key=lambda zone: zone.interfaces is not None)
    for one, other in permutations(zones, 2):
        pair = frozenset((one.name, other.name))
        a, b = zone_cube(one, SOURCE), zone_cube(other, SOURCE)
        if pair in told or not a.meets(b) or a.covers(b) or b.covers(a):
            continue
        found = next(_apart(subject, one, other), None)
        if found is None:
            continue
        told.add(pair)
        rule, base, witness = found
        report.add(
            "zones-overlap",
            f"packets are in `{one.name}` and `{other.name}` at once, and `{one.name}` may do more",
            one.span,
            help=f"such as {subject.example(base, witness)}; {_advice(one, other)}",
            labels=(
                Label(other.span, f"a packet of `{other.name}` is denied"),
                Label(rule.span, f"the same packet is accepted as one of `{one.name}`"),
            ),
        )


def _apart(
    subject: Subject, one: Zone, other: Zone
) -> Iterator[tuple[PolicyRule, Base, dict[Field, int]]]:
    """Rules that accept packets of both zones as those of one, where the other is denied."""
    space = subject.space
    a, b = space.of(zone_cube(one, SOURCE)), space.of(zone_cube(other, SOURCE))
    for rule in subject.policy.rules:
        if rule.verb is not Verb.ALLOW or not _names(rule, one) or _names(rule, other):
            continue
        for base in subject.filters:
            accepted = subject.accepted.get((base.chain, rule.span), space.nothing)
            both = accepted & space.of(FIRST) & space.of(AS_SENT) & a & b
            if not both:
                continue
            both -= subject.screened
            denied = subject.always(subject.readings[base].denied & (b - a))
            elsewhere = space.free(both, Field.IIF, Field.SADDR) & denied
            alike = both & space.free(elsewhere, Field.IIF, Field.SADDR)
            witness = alike.witness()
            if witness is not None:
                yield rule, base, witness


def _advice(one: Zone, other: Zone) -> str:
    bare = next((zone for zone in (one, other) if zone.interfaces is None), None)
    if bare is None:
        return "give each packet one zone"
    near = other if bare is one else one
    return (
        f"give `{bare.name}` its interfaces as well, or say `protect from {near.name} against "
        "spoofing`"
    )


def _names(rule: PolicyRule, zone: Zone) -> bool:
    return any(
        isinstance(e, ZoneEnd) and zone in (e.zone, *e.within)
        for one in rule.source.lists
        for e in one.elements
    )
