"""What lints say of random policies, against the interpreter and against rules without a statement.

`python -m tests.analysis.linting --seeds 300` looks at as many policies of each kind.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from policylang.analysis.diagram import Space
from policylang.analysis.lints import find_all
from policylang.analysis.lints.meaning import Meaning, meaning_of
from policylang.analysis.lints.redundant import lowered_without
from policylang.analysis.lints.subject import Subject
from policylang.diagnostics import Diagnostic, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Why
from policylang.ir.ruleset import Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges
from policylang.pipeline import Text, loaded_from, meant_by
from policylang.source import Span
from tests.analysis.brute import NOW, _grid
from tests.differential.compiling import FOLDER, NAME
from tests.differential.policies import random_policy
from tests.differential.probes import aimed_at
from tests.reference.interpreter import Moment, decide

REMOVABLE = ("unreachable", "changes-nothing")
OWN = Cube.of({Field.IIF: Ranges.of(0)})
IN_VAIN = (ir.RememberQuestion, ir.RememberAsker, ir.Leave)


@dataclass(frozen=True, slots=True)
class Linted:
    """A policy with what lints found in it."""

    subject: Subject
    found: tuple[Diagnostic, ...]


def linted(text: str) -> Linted | None:
    """What lints find in a policy; None where it has errors."""
    report = Report()
    loaded = loaded_from(Text(text, NAME, FOLDER), report)
    policy = meant_by(loaded, report)
    if policy is None:
        return None
    ruleset = lower(policy, report)
    if report.has_errors:
        return None
    subject = Subject(loaded, policy, ruleset)
    own = Report()
    find_all(subject, {}, own)
    return Linted(subject, own.in_order())


def wrong(seed: int, *, translates: bool, packets: int, tally: Counter[str]) -> Iterator[str]:
    """What lints say of a random policy and is not so; `tally` counts what they say."""
    text = random_policy(Random(seed), translates=translates)
    made = linted(text)
    if made is None:
        return
    subject = made.subject
    proof = _Proof(subject)
    for one in made.found:
        tally[one.code] += 1
        assert one.span is not None
        is_right = True
        if one.code in REMOVABLE:
            is_right = proof.is_same_without(one.span, is_reached=one.code != "unreachable")
            if not subject.policy.treatments:
                is_right = is_right and _decides_alike(subject.policy, one.span, seed, packets)
        elif one.code == "undone":
            is_right = proof.is_met_by_none(one.span)
        if not is_right:
            yield f"seed {seed}: {one.code} at `{one.span.text}`\n{text}"
    tally["policies"] += 1


@dataclass(slots=True)
class _Proof:
    """Looks at the rules of a policy without a statement."""

    subject: Subject

    def is_same_without(self, span: Span, *, is_reached: bool) -> bool:
        """Whether every packet fares the same without a statement, and leaves the same behind.

        What is left out: rates that the statement itself asks, and resets that go out because
        something answers by them, which it never does if nothing reaches it. Nor does it close
        anything then, or assign a helper that others keep away: questions are remembered for it,
        and packets left alone, in vain.
        """
        less = lowered_without(self.subject.policy, lambda statement: statement.span == span)
        if less is None or less.address_tests != self.subject.ruleset.address_tests:
            return True  # fields have other meanings then
        space = Space()
        before, after = (_without_resets(r) for r in (self.subject.ruleset, less))
        own = repr((span.file.name, span.start))
        met, met_after = (_told(meaning_of(r, space), own, is_reached) for r in (before, after))
        return met == met_after

    def is_met_by_none(self, span: Span) -> bool:
        """Whether no connection, on its whole way, meets what a rule decides or translates."""
        subject, space = self.subject, self.subject.space
        lines = {
            id(line)
            for base in subject.machine.bases
            if base.stage in (Stage.FILTER, Stage.SRCNAT)
            for line in subject.machine.chains[base.chain]
            if any(o.span == span and o.why is Why.WRITTEN for o in line.origins)
        }
        arrived = space.everything - space.of(OWN)
        journeys = (
            subject.follower.arriving(arrived),
            subject.follower.leaving(space.of(OWN)),
        )
        return not any(id(met.line) in lines for journey in journeys for met in journey.met)


def _told(meaning: Meaning, own: str, is_reached: bool) -> dict[object, object]:
    """What rules do, by where and what; what no packet meets is left out."""
    return {
        key: packets
        for key, packets in meaning.met.items()
        if packets
        and not (isinstance(key[2], ir.Log) and own in key[2].prefix)
        and (is_reached or not isinstance(key[2], IN_VAIN))
    }


def _without_resets(ruleset: Ruleset) -> Ruleset:
    def is_reset(rule: object) -> bool:
        return isinstance(rule, Rule) and any(o.why is Why.REJECT_ANSWER for o in rule.origins)

    chains = tuple(
        replace(chain, items=tuple(item for item in chain.items if not is_reset(item)))
        for chain in ruleset.chains
    )
    return replace(ruleset, chains=chains)


def _decides_alike(policy: Policy, span: Span, seed: int, packets: int) -> bool:
    """Whether the interpreter lets the same packets of a grid pass without a statement."""
    random = Random(seed)
    kept = tuple(statement for statement in policy.statements if statement.span != span)
    less = replace(policy, statements=kept)
    volley = aimed_at(policy, 40, random)
    moment = Moment(volley.members, NOW, random.random() < 0.8)
    for packet in islice(_grid(volley, random), packets):
        with_it, without = (decide(one, packet, moment) for one in (policy, less))
        if (with_it.accepted, with_it.answer) != (without.accepted, without.answer):
            return False
        if with_it.adds != without.adds:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.linting")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    tally: Counter[str] = Counter()
    count = 0
    for translates in (False, True):
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            for one in wrong(seed, translates=translates, packets=200, tally=tally):
                count += 1
                print(one)
    print(dict(tally), f"{count} wrong")
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
