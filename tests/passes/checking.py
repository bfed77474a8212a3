"""Whether a pass kept the fate of every packet and made a well-formed ruleset of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from random import Random
from typing import get_args

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.capabilities import Capabilities
from policylang.ir.dump import dump
from policylang.ir.ruleset import Base, Chain, Lookup, Rule, Ruleset, entry_cube
from policylang.ir.stages import Stage
from policylang.ir.verify import verify
from policylang.optimise import Pass
from policylang.packets.cube import Packet
from policylang.packets.fields import ADDRESS_FIELDS, REQUIRES, UNIVERSE, Field
from policylang.packets.values import V6_BASE, Ranges, name_pattern
from tests.passes.rulesets import packets, pruned
from tests.properties.evaluate import Fate, evaluate

PACKETS = 60  # looked at for each ruleset

ANYTHING = Capabilities(
    target="a target that can do anything",
    fields=dict.fromkeys(Stage, frozenset(Field)),
    actions=dict.fromkeys(
        Stage,
        get_args(ir.Action),
    ),
    log_prefix_bytes=127,
    log_group_prefix_bytes=127,
)


def complaint(before: Ruleset, one: Pass, seed: int) -> str | None:
    """What is wrong with what a pass makes of a ruleset, None where nothing is found."""
    after = one(before, Report())
    return (
        _malformed(after)
        or _made_up_flags(before, after)
        or _counted_apart(before, after)
        or _changed(before, after, seed)
    )


def smallest(before: Ruleset, one: Pass, seed: int) -> Ruleset:
    """A ruleset of as few rules as can be that the pass still gets wrong."""
    smaller: Ruleset | None = before
    while smaller is not None:
        before = smaller
        smaller = next(
            (s for s in _less_one_rule(before) if complaint(s, one, seed) is not None), None
        )
    return before


def told(before: Ruleset, one: Pass, seed: int) -> str:
    """The smallest ruleset that goes wrong, what became of it, and why that is wrong."""
    before = smallest(before, one, seed)
    after = one(before, Report())
    return f"{complaint(before, one, seed)}\n\n{dump(before)}\nbecame\n\n{dump(after)}"


def _less_one_rule(ruleset: Ruleset) -> list[Ruleset]:
    found = []
    bases = {base.chain for base in ruleset.bases if base.stage is Stage.FILTER}
    for number, chain in enumerate(ruleset.chains):
        for position in range(len(chain.items) - (chain.name in bases)):
            items = (*chain.items[:position], *chain.items[position + 1 :])
            chains = list(ruleset.chains)
            chains[number] = Chain(chain.name, items)
            found.append(pruned(replace(ruleset, chains=tuple(chains))))
    return found


# --- the fate of packets ----------------------------------------------------------------------


def _changed(before: Ruleset, after: Ruleset, seed: int) -> str | None:
    for base, packet, holding, was in _fates(before, seed):
        now = evaluate(after, base.stage, base.path, packet, guards_hold=holding.__contains__)
        if was != now:
            return (
                f"on {base.stage.value} {base.path.value}, where {holding or 'no guards'} "
                f"hold, the fate of {_shown(packet)} was {was} and is {now}"
            )
    return None


@lru_cache(maxsize=1000)  # many passes are tried on each ruleset
def _fates(before: Ruleset, seed: int) -> tuple[tuple[Base, Packet, set[ir.Guard], Fate], ...]:
    """What becomes of packets at each base chain, while some guards hold and others do not."""
    random = Random(seed)
    guards = sorted({g for r in _guarded(before) for g in r.guards}, key=str)
    found: list[tuple[Base, Packet, set[ir.Guard], Fate]] = []
    for packet in packets(before, random, PACKETS):
        for base in before.bases:
            some = {guard for guard in guards if random.random() < 0.6}
            for holding in ({*guards}, set[ir.Guard](), some):
                holds = holding.__contains__
                was = evaluate(before, base.stage, base.path, packet, guards_hold=holds)
                found.append((base, packet, holding, was))
    return tuple(found)


def _guarded(ruleset: Ruleset) -> list[Rule]:
    items = (item for chain in ruleset.chains for item in chain.items)
    return [item for item in items if isinstance(item, Rule) and item.guards]


def _counted_apart(before: Ruleset, after: Ruleset) -> str | None:
    """A rate in two places holds twice, and one for two rules holds once for both."""
    was, now = (
        Counter((r.guards, r.action) for r in _guarded(ruleset)) for ruleset in (before, after)
    )
    return f"a rule is there more often than before: {now - was}" if now - was else None


def _shown(packet: Packet) -> str:
    return ", ".join(f"{field.name.lower()} {value}" for field, value in packet.items())


# --- well formed ------------------------------------------------------------------------------


def _malformed(ruleset: Ruleset) -> str | None:
    report = Report()
    try:
        verify(ruleset, ANYTHING, report)
    except AssertionError as wrong:
        return f"malformed: {wrong}"
    if report.diagnostics:
        return f"malformed: {report.diagnostics}"
    for chain in ruleset.chains:
        for item in chain.items:
            if item.cube.is_empty:
                return "an empty cube"
            wrong_lookup = _wrong_lookup(item) if isinstance(item, Lookup) else None
            if wrong_lookup is not None:
                return wrong_lookup
    return None


def _made_up_flags(before: Ruleset, after: Ruleset) -> str | None:
    """Bits are matched by masks, and most sets of them have none: so passes leave them alone."""
    was, now = (
        {i.cube[Field.TCP_FLAGS] for chain in ruleset.chains for i in chain.items}
        for ruleset in (before, after)
    )
    return "TCP flags that no rule spoke of" if now - was - {UNIVERSE[Field.TCP_FLAGS]} else None


def _wrong_lookup(lookup: Lookup) -> str | None:
    """What a lookup says of itself in `ir.ruleset`, and what targets ask of its keys besides."""
    checks: tuple[tuple[str, Callable[[Lookup], bool]], ...] = (
        ("has no entries or fields", lambda k: bool(k.entries and k.fields)),
        ("has a field in its key and its cube", lambda k: not {*k.fields} & {*k.cube.fields}),
        ("has keys of another length", _is_rectangular),
        ("has entries that overlap", _are_disjoint),
        ("has an entry that no packet meets", _are_met),
        ("has a key that mixes families", _are_of_one_family),
        ("has a key that is no name and no pattern", _are_patterns),
        ("has packets that lack a field of the key", _have_the_fields),
        ("has actions that no map of verdicts can hold", _are_verdicts),
    )
    return next((f"a lookup {what}" for what, holds in checks if not holds(lookup)), None)


def _are_verdicts(lookup: Lookup) -> bool:
    verdicts = (ir.Accept, ir.Drop, ir.Reject, ir.Jump)
    return all(isinstance(entry.action, verdicts) for entry in lookup.entries)


def _is_rectangular(lookup: Lookup) -> bool:
    return all(len(entry.key) == len(lookup.fields) for entry in lookup.entries)


def _are_disjoint(lookup: Lookup) -> bool:
    """nft refuses elements that overlap, whatever they are mapped to."""
    return all(
        any(x[1] < y[0] or y[1] < x[0] for x, y in zip(a.key, b.key, strict=True))
        for a, b in combinations(lookup.entries, 2)
    )


def _are_met(lookup: Lookup) -> bool:
    return not any(entry_cube(lookup, entry).is_empty for entry in lookup.entries)


def _are_of_one_family(lookup: Lookup) -> bool:
    return all(
        len({end >= V6_BASE for pair in _addresses(lookup, key) for end in pair}) <= 1
        for key in (entry.key for entry in lookup.entries)
    )


def _addresses(lookup: Lookup, key: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    return [p for f, p in zip(lookup.fields, key, strict=True) if f in ADDRESS_FIELDS]


def _are_patterns(lookup: Lookup) -> bool:
    return all(
        f not in (Field.IIF, Field.OIF) or name_pattern(*pair) is not None
        for entry in lookup.entries
        for f, pair in zip(lookup.fields, entry.key, strict=True)
    )


def _have_the_fields(lookup: Lookup) -> bool:
    """Whether the key or the cube sees to it that packets have what the key asks for."""
    for field, needs, held in REQUIRES:
        if field not in lookup.fields:
            continue
        if needs in lookup.fields:
            index = lookup.fields.index(needs)
            if not all(held.covers(Ranges((entry.key[index],))) for entry in lookup.entries):
                return False
        elif not held.covers(lookup.cube[needs]):
            return False
    return True
