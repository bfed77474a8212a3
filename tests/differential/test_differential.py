"""What LANGUAGE.md lets through is what three loaders make the kernel let through, and no more.

`POLICYLANG_DIFFERENTIAL_SECONDS=600` runs as many seeds as fit into that time instead of
`POLICIES`; `python -m tests.differential` does the same by hand.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.differential.campaign import Range, Tally, run_policy, run_seed, shooting_range
from tests.differential.compiling import compiled
from tests.differential.loading import Way
from tests.differential.probes import aimed_at
from tests.differential.shrinking import shrunk, shrunk_failure
from tests.kernel.ground import obstacle
from tests.reference.interpreter import decide

POLICIES = 50
PROBES = 900
FIRST_SEED = 1000
DIFFERED = sorted(Path(__file__).parent.glob("policies_that_differed/*.policy"))


@pytest.fixture(scope="module")
def ground() -> Iterator[Range]:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with shooting_range() as made:
        yield made


def test_kernel_does_what_the_language_says(ground: Range) -> None:
    seconds = float(os.environ.get("POLICYLANG_DIFFERENTIAL_SECONDS", 0))
    started = time.monotonic()
    tally = Tally()
    seed = FIRST_SEED
    while seed < FIRST_SEED + POLICIES or time.monotonic() - started < seconds:
        run_seed(ground, seed, PROBES, tally)
        seed += 1
    print(tally)
    tally.failures[:1] = [shrunk_failure(ground, f) for f in tally.failures[:1]]
    tally.discrepancies[:1] = [shrunk(ground, d) for d in tally.discrepancies[:1]]
    _fail_for_what_differs(tally)
    assert len(tally.refused) <= tally.policies / 4, tally.refused
    # The test is worth something: most probes reach a hook, on every path and in every state,
    # and neither verdict is rare.
    assert tally.judged > 0.7 * tally.thrown, tally
    for path in ("inbound", "outbound", "forward"):
        for state in ("new", "established", "related", "invalid", "untracked"):
            assert tally.reached[path, state] > tally.judged / 1000, (path, state, tally)
    assert 0.1 < tally.accepted / tally.judged < 0.9, tally


@pytest.mark.parametrize("policy", DIFFERED, ids=lambda path: path.stem)
def test_a_policy_that_once_differed(ground: Range, policy: Path) -> None:
    """Each file begins with the sentence that the kernel once gave the lie."""
    tally = Tally()
    run_policy(ground, policy.read_text(), FIRST_SEED, PROBES, tally)
    assert tally.judged
    _fail_for_what_differs(tally)


def _fail_for_what_differs(tally: Tally) -> None:
    if tally.failures:
        failure = tally.failures[0]
        pytest.fail(f"{len(tally.failures)} failures, such as\n{failure}", pytrace=False)
    if tally.discrepancies:
        one = tally.discrepancies[0]
        pytest.fail(f"{len(tally.discrepancies)} of them, such as\n{one}", pytrace=False)


DAMAGED = """
zone lan { interface lan0  network 10.1.0.0/16 }
allow tcp 1000-2000 inbound from lan
deny icmp 13 from 10.1.0.0/16 to 192.0.2.0/24
default allow forward
"""
# Every mention of a condition in what either target compiles `DAMAGED` to.
CONDITIONS = {
    "the interface": r'iifname "lan0" |-i lan0 ',
    "the source": r"ip saddr 10\.1\.0\.0/16 |-s 10\.1\.0\.0/16 ",
    "the destination": r"ip daddr 192\.0\.2\.0/24 |-d 192\.0\.2\.0/24 ",
    "the ports": r"tcp dport 1000-2000 |--dport 1000:2000 ",
    "the ICMP type": r"icmp type timestamp-request |--icmp-type 13 ",
    "the state": r"ct state invalid |-m conntrack --ctstate INVALID ",
}


@pytest.mark.parametrize("way", Way)
def test_a_lost_condition_is_found_out(ground: Range, way: Way) -> None:
    """A ruleset without one of its conditions is not taken for the policy."""
    result = compiled(DAMAGED, [way.target])
    artifact = result.artifacts[way.target]
    volley = aimed_at(result.policy, 600, Random(7))
    packets = ground.packets(volley)
    verdicts = {serial: decide(result.policy, packet) for serial, packet in packets.items()}
    assert not ground.wrong_ones(way, artifact, volley, packets, verdicts)
    for condition, spelling in CONDITIONS.items():
        files = [replace(file, text=re.sub(spelling, "", file.text)) for file in artifact.files]
        assert [f.text for f in files] != [f.text for f in artifact.files], condition
        damaged = replace(artifact, files=tuple(files))
        assert ground.wrong_ones(way, damaged, volley, packets, verdicts), condition
