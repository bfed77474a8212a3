"""Runs of rules on the same fields become one lookup: a set, or a map of verdicts.

What a packet costs then no longer grows with the number of rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from policylang.diagnostics import Report
from policylang.ir.ruleset import Chain, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.optimise.order import MOST_CHECKS, is_plain, may_swap
from policylang.optimise.reading import read
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, Field
from policylang.packets.values import V6_BASE, Range, Ranges, name_pattern

FEWEST_RULES = 6  # fewer are as quick one after the other, and easier to read
MOST_ENTRIES_A_RULE = 16
MOST_KEY_FIELDS = 3
MOST_COMPARISONS = 500_000
KEY_FIELDS = (
    Field.IIF,
    Field.OIF,
    Field.SADDR,
    Field.DADDR,
    Field.L4PROTO,
    Field.SPORT,
    Field.DPORT,
)


def gather(ruleset: Ruleset, report: Report) -> Ruleset:
    """The ruleset with lookups in place of runs, in the chains that FILTER alone reads.

    The other stages have actions that no map can hold.
    """
    bases = [base.chain for base in ruleset.bases if base.stage is not Stage.FILTER]
    others = read({chain.name: chain for chain in ruleset.chains}, bases)
    return replace(
        ruleset,
        chains=tuple(c if c.name in others else _gather_chain(c) for c in ruleset.chains),
    )


# The fields that a rule says something of, and the interfaces that no key of a lookup can hold
# (all but some): rules of one run have both in common.
_Shape = tuple[tuple[Field, ...], tuple[tuple[Field, Ranges], ...]]


@dataclass(slots=True)
class _Run:
    """Rules on the same fields, and the items between them that stay behind, by position."""

    fields: tuple[Field, ...]
    rules: list[Rule] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)

    def add(self, position: int, rule: Rule) -> None:
        if self.members:
            self.others += range(self.members[-1] + 1, position)
        self.members.append(position)
        self.rules.append(rule)


def _gather_chain(chain: Chain) -> Chain:
    runs: dict[_Shape, list[_Run]] = {}
    if len(chain.items) < FEWEST_RULES:
        return chain
    for position, item in enumerate(chain.items):
        shape = _shape(item)
        if shape is None or not isinstance(item, Rule):
            continue
        known = runs.setdefault(shape, [])
        if not known or not _may_join(chain.items, known[-1], position, item):
            known.append(_Run(shape[0]))
        known[-1].add(position, item)
    lookups: dict[int, Lookup] = {}
    gone: set[int] = set()
    for run in (run for known in runs.values() for run in known):
        found = _lookup(chain.items, run) if len(run.rules) >= FEWEST_RULES else None
        if found is not None and not gone & found[1]:
            lookups[run.members[0]] = found[0]
            gone |= found[1]
    return Chain(chain.name, tuple(_with_lookups(chain.items, lookups, gone)))


def _with_lookups(
    items: tuple[Item, ...], lookups: dict[int, Lookup], gone: set[int]
) -> Iterator[Item]:
    for position, item in enumerate(items):
        if position in lookups:
            yield lookups[position]
        if position not in gone:
            yield item


def _shape(item: Item) -> _Shape | None:
    """The shape of a rule that can be an entry of a lookup."""
    if not (isinstance(item, Rule) and is_plain(item)):
        return None
    stated = item.cube.stated
    entries = 1
    for f, values in stated:
        if f in KEY_FIELDS:
            entries *= len(values) if f is not Field.L4PROTO else values.count
            if f is Field.L4PROTO and values.count > MOST_ENTRIES_A_RULE:
                return None
    if entries > MOST_ENTRIES_A_RULE:
        return None
    return tuple(f for f, _ in stated), tuple(
        (f, values)
        for f, values in stated
        if f in (Field.IIF, Field.OIF) and any(name_pattern(*pair) is None for pair in values)
    )


def _may_join(items: tuple[Item, ...], run: _Run, position: int, rule: Rule) -> bool:
    """Whether a rule can move up to the start of a run."""
    if position - run.members[0] - len(run.members) > MOST_CHECKS:
        return False
    between = (*run.others, *range(run.members[-1] + 1, position))
    return all(may_swap(rule, items[index]) for index in between)


def _lookup(items: tuple[Item, ...], run: _Run) -> tuple[Lookup, set[int]] | None:
    """The lookup of a run and the positions of the rules in it, or None where none is better.

    Rules that overlap an earlier one of the run stay out: so those that are in overlap none of
    those that are out, and may move past them.
    """
    varying = tuple(f for f in run.fields if len({rule.cube[f] for rule in run.rules}) > 1)
    if not varying or len(varying) > MOST_KEY_FIELDS:
        return None
    if any(f not in KEY_FIELDS for f in varying):
        return None
    stated = dict(run.rules[0].cube.stated)
    cube = Cube.of({f: v for f, v in stated.items() if f not in varying})
    positions = run.members
    keys = [_keys(items[p], varying) for p in positions]
    out = _overlapping(keys)
    if out is None:
        return None
    inside = [index for index in range(len(positions)) if index not in out]
    if len(inside) < FEWEST_RULES:
        return None
    entries = tuple(
        Entry(key, rule.action, rule.origins)
        for index in inside
        for rule in (items[positions[index]],)
        if isinstance(rule, Rule)
        for key in keys[index]
    )
    ordered = tuple(sorted(entries, key=lambda entry: entry.key))
    return Lookup(cube, varying, ordered), {positions[index] for index in inside}


def _keys(item: Item, fields: tuple[Field, ...]) -> list[tuple[Range, ...]]:
    values = []
    for f in fields:
        ranges = item.cube[f]
        if f is Field.L4PROTO:
            ranges = Ranges(tuple((n, n) for low, high in ranges for n in range(low, high + 1)))
        values.append(ranges.pairs)
    addresses = [index for index, f in enumerate(fields) if f in ADDRESS_FIELDS]
    return [
        key
        for key in product(*values)
        if len({key[index][0] >= V6_BASE for index in addresses}) <= 1
    ]


def _overlapping(keys: list[list[tuple[Range, ...]]]) -> set[int] | None:
    """The rules, by index, that overlap one before them; None where that costs too much.

    Sweeps along the field in which the fewest keys meet.
    """
    flat = [(key, index) for index, rule in enumerate(keys) for key in rule]
    width = len(flat[0][0])
    best = min(range(width), key=lambda i: _meetings([key[i] for key, _ in flat]))
    if _meetings([key[best] for key, _ in flat]) > MOST_COMPARISONS:
        return None
    flat.sort(key=lambda pair: pair[0][best])
    out: set[int] = set()
    active: list[tuple[tuple[Range, ...], int]] = []
    for key, index in flat:
        low = key[best][0]
        active = [(k, i) for k, i in active if k[best][1] >= low]
        for other, owner in active:
            if owner != index and all(
                a <= d and c <= b for (a, b), (c, d) in zip(key, other, strict=True)
            ):
                out.add(max(owner, index))
        active.append((key, index))
    return out


def _meetings(ranges: list[Range]) -> int:
    """How many pairs of ranges have a value in common."""
    ends = sorted(high for _, high in ranges)
    ended = meetings = 0
    for started, low in enumerate(sorted(low for low, _ in ranges)):
        while ends[ended] < low:
            ended += 1
        meetings += started - ended
    return meetings
