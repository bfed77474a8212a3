"""Proves random policies until time is up: `python -m tests.analysis.agreeing --seconds 600`.

Each policy of the differential campaign's author is loaded by every way in scratch namespaces, and
what the kernel lists is compared with what the policy means. A policy that does not agree is
written down; it is a mistake of a backend, of a reader or of the proof.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from policylang.cli.render import Renderer
from policylang.pipeline import Text
from tests.analysis.ways import WAYS, RefusedError, rules_of, verified
from tests.differential.compiling import FOLDER, NAME
from tests.differential.policies import random_policy


def main() -> int:
    """Run; the exit status is 1 where anything did not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--step", type=int, default=1, help="from one seed to the next")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--keep", type=Path, help="a folder for policies that do not agree")
    chosen = parser.parse_args()
    with tempfile.NamedTemporaryFile() as lock:
        os.environ["XTABLES_LOCKFILE"] = lock.name
        return _run(chosen)


def _run(chosen: argparse.Namespace) -> int:
    end = time.monotonic() + chosen.seconds
    counts: Counter[str] = Counter()
    seed = chosen.seed
    while time.monotonic() < end:
        text = random_policy(Random(seed), translates=seed % 3 == 0)
        for way in chosen.ways.split(","):
            counts[_one(text, way, seed, chosen.keep)] += 1
        seed += chosen.step
    print(f"seeds {chosen.seed}-{seed - chosen.step}: {dict(counts)}")
    return 1 if counts["differs"] else 0


def _one(text: str, way: str, seed: int, keep: Path | None) -> str:
    try:
        ruleset = rules_of(Text(text, NAME, FOLDER))
        report = verified(ruleset, way)
    except RefusedError:
        return "refused"
    if not report.diagnostics:
        return "agrees"
    if not report.has_errors:
        return "not proved"
    print(f"seed {seed}, {way}")
    print(Renderer(color=False).render(report.in_order()), flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{seed}-{way}.policy").write_text(text)
    return "differs"


if __name__ == "__main__":
    sys.exit(main())
