"""Every optimiser pass leaves the fate of every packet as it was (invariant 12).

Rulesets are made at random, packets are taken from the edges of what these speak of, and each
meets the same verdict, the same logs and the same rates before and after. What a pass makes is
well formed, too. Broken passes are told from good ones by the same checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policylang.diagnostics import Report
from policylang.ir.actions import Jump, is_terminal
from policylang.ir.ruleset import Chain, Item, Lookup, Rule, Ruleset
from policylang.optimise import Pass, dispatch, gather, merge, optimise, order, passes, shadow
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from tests.passes.checking import complaint, told
from tests.passes.rulesets import made, pruned

SEEDS = range(200)

PASSES: dict[str, Pass] = {
    "nothing": lambda ruleset, report: ruleset,
    **{one.__name__: one for one in passes()},
    "all": optimise,
    "all twice": lambda ruleset, report: optimise(optimise(ruleset, report), report),
    "all backwards": lambda ruleset, report: _in_turn(ruleset, *reversed(passes())),
}


def _in_turn(ruleset: Ruleset, *all_of_them: Pass) -> Ruleset:
    for one in all_of_them:
        ruleset = one(ruleset, Report())
    return ruleset


@pytest.mark.parametrize("name", PASSES)
def test_pass_leaves_every_fate_as_it_was(name: str) -> None:
    one = PASSES[name]
    for seed in SEEDS:
        ruleset = made(seed)
        if complaint(ruleset, one, seed) is not None:
            pytest.fail(f"seed {seed}: {told(ruleset, one, seed)}", pytrace=False)


def test_passes_have_something_to_do() -> None:
    done: Counter[str] = Counter()
    for seed in SEEDS:
        ruleset = made(seed)
        for one in passes():
            after = one(ruleset, Report())
            done[one.__name__] += after != ruleset
            ruleset = after
        for lookup in (i for c in ruleset.chains for i in c.items if isinstance(i, Lookup)):
            if any(isinstance(entry.action, Jump) for entry in lookup.entries):
                done["dispatching lookups"] += 1
            elif lookup.action is None:
                done["maps of verdicts"] += 1
            else:
                done["sets"] += 1
            done["keys of several fields"] += len(lookup.fields) > 1
    assert len(done) == 8 and min(done.values()) >= 5, done


# --- the checks can fail ----------------------------------------------------------------------


def _losing_a_term(ruleset: Ruleset, report: Report) -> Ruleset:
    """Invariant 2 broken: a condition is lost."""

    def wider(item: Item) -> Item:
        return replace(item, cube=Cube.of(dict(item.cube.terms[1:])))

    return _with_items(ruleset, lambda items: tuple(wider(i) for i in items))


def _losing_a_rule(ruleset: Ruleset, report: Report) -> Ruleset:
    return pruned(_with_items(ruleset, lambda items: items[1:] if len(items) > 2 else items))


def _in_another_order(ruleset: Ruleset, report: Report) -> Ruleset:
    return _with_items(ruleset, lambda items: (*reversed(items[:-1]), *items[-1:]))


def _deciding_early(ruleset: Ruleset, report: Report) -> Ruleset:
    """Rules that decide before those that log."""

    def decides(item: Item) -> bool:
        return isinstance(item, Rule) and is_terminal(item.action)

    return _with_items(
        ruleset, lambda items: (*sorted(items[:-1], key=decides, reverse=True), *items[-1:])
    )


def _leaving_chains_behind(ruleset: Ruleset, report: Report) -> Ruleset:
    return replace(ruleset, chains=(*ruleset.chains, Chain("nobody reads this", ())))


def _with_items(
    ruleset: Ruleset, change: Callable[[tuple[Item, ...]], tuple[Item, ...]]
) -> Ruleset:
    chains = tuple(replace(chain, items=change(chain.items)) for chain in ruleset.chains)
    return replace(ruleset, chains=chains)


@pytest.mark.parametrize(
    "broken",
    [
        _losing_a_term,
        _losing_a_rule,
        _in_another_order,
        _deciding_early,
        _leaving_chains_behind,
    ],
)
def test_broken_pass_is_told(broken: Pass) -> None:
    assert any(complaint(made(seed), broken, seed) is not None for seed in SEEDS)


ALWAYS: Callable[..., bool] = lambda *_: True  # noqa: E731 - one of the values of the table below

NO_CHANGE: Callable[..., frozenset[Field]] = lambda action: frozenset()  # noqa: E731 - another

MUTATIONS: list[tuple[str, Pass, Any, str, Callable[..., Any]]] = [
    ("merge swaps what must not be swapped", merge.merge, merge, "_in_reach", ALWAYS),
    (
        "merge swaps what must not be swapped, as far as it has grown",
        merge.merge,
        merge._Growing,
        "may_swap",
        ALWAYS,
    ),
    ("merge takes a log for a verdict", merge.merge, merge, "is_plain", ALWAYS),
    ("dispatch moves rules past others", dispatch.dispatch, dispatch, "may_pass", ALWAYS),
    ("dispatch mixes patterns that overlap", dispatch.dispatch, dispatch._Run, "fits", ALWAYS),
    (
        "dispatch copies a rate",
        dispatch.dispatch,
        dispatch,
        "_asked_once",
        lambda members: {},
    ),
    ("gather moves rules past others", gather.gather, gather, "may_swap", ALWAYS),
    ("gather takes a log for a verdict", gather.gather, gather, "is_plain", ALWAYS),
    (
        "gather sees no overlap",
        gather.gather,
        gather,
        "_overlapping",
        lambda keys: set(),
    ),
    ("shadow takes touching for covering", shadow.shadow, Cube, "covers", Cube.meets),
    ("shadow takes a log for a verdict", shadow.shadow, shadow, "is_plain", ALWAYS),
    ("shadow leaves chains", shadow.shadow, shadow, "read", lambda chains, names: set(chains)),
    ("shadow forgets what changes packets", shadow.shadow, shadow, "changes", NO_CHANGE),
    ("merge forgets what changes packets", merge.merge, order, "changes", NO_CHANGE),
    ("gather reads other stages", gather.gather, gather, "read", lambda chains, names: set()),
]


@pytest.mark.parametrize(
    ("one", "where", "name", "instead"),
    [mutation[1:] for mutation in MUTATIONS],
    ids=[mutation[0] for mutation in MUTATIONS],
)
def test_mutated_pass_is_told(
    one: Pass,
    where: Any,
    name: str,
    instead: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, instead)
    assert any(complaint(made(seed), one, seed) is not None for seed in range(600))
