"""Whether the proof finds mistakes of the backends: `python -m tests.analysis.mutants`.

Each mutation of `mutations.py` is made in a copy of the package, and the golden policies and the
examples are compiled, loaded and proved with it until one does not agree. `found` is what the proof
found; `refused` what the compiler or the kernel did not take, so that nothing was loaded either;
`survives` what nobody noticed, or `explained` where it is known why.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.analysis.mutations import EXPLAINED, MUTATIONS, Mutation

REPOSITORY = Path(__file__).resolve().parents[2]
FOUND, REFUSED, SURVIVES = 0, 10, 11  # exit statuses of a judge


def main() -> int:
    """Try all mutations, or those that have a word; 1 where one survives unexplained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutations that have one of these")
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.judge:
        return _judge(chosen.judge)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("policylang", "templates", "examples"):
            shutil.copytree(REPOSITORY / name, Path(folder) / name)
        (Path(folder) / "tests").symlink_to(REPOSITORY / "tests")
        for mutation in MUTATIONS:
            text = f"{mutation.file} {mutation.old} {mutation.new}"
            if not chosen.words or any(word in text for word in chosen.words):
                counts[_tried(mutation, Path(folder))] += 1
    print(dict(counts))
    return 1 if counts["survives"] else 0


def _tried(mutation: Mutation, folder: Path) -> str:
    began = time.monotonic()
    file = folder / mutation.file
    before = file.read_text()
    assert before.count(mutation.old) == 1, f"{mutation.file} has {mutation.old!r} not once"
    file.write_text(before.replace(mutation.old, mutation.new))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.analysis.mutants", "--judge", _way(mutation)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            check=False,
        )
    finally:
        file.write_text(before)
    result = {FOUND: "found", REFUSED: "refused", SURVIVES: "survives"}.get(done.returncode)
    words = done.stdout.decode().strip()
    if result is None:  # a crash of the compiler, or of the proof
        result, words = "refused", done.stderr.decode().strip().splitlines()[-1]
    if result == "survives" and (mutation.file, mutation.old) in EXPLAINED:
        result, words = "explained", EXPLAINED[mutation.file, mutation.old]
    print(f"{result:9} {time.monotonic() - began:5.1f}s  {mutation.file}: {mutation.new[:70]!r}")
    print(f"    {words[:200]}", flush=True)
    return result


def _way(mutation: Mutation) -> str:
    """The way to load that a mistake can be seen by; what both have in common is seen by nft."""
    return "iptables-legacy" if "iptables" in mutation.file else "nft"


def _judge(way: str) -> int:
    """Prove policies with the package as it is; the exit status says what came of it."""
    from tests.analysis.ways import RefusedError, rules_of, verified

    with tempfile.NamedTemporaryFile() as lock:
        os.environ["XTABLES_LOCKFILE"] = lock.name
        refused = ""
        for policy in reversed(policies()):
            try:
                report = verified(rules_of(policy), way)
            except RefusedError as error:
                if (policy.parent.name, way) not in NOT_HERE:
                    refused = refused or f"{policy.parent.name}: {error}"
                continue
            if report.has_errors:
                first = report.in_order()[0]
                print(f"{policy.parent.name}: {first.code}: {first.message}")
                return FOUND
    print(refused)
    return REFUSED if refused else SURVIVES


NOT_HERE = {("queue", "nft")}  # this kernel has no queues of nft


def policies() -> list[Path]:
    """What is proved with each mutation: the golden policies, and the examples."""
    found = [
        *(REPOSITORY / "tests/golden").glob("*/policy.policy"),
        *(REPOSITORY / "examples").glob("*/*.policy"),
        *(REPOSITORY / "tests/analysis/proved").glob("*.policy"),
    ]
    return sorted(found, key=lambda path: (path.parent.name == "proved", path))


if __name__ == "__main__":
    sys.exit(main())
