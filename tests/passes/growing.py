"""Large rulesets of the sorts that policies grow into, for measuring what the passes cost."""

from __future__ import annotations

from collections.abc import Callable

from policylang.ir.actions import Accept, Action, Drop
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, Field
from policylang.packets.values import Range, Ranges, name_range, parse_one_address


def _host(number: int) -> Range:
    """A host of its own for each number, none beside another."""
    base = parse_one_address("10.0.0.0" if number % 4 else "2001:db8::")
    assert base is not None
    return (base + 2 * number,) * 2


def _rule(action: Action, **terms: Range) -> Rule:
    cube = Cube.of({Field[name.upper()]: Ranges((pair,)) for name, pair in terms.items()})
    return Rule(cube, action, (), (Origin(Why.WRITTEN),))


def _port(number: int) -> Range:
    return (number % 60_000 + 1,) * 2


def _verdict(number: int) -> Action:
    return (Accept(), Drop())[number % 2]


SORTS: dict[str, Callable[[int], Rule]] = {
    "hosts": lambda n: _rule(Accept(), saddr=_host(n)),
    "hosts of two verdicts": lambda n: _rule(_verdict(n), saddr=_host(n)),
    "hosts and ports": lambda n: _rule(
        Accept(), saddr=_host(n), l4proto=(TCP, TCP), dport=_port(n)
    ),
    "hosts and ports of two verdicts": lambda n: _rule(
        _verdict(n), saddr=_host(n), l4proto=(TCP, TCP), dport=_port(n)
    ),
    "pairs of hosts": lambda n: _rule(_verdict(n // 3), saddr=_host(n), daddr=_host(n + 7)),
    "nested networks": lambda n: _rule(
        _verdict(n), saddr=(n * 16, n * 16 + 15 + 16 * (n % 5)), daddr=(n % 7, 99)
    ),
    "ports of two verdicts": lambda n: _rule(_verdict(n), l4proto=(TCP, TCP), dport=_port(2 * n)),
    "ports of zones": lambda n: _rule(
        _verdict(n // 2),
        iif=name_range(f"eth{n % 20}"),
        oif=name_range(f"eth{n % 19}"),
        l4proto=(TCP, TCP),
        dport=_port(n),
    ),
    "many interfaces": lambda n: _rule(Accept(), iif=name_range(f"v{n}"), saddr=_host(n)),
    "pairs of hosts with another rule between": lambda n: (
        _rule(Drop(), saddr=_host(9), l4proto=(TCP, TCP), dport=_port(80))
        if n == 7
        else _rule(_verdict(n), saddr=_host(n), daddr=_host(n + 7))
    ),
    "zones and hosts in turns": lambda n: (
        _rule(_verdict(n // 4), iif=name_range(f"eth{n % 20}"), l4proto=(TCP, TCP), dport=_port(n))
        if n % 2
        else _rule(_verdict(n // 3), saddr=_host(n), daddr=_host(n % 50))
    ),
}


def grown(sort: str, count: int) -> Ruleset:
    """A ruleset of so many rules of a sort, and a default."""
    rules = tuple(SORTS[sort](number) for number in range(count))
    chain = Chain("input", (*rules, Rule(EVERYTHING, Drop())))
    return Ruleset((Base(Stage.FILTER, Path.INPUT, "input"),), (chain,))
