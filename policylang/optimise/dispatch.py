"""Rules that name interfaces go into a chain for each interface, or pair of them.

A packet then reads the rules for its own interfaces alone. Rules that name none stay where
they are; those that do are moved together as far as the order allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

from policylang.diagnostics import Report
from policylang.ir.actions import Jump
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Chain, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.optimise.order import may_pass
from policylang.packets.cube import EVERYTHING
from policylang.packets.fields import Field
from policylang.packets.values import Range, name_pattern

FEWEST_RULES = 4  # fewer are read as quickly one after the other
KEYS = ((Field.IIF, Field.OIF), (Field.IIF,), (Field.OIF,))
Key = tuple[Range, ...]


def dispatch(ruleset: Ruleset, report: Report) -> Ruleset:
    """The ruleset with the base chains of FILTER dispatched by interface."""
    bases = {base.chain for base in ruleset.bases if base.stage is Stage.FILTER}
    taken = {chain.name for chain in ruleset.chains}
    chains: list[Chain] = []
    for chain in ruleset.chains:
        made: list[Chain] = []
        if chain.name in bases:
            for key in KEYS:
                chain = _dispatch_chain(chain, key, taken, made)
        chains += [chain, *made]
    return replace(ruleset, chains=tuple(chains))


@dataclass(slots=True)
class _Run:
    """Rules to dispatch, and those found between them that stay behind them."""

    rules: list[Rule] = field(default_factory=list)
    behind: list[Item] = field(default_factory=list)
    known: dict[Field, set[Range]] = field(default_factory=dict)  # patterns of the rules

    def fits(self, rule: Rule, fields: tuple[Field, ...]) -> bool:
        """Whether no pattern of a rule overlaps another one of the run without being it."""
        for f in fields:
            known = self.known.get(f, set())
            for low, high in rule.cube[f]:
                if (low, high) not in known and any(a <= high and low <= b for a, b in known):
                    return False
        return True

    def add(self, rule: Rule, fields: tuple[Field, ...]) -> None:
        self.rules.append(rule)
        for f in fields:
            self.known.setdefault(f, set()).update(rule.cube[f])


def _dispatch_chain(
    chain: Chain, fields: tuple[Field, ...], taken: set[str], made: list[Chain]
) -> Chain:
    items: list[Item] = []
    run = _Run()

    def flush() -> None:
        nonlocal run
        items.extend(_dispatched(chain.name, run, fields, taken, made))
        items.extend(run.behind)
        run = _Run()

    for item in chain.items:
        if not (isinstance(item, Rule) and _has_key(item, fields)):
            if run.rules:
                run.behind.append(item)
            else:
                items.append(item)
            continue
        if run.rules and not (run.fits(item, fields) and may_pass(item, run.behind)):
            flush()
        run.add(item, fields)
    flush()
    return Chain(chain.name, tuple(items))


def _has_key(rule: Rule, fields: tuple[Field, ...]) -> bool:
    """Whether a rule names patterns on exactly these interface fields."""
    return all((f in rule.cube) == (f in fields) for f in (Field.IIF, Field.OIF)) and all(
        name_pattern(*pair) is not None for f in fields for pair in rule.cube[f]
    )


def _dispatched(
    name: str, run: _Run, fields: tuple[Field, ...], taken: set[str], made: list[Chain]
) -> list[Item]:
    if len(run.rules) < FEWEST_RULES:
        return list(run.rules)
    members: dict[Key, list[Rule]] = {}
    for rule in run.rules:
        for key in product(*(rule.cube[f].pairs for f in fields)):
            members.setdefault(key, []).append(rule)
    entries: list[Entry] = []
    chains: dict[tuple[int, ...], str] = {}
    for key in sorted(members):
        rules = members[key]
        alike = tuple(id(rule) for rule in rules)
        if alike not in chains:
            chains[alike] = _free_name(name, key, taken)
            body = tuple(replace(rule, cube=rule.cube.without(*fields)) for rule in rules)
            made.append(Chain(chains[alike], body))
        entries.append(Entry(key, Jump(chains[alike]), (Origin(Why.DISPATCH),)))
    return [Lookup(EVERYTHING, fields, tuple(entries))]


def _free_name(name: str, key: Key, taken: set[str]) -> str:
    parts = [name_pattern(*pair) or "" for pair in key]
    wanted = "-".join((name, *(_safe(part) for part in parts)))
    free, number = wanted, 1
    while free in taken:
        number += 1
        free = f"{wanted}-{number}"
    taken.add(free)
    return free


def _safe(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text.removesuffix("*"))

