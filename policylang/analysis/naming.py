"""What a policy calls things, for telling packets in its own words; makes no rules of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policylang.analysis.wording import Names, ZoneName
from policylang.ir.ruleset import AddressTest, DynamicSet, HostSuffix
from policylang.lower.protect import UNROUTED
from policylang.model.policy import Policy
from policylang.model.translations import (
    Clamp,
    Netmap,
    Offloading,
)
from policylang.model.types import NativeRule, PolicyRule, Traffic
from policylang.packets.fields import FAMILY_ADDRESSES
from policylang.packets.values import V6_BASE, Ranges, format_address

BOGONS = "bogons"  # what `protect … against bogons` keeps out


def names_of(
    policy: Policy, tests: Iterable[AddressTest] = (), asked: Iterable[PolicyRule] = ()
) -> Names:
    """The names of a policy, and those of services in what is asked of it."""
    services: dict[tuple[int, Ranges], str] = {}
    for traffic in _traffic(policy, asked):
        if traffic.service is None or traffic.protocols is None or traffic.ports is None:
            continue
        protocol = traffic.protocols.single
        if protocol is not None:
            services.setdefault((protocol, traffic.ports), traffic.service)
    sets = {values: name for values, name in policy.set_names if values}
    for kept_out in (policy.bogons, policy.bogons - UNROUTED):
        if kept_out:
            sets.setdefault(kept_out, BOGONS)
    return Names(
        tuple(ZoneName(z.name, z.interfaces, z.networks) for z in policy.zones),
        sets,
        services,
        tuple(map(_called, tests)),
        _parts(sets),
    )


def _parts(sets: Mapping[Ranges, str]) -> dict[Ranges, str]:
    """What sets with addresses of both families have of each; the first of several names counts."""
    found: dict[Ranges, str] = {}
    for values, name in sets.items():
        parts = [values & family for family in FAMILY_ADDRESSES.values()]
        if all(parts) and sum(part.count for part in parts) == values.count:
            for part in parts:
                found.setdefault(part, name)
    return found


def _traffic(policy: Policy, asked: Iterable[PolicyRule]) -> Iterator[Traffic]:
    for statement in policy.statements:
        if not isinstance(statement, NativeRule | Clamp | Netmap | Offloading):
            yield from statement.what
    for rule in asked:
        yield from rule.what


def _called(test: AddressTest) -> str:
    match test:
        case DynamicSet(name=name):
            return name
        case HostSuffix(value, mask):
            return f"{format_address(V6_BASE + value)}/{_suffix(mask)}"
        case _:
            return test.source.name


def _suffix(mask: int) -> str:
    bits = mask.bit_length()
    return f"-{bits}" if mask == (1 << bits) - 1 else format_address(V6_BASE + mask)
