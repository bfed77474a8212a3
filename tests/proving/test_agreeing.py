"""What is proved of every packet the kernel shows with those that it is shown; others fail there.

`python -m tests.proving.agreeing --seconds 600` goes on with random policies.
"""

from __future__ import annotations

import os

import pytest

from tests.kernel.ground import obstacle
from tests.proving.agreeing import Tally, compare

SEEDS = (5, 13)


def test_proofs_and_the_kernel_agree() -> None:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    tally = Tally()
    for seed in SEEDS:
        compare(seed, "nft", tally, most=60, questions=3)
    assert not tally.differences, tally.differences[0]
    assert tally.policies == len(SEEDS)
    assert tally.seen[True, "ok"] and tally.seen[False, "failed"], tally
