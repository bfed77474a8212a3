"""Rules that name interfaces go into a chain for each interface, or pair of them.

A packet then reads the rules for its own interfaces alone. Rules that name none stay where
they are, and so do those about rare states and the loopback interface, which are few; the
others are moved together as far as the order allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

from policylang.diagnostics import Report
from policylang.ir.actions import Jump
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Chain, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.optimise.intervals import Intervals
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
    """Rules to dispatch, and those found between them that stay behind them.

    `items` are both, in the order in which they stood.
    """

    rules: list[Rule] = field(default_factory=list)
    behind: list[Item] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    known: dict[Field, Intervals] = field(default_factory=dict)  # patterns of the rules

    def fits(self, rule: Rule, fields: tuple[Field, ...]) -> bool:
        """Whether no pattern of a rule overlaps another one of the run without being it."""
        return all(
            self.known[f].overlapping(*pattern) in (pattern, None)
            for f in fields
            if f in self.known
            for pattern in rule.cube[f]
        )

    def add(self, rule: Rule, fields: tuple[Field, ...]) -> None:
        self.rules.append(rule)
        self.items.append(rule)
        for f in fields:
            known = self.known.setdefault(f, Intervals())
            for pattern in rule.cube[f]:
                known.add(*pattern)

    def leave_behind(self, item: Item) -> None:
        self.behind.append(item)
        self.items.append(item)


def _dispatch_chain(
    chain: Chain, fields: tuple[Field, ...], taken: set[str], made: list[Chain]
) -> Chain:
    items: list[Item] = []
    run = _Run()

    def flush() -> None:
        nonlocal run
        if len(run.rules) < FEWEST_RULES:
            items.extend(run.items)
        else:
            items.append(_dispatched(chain.name, run, fields, taken, made))
            items.extend(run.behind)
        run = _Run()

    for item in chain.items:
        if not (isinstance(item, Rule) and _takes_part(item) and _has_key(item, fields)):
            if run.rules:
                run.leave_behind(item)
            else:
                items.append(item)
            continue
        if run.rules and not (run.fits(item, fields) and may_pass(item, run.behind)):
            flush()
        run.add(item, fields)
    flush()
    return Chain(chain.name, tuple(items))


def _takes_part(rule: Rule) -> bool:
    """Whether packets read the rule so often, or it is one of so many, that a chain pays."""
    is_loopback = any(origin.why is Why.LOOPBACK for origin in rule.origins)
    return Field.CT_STATE not in rule.cube and not is_loopback


def _has_key(rule: Rule, fields: tuple[Field, ...]) -> bool:
    """Whether a rule names patterns on exactly these interface fields."""
    return all((f in rule.cube) == (f in fields) for f in (Field.IIF, Field.OIF)) and all(
        name_pattern(*pair) is not None for f in fields for pair in rule.cube[f]
    )


def _dispatched(
    name: str, run: _Run, fields: tuple[Field, ...], taken: set[str], made: list[Chain]
) -> Lookup:
    members: dict[Key, list[Rule]] = {}
    for rule in run.rules:
        for key in product(*(rule.cube[f].pairs for f in fields)):
            members.setdefault(key, []).append(rule)
    entries: list[Entry] = []
    chains: dict[tuple[int, ...], str] = {}
    once = _asked_once(members)
    for key in sorted(members):
        rules = members[key]
        alike = tuple(id(rule) for rule in rules)
        if alike not in chains:
            chains[alike] = _free_name(name, key, taken)
            made.append(Chain(chains[alike], ()))
            at = len(made) - 1
            body = []
            for rule in rules:
                inner = replace(rule, cube=rule.cube.without(*fields))
                if id(rule) in once:
                    if not once[id(rule)]:
                        once[id(rule)] = _free_name(name, (), taken)
                        made.append(Chain(once[id(rule)], (replace(rule, cube=EVERYTHING),)))
                    inner = replace(inner, action=Jump(once[id(rule)]), guards=())
                body.append(inner)
            made[at] = Chain(chains[alike], tuple(body))
        entries.append(Entry(key, Jump(chains[alike]), (Origin(Why.DISPATCH),)))
    return Lookup(EVERYTHING, fields, tuple(entries))


def _asked_once(members: dict[Key, list[Rule]]) -> dict[int, str]:
    """The rules with guards, by identity, that go into several chains, with no name yet.

    They get a chain of their own, for a rate that stands in two rules would hold twice.
    """
    homes: dict[int, set[tuple[int, ...]]] = {}
    for rules in members.values():
        alike = tuple(id(rule) for rule in rules)
        for rule in rules:
            if rule.guards:
                homes.setdefault(id(rule), set()).add(alike)
    return {number: "" for number, chains in homes.items() if len(chains) > 1}


def _free_name(name: str, key: Key, taken: set[str]) -> str:
    parts = [name_pattern(*pair) or "" for pair in key]
    wanted = "-".join((name, *(_safe(part) for part in parts))) if parts else f"{name}-once"
    free, number = wanted, 1
    while free in taken:
        number += 1
        free = f"{wanted}-{number}"
    taken.add(free)
    return free


def _safe(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text.removesuffix("*"))
