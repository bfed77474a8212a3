"""The conditions of a rule as terms of its cubes and as guards, each in exactly one place.

INVARIANT: a condition that is not consumed here is lost, and the rule wider than it was
written. Every attribute of `Conditions` is read in `terms` or in `guards`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from policylang.ir import actions as ir
from policylang.ir.stages import Path
from policylang.model.conditions import WEEK
from policylang.model.types import Conditions, Per, Rate
from policylang.packets.cube import EMPTY, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

# What is known of packets that arrive, and of none that this host sends itself.
ARRIVING = (Field.SMAC, Field.IPSEC)


def terms(conditions: Conditions) -> Cube:
    """What the conditions say of a packet's own fields."""
    found: dict[Field, Ranges] = {}
    for field, values in (
        (Field.FAMILY, conditions.families),
        (Field.SMAC, conditions.macs),
        (Field.SPORT, conditions.source_ports),
        (Field.DSCP, conditions.dscp),
        (Field.SIZE, conditions.sizes),
        (Field.IPSEC, None if conditions.ipsec is None else Ranges.of(int(conditions.ipsec))),
    ):
        if values is not None:
            found[field] = values
    return Cube.of(found)


def terms_of_predicted(conditions: Conditions) -> Cube:
    """The same of connections that a helper predicts: source ports are the first one's."""
    return terms(replace(conditions, source_ports=None))


def terms_of_first(conditions: Conditions) -> Cube:
    """What of `terms` is not asked of connections that a helper predicts."""
    return terms(Conditions(source_ports=conditions.source_ports))


def guards(conditions: Conditions) -> tuple[ir.Guard, ...]:
    """What else the conditions say, in the order in which it is to be asked.

    What a question changes stands last: a rate that another guard refuses is not used up.
    """
    return (*_tests(conditions), *_counts(conditions))


def guards_of_answers(conditions: Conditions) -> tuple[ir.Guard, ...]:
    """The guards that say of the answers of a connection what they say of its first packet.

    An answer is sent by another process, or none, is counted for another address, and its mark
    is its own.
    """
    return tuple(g for g in guards(conditions) if isinstance(g, (ir.TimeGuard, ir.UntilGuard)))


def untold_by_answers(conditions: Conditions) -> tuple[str, ...]:
    """The words of those conditions of which the answers of a connection do not tell.

    Rates and numbers of connections are not among them: answers are counted in none.
    """
    asked = {
        "mac": conditions.macs,
        "dscp": conditions.dscp,
        "size": conditions.sizes,
        "ipsec": conditions.ipsec,
        "mark": conditions.mark,
        "user": conditions.users,
        "group": conditions.groups,
        "cgroup": conditions.cgroup,
    }
    return tuple(word for word, said in asked.items() if said is not None)


def is_counted(conditions: Conditions) -> bool:
    """Whether to ask the conditions of a packet changes what they say of the next one."""
    return any(True for _ in _counts(conditions))


def without_counts(conditions: Conditions) -> Conditions:
    """The conditions whose answers do not change by being asked."""
    return replace(conditions, connections=None, limit=None)


def _tests(conditions: Conditions) -> Iterator[ir.Guard]:
    if conditions.mark is not None:
        yield ir.MarkGuard(conditions.mark.value, conditions.mark.mask)
    for kind, owners in (("user", conditions.users), ("group", conditions.groups)):
        if owners is not None:
            yield ir.OwnerGuard(kind, owners.ids, owners.names)
    if conditions.cgroup is not None:
        yield ir.CgroupGuard(conditions.cgroup)
    if conditions.hours is not None and conditions.hours.week_s != WEEK:
        yield ir.TimeGuard(conditions.hours.week_s, conditions.hours.is_local)
    if conditions.until is not None:
        yield ir.UntilGuard(conditions.until.last_day, conditions.until.is_local)


def _counts(conditions: Conditions) -> Iterator[ir.Guard]:
    if conditions.connections is not None:
        connections = conditions.connections
        yield ir.ConnectionsGuard(connections.count, connections.over, per(connections.per))
    if conditions.limit is not None:
        yield rate_guard(conditions.limit.rate, over=conditions.limit.over)


def rate_guard(rate: Rate, *, over: bool = False) -> ir.RateGuard:
    """The guard of a rate."""
    return ir.RateGuard(rate.count, rate.unit, rate.burst, over, per(rate.per))


def per(apart: Per | None) -> ir.Per | None:
    """What is counted apart, as the ir has it."""
    if apart is None:
        return None
    return ir.Per(ir.End(apart.side.value), apart.prefix_len_v4, apart.prefix_len_v6)


def on_path(cube: Cube, path: Path) -> Cube:
    """The packets of a cube that take a path: none that this host sends itself has a sender."""
    if path is not Path.OUTPUT:
        return cube
    for field in ARRIVING:
        if field in cube and (field is Field.SMAC or 0 not in cube[field]):
            return EMPTY
    return cube.without(*ARRIVING)
