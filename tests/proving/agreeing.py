"""`python -m tests.proving.agreeing --seconds 300`: what is proved, and what the kernel shows.

Of random policies each rule is taken for a question: whether all its packets pass, and whether
none does. What is proved of all packets the kernel must show with those that it is shown; where a
proof fails, the packets that are thrown should find that out as well, which is counted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from policylang.analysis.diagram import TooLargeError
from policylang.analysis.expectations import proved
from policylang.analysis.modelled import machine_of
from policylang.analysis.questions import Beginnings
from policylang.diagnostics import Report
from policylang.lower.asked import asking
from policylang.lower.stateful import lower
from policylang.model.expectations import PacketExpectation, Test, Wanted
from policylang.model.policy import Policy
from policylang.model.types import PolicyRule
from policylang.proving import Status, prove
from tests.differential.compiling import RefusedError, resolved
from tests.differential.policies import random_policy
from tests.kernel.ground import obstacle

MOST_QUESTIONS = 6  # of one policy


@dataclass(slots=True)
class Tally:
    """Expectations by what is proved of them and what the kernel shows; what cannot be is told."""

    policies: int = 0
    packets: int = 0
    seen: Counter[tuple[bool, str]] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        false = sum(n for (holds, _), n in self.seen.items() if not holds)
        found = self.seen[False, Status.FAILED.value]
        told = ", ".join(f"{h} {what} {n}" for (h, what), n in sorted(self.seen.items()))
        return (
            f"{self.policies} policies, {self.packets} packets; proved and shown: {told}\n"
            f"of {false} that do not hold {found} were found out by packets\n"
            f"{len(self.differences)} differences"
        )


def expectations_of(
    policy: Policy, random: Random, questions: int = MOST_QUESTIONS
) -> tuple[PacketExpectation, ...]:
    """That all packets of a rule pass, and that none does, for some of the rules."""
    rules = [rule for rule in policy.rules if rule.what]
    chosen = random.sample(rules, min(questions, len(rules)))
    return tuple(one for rule in chosen for one in _both(rule))


def _both(rule: PolicyRule) -> Iterator[PacketExpectation]:
    uncounted = replace(rule.conditions, limit=None, connections=None)
    asked = replace(rule, conditions=uncounted, adds=(), log=None)
    for wanted in (Wanted.ALLOW, Wanted.DENY):
        yield PacketExpectation(wanted, False, asked, None, rule.span)


def compare(
    seed: int,
    target: str | None,
    tally: Tally,
    *,
    most: int = 300,
    questions: int = MOST_QUESTIONS,
) -> None:
    """Prove what is expected of a random policy, and play the same in the kernel."""
    try:
        policy = resolved(random_policy(Random(seed), translates=seed % 2 == 0))
    except RefusedError:
        return
    expected = expectations_of(policy, Random(seed), questions)
    if not expected:
        return
    report = Report()
    test = Test("random", expected, expected[0].span)
    try:
        proofs = _proofs(policy, expected, report)
    except TooLargeError:
        return
    results = prove(policy, report, target=target, tests=[test], most=most)
    if results is None:
        assert report.has_errors
        return
    tally.policies += 1
    for number, result in enumerate(results):
        one = expected[number % len(expected)]
        holds = proofs[number % len(expected)]
        if holds is None:
            continue
        tally.seen[holds, result.status.value] += 1
        tally.packets += result.tried
        if holds and result.status is Status.FAILED:
            tally.differences.append(
                f"seed {seed}, {result.way}: `{one.wanted} {one.span.text}` is proved, but"
                f" {result.said}\n{result.packet}"
            )


def _proofs(
    policy: Policy, expected: tuple[PacketExpectation, ...], report: Report
) -> list[bool | None]:
    """Whether each is proved; None for what is about nobody."""
    asker = asking(policy, [one.asked for one in expected], report)
    lowered = lower(policy, report)
    if report.has_errors:
        return [None] * len(expected)
    beginnings = Beginnings(machine_of(lowered), asker.tests, policy.zones)
    found: list[bool | None] = []
    for one in expected:
        proof = proved(one, asker.asked(one.asked), beginnings)
        is_empty = not proof.holds and proof.counterexample is None
        found.append(None if is_empty else proof.holds)
    return found


def main() -> int:
    """Run seeds until the time is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.proving.agreeing")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--target", choices=("nft", "iptables"))
    chosen = parser.parse_args()
    reason = obstacle()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tally, started, seed = Tally(), time.monotonic(), chosen.seed
    while time.monotonic() - started < chosen.seconds:
        before = len(tally.differences)
        compare(seed, chosen.target, tally)
        for story in tally.differences[before:]:
            print(f"{story}\n", flush=True)
        seed += 1
    print(f"seeds {chosen.seed} to {seed - 1} in {time.monotonic() - started:.0f} s: {tally}")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
