"""`python -m tests.differential --seconds 600 --seed 1`: random policies until the time is up.

`--policy FILE` shoots at one policy instead, from as many seeds.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.differential.campaign import Tally, run_policy, run_seed, shooting_range
from tests.differential.loading import Way
from tests.differential.shrinking import shrunk, shrunk_failure
from tests.kernel.ground import obstacle


def main() -> int:
    """Run seeds from `--seed` on; print what differs, and each kind once with a small policy."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--policies", type=int, default=10**9, help="at most so many")
    parser.add_argument("--probes", type=int, default=1000, help="for each policy")
    parser.add_argument("--policy", type=Path, help="this one instead of random ones")
    parser.add_argument("--way", choices=[way.name for way in Way], action="append")
    parser.add_argument("--shrink", type=int, default=5, help="how many discrepancies")
    chosen = parser.parse_args()
    reason = obstacle()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    ways = tuple(Way[name] for name in chosen.way) if chosen.way else tuple(Way)
    # Ended from outside, it still takes its namespaces away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tally = Tally()
    started = time.monotonic()
    seed = chosen.seed
    kinds: set[str] = set()
    with shooting_range(ways) as ground:
        while time.monotonic() - started < chosen.seconds and seed < chosen.seed + chosen.policies:
            before, told = len(tally.discrepancies), len(tally.failures)
            if chosen.policy is None:
                run_seed(ground, seed, chosen.probes, tally)
            else:
                run_policy(ground, chosen.policy.read_text(), seed, chosen.probes, tally)
            found = tally.discrepancies[before:]
            if found and chosen.shrink > 0:
                chosen.shrink -= 1
                print(
                    f"{len(found)} in this policy, one of them:\n{shrunk(ground, found[0])}\n",
                    flush=True,
                )
            for failure in tally.failures[told:]:
                if failure.kind not in kinds:
                    kinds.add(failure.kind)
                    print(f"{shrunk_failure(ground, failure)}\n", flush=True)
            seed += 1
        took = time.monotonic() - started
    for refused_seed, why in tally.refused:
        print(f"seed {refused_seed} refused: {why}")
    seeds = sorted({d.seed for d in tally.discrepancies})
    print(f"seeds {chosen.seed} to {seed - 1} in {took:.1f} s: {tally}")
    print(f"seeds with discrepancies: {seeds}")
    return 1 if tally.discrepancies or tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
