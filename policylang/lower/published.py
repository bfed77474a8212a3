"""What machines behind published ports open themselves, where a helper predicts it.

Which machines those are is not known here. A bit of the connection's mark is set where a client
dials what a rule calls published, and what a helper predicts has the mark of the connection that
predicted it. Knows nothing of any helper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Rule
from policylang.lower.before_routing import LOCAL
from policylang.lower.conditions import terms
from policylang.lower.paths import Places, dialled_cube
from policylang.lower.states import state
from policylang.model.policy import Policy
from policylang.model.translations import Marking
from policylang.model.types import AddressEnd, End, EndElement, PolicyRule, PublishedEnd, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import Field, State
from policylang.packets.packetset import compact
from policylang.packets.values import ADDRESSES

MARK_BITS = 32


def free_bit(used: int) -> int | None:
    """The highest bit of a mark that is not among those `used`; None where all are."""
    free = (1 << bit for bit in reversed(range(MARK_BITS)) if not used & 1 << bit)
    return next(free, None)


def watched(policy: Policy, places: Places, report: Report) -> ir.ConnectionMarkGuard | None:
    """What tells connections that were predicted by published ones; None where nothing needs it.

    Reports `no-free-mark` where the policy's own marks leave no bit for it.
    """
    asking = next((rule for rule in policy.rules if any(_dialling(rule, places))), None)
    if asking is None:
        return None
    used = 0
    for statement in policy.treatments:
        if isinstance(statement, Marking) and statement.of_answers and statement.mark is not None:
            used |= statement.mark.mask
    bit = free_bit(used)
    if bit is None:
        report.add(
            "no-free-mark",
            "no bit of the connection's mark is free to tell what published machines open",
            asking.span,
            help="name the bits that `mark … answers` sets: `as 0x2/0xf`",
        )
        return None
    return ir.ConnectionMarkGuard(bit, bit)


def watching(policy: Policy, places: Places, told: ir.ConnectionMarkGuard) -> Iterator[Rule]:
    """The MARK rules for what arrives: each first packet to what is published gets the bit."""
    action = ir.SetConnectionMark(told.value, told.mask)
    for rule in policy.rules:
        origins = (Origin(Why.HELPER_ASSIGNMENT, rule.span, rule.name),)
        for cube in compact(_dialling(rule, places)):
            yield Rule(cube & state(State.NEW), action, (), origins)


def _dialling(rule: PolicyRule, places: Places) -> Iterator[Cube]:
    """What clients dial who may be called back, as it arrives."""
    called_back = [
        traffic
        for traffic in rule.what
        if traffic.helper is not None and any(e.by_server for e in traffic.helper.expects)
    ]
    if rule.verb is Verb.ALLOW and called_back:
        for cube in places.published(rule.source, rule.destination):
            for traffic in called_back:
                yield as_dialled(cube & dialled_cube(traffic) & terms(rule.conditions))


def as_dialled(cube: Cube) -> Cube:
    """What arrives for a port that another tool publishes: at this host, if nobody says where."""
    dialled = cube.without(Field.OIF, Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT)
    where = {Field.DADDR_TYPE: LOCAL}
    if Field.ORIG_DADDR in cube:
        where = {Field.DADDR: cube[Field.ORIG_DADDR]}
    return dialled & Cube.of({**where, Field.DPORT: cube[Field.ORIG_DPORT]})


def machines(end: End) -> End:
    """The machines that an end may name as published: any, as far as the rest of it says."""
    return End(
        tuple(replace(one, elements=tuple(map(_machine, one.elements))) for one in end.lists)
    )


def _machine(element: EndElement) -> EndElement:
    if isinstance(element, PublishedEnd):
        return AddressEnd(ADDRESSES, element.within)
    return element
