"""What rules become, before any target spells them, is what LANGUAGE.md says: without a kernel.

`POLICYLANG_DIFFERENTIAL_SECONDS=600` runs as many seeds as fit into that time instead of
`POLICIES`. Broken lowerings are told from good ones by the same comparison.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from policylang.ir import actions as ir
from policylang.ir.actions import Guard
from policylang.ir.stages import Path as Way
from policylang.lower import (
    bans,
    before_routing,
    by_address,
    conditions,
    deciding,
    expected,
    forwards,
    hairpin,
    placing,
    protect,
    stateful,
    translations,
)
from policylang.lower.address_tests import AddressTests
from policylang.lower.paths import traffic_cube
from policylang.model.types import Conditions
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges
from tests.differential.compiling import RefusedError, resolved
from tests.differential.lowering import Difference, differences
from tests.differential.policies import random_policy
from tests.differential.translating import Mistranslation

# With those that translate: once a kernel's namespace has, it drops ICMP redirects that it is sent.
DIFFERED = sorted(Path(__file__).parent.glob("policies_that_differed/**/*.policy"))
POLICIES = 50
PROBES = 150
FIRST_SEED = 5000
MOST_POLICIES = 300  # until a broken lowering is told


def _differences(
    seed: int, probes: int, *, translates: bool = False
) -> Iterator[Difference | Mistranslation]:
    text = random_policy(Random(seed), translates=translates)
    try:
        policy = resolved(text)
    except RefusedError:
        return
    yield from differences(text, policy, probes, Random(seed))


def test_rules_are_lowered_to_what_the_language_says() -> None:
    seconds = float(os.environ.get("POLICYLANG_DIFFERENTIAL_SECONDS", 0))
    started = time.monotonic()
    seed = FIRST_SEED
    while seed < FIRST_SEED + POLICIES or time.monotonic() - started < seconds:
        for found in _differences(seed, PROBES):
            pytest.fail(f"seed {seed}: {found}", pytrace=False)
        seed += 1


def test_translations_are_lowered_to_what_the_language_says() -> None:
    seconds = float(os.environ.get("POLICYLANG_DIFFERENTIAL_SECONDS", 0))
    started = time.monotonic()
    seed = FIRST_SEED
    while seed < FIRST_SEED + POLICIES or time.monotonic() - started < seconds:
        for found in _differences(seed, PROBES, translates=True):
            pytest.fail(f"seed {seed}: {found}", pytrace=False)
        seed += 1


@pytest.mark.parametrize("policy", DIFFERED, ids=lambda path: path.stem)
def test_a_policy_that_once_differed_is_lowered_well(policy: Path) -> None:
    text = policy.read_text()
    for found in differences(text, resolved(text), 2 * PROBES, Random(FIRST_SEED)):
        pytest.fail(str(found), pytrace=False)


# --- the comparison can fail --------------------------------------------------------------------

_guards, _terms, _test_cube = conditions.guards, conditions.terms, AddressTests.cube


def _less_a_field(lost: Field) -> Callable[[Conditions], Cube]:
    return lambda said: _terms(said).without(lost)


def _less_a_guard(lost: type) -> Callable[[Conditions], tuple[Guard, ...]]:
    return lambda said: tuple(g for g in _guards(said) if not isinstance(g, lost))


def _test_of_the_other_end(tests: AddressTests, element: Any, address: Field) -> Cube:
    other = Field.SADDR if address is Field.DADDR else Field.DADDR
    return _test_cube(tests, element, other)


MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    **{
        f"{field.name} is lost": (placing, "terms", _less_a_field(field))
        for field in (
            *(Field.FAMILY, Field.SMAC, Field.SPORT),
            *(Field.DSCP, Field.SIZE, Field.IPSEC),
        )
    },
    **{
        f"{guard.__name__} is lost": (stateful, "guards", _less_a_guard(guard))
        for guard in (
            *(ir.MarkGuard, ir.OwnerGuard, ir.TimeGuard),
            *(ir.UntilGuard, ir.RateGuard, ir.ConnectionsGuard),
        )
    },
    "a test of the other end": (AddressTests, "cube", _test_of_the_other_end),
    "nothing is added": (deciding.Decider, "_steps", lambda *_: []),
    "bans are not read": (stateful, "banned", lambda *_: ()),
    "bans hold whatever stands before": (stateful, "shield", lambda one: ()),
    "answers are not turned": (bans, "_turned", lambda cube: cube),
    "answers tell everything": (bans, "_untold", lambda cube: ()),
    "screens do not look": (stateful, "screens", lambda policy: ((), (), ())),
    "requests for an address are forged": (protect, "_all_but_unrouted", Ranges),
    "a zone has any address": (protect, "_outside", lambda *_: ()),
    "nothing is expected of helpers": (
        expected,
        "_admitted",
        lambda *_: iter(()),
    ),
}


def _unseen(end: Cube, statement: forwards.Elsewhere) -> Cube:
    return _seen(end, statement).without(Field.ORIG_DADDR)


_seen, _renumbered = forwards._seen, forwards._renumbered
MISTRANSLATIONS: dict[str, tuple[Any, str, Any]] = {
    "what is translated is not allowed": (stateful, "companion", lambda *_: None),
    "what is allowed was dialled anywhere": (forwards, "_seen", _unseen),
    "a condition of a translation is lost": (
        translations,
        "guards",
        _less_a_guard(ir.MarkGuard),
    ),
    "a condition of what is translated is lost": (forwards, "terms", _less_a_field(Field.FAMILY)),
    "new ports are in no order": (
        forwards,
        "_renumbered",
        lambda traffic, new: _renumbered(traffic, (new[0], new[0])),
    ),
    "everybody is in a zone without networks": (
        by_address,
        "_zone_by_address",
        lambda zone, zones: replace(zone, interfaces=None),
    ),
    "hairpins are for the zones of their own clients alone": (
        forwards,
        "clients",
        lambda forward, zones: forward.source,
    ),
    "hairpins are for all zones": (hairpin, "_is_part", lambda element, zone: False),
    "a source changes inside IPsec": (translations, "PLAIN", EVERYTHING),
    "others' sources are own": (before_routing, "of_others", lambda cube: cube),
    "published ports are new ones": (placing, "dialled_cube", traffic_cube),
    "what this host sends goes by the way that it was to take": (
        placing,
        "_own",
        lambda rule, places: places.between(rule.source, rule.destination)[Way.OUTPUT],
    ),
    "answers to what was translated are not told": (
        bans,
        "TURNED",
        {f: t for f, t in bans.TURNED.items() if f not in (Field.DNATED, Field.ORIG_DPORT)},
    ),
}


# Where to look first, for the time that it takes; others show it, too.
SHOWN_BY = {
    "FAMILY is lost": 5006,
    "SIZE is lost": 5017,
    "IPSEC is lost": 5018,
    "UntilGuard is lost": 5014,
    "nothing is added": 5015,
    "bans are not read": 5006,
    "answers are not turned": 5009,
    "a zone has any address": 5017,
    "nothing is expected of helpers": 5012,
    "new ports are in no order": 5008,
    "SPORT is lost": 5023,
    "OwnerGuard is lost": 5092,
    "ConnectionsGuard is lost": 5026,
    "hairpins are for the zones of their own clients alone": 5021,
    "others' sources are own": 5020,
    "what is allowed was dialled anywhere": 7385,
    "a condition of a translation is lost": 5093,
    "a condition of what is translated is lost": 5247,
    "everybody is in a zone without networks": 5148,
    "hairpins are for all zones": 5071,
    "published ports are new ones": 7496,
    "what this host sends goes by the way that it was to take": 8146,
    "answers to what was translated are not told": 8168,
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_broken_lowering_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTATIONS[name])
    first = SHOWN_BY.get(name, FIRST_SEED)
    seeds = range(first, first + MOST_POLICIES)
    assert any(True for seed in seeds for _ in _broken(seed))


@pytest.mark.parametrize("name", MISTRANSLATIONS)
def test_broken_translation_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MISTRANSLATIONS[name])
    first = SHOWN_BY.get(name, FIRST_SEED)
    seeds = range(first, first + MOST_POLICIES)
    assert any(True for seed in seeds for _ in _broken(seed, translates=True))


def _broken(
    seed: int, *, translates: bool = False
) -> Iterator[Difference | Mistranslation | Exception]:
    """What differs; a lowering that breaks down altogether is told as well."""
    try:
        yield from _differences(seed, PROBES, translates=translates)
    except (KeyError, AssertionError) as error:
        yield error
