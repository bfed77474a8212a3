"""What an answer costs: test, query, diff, lint and verify, the whole process each."""

from __future__ import annotations

from pathlib import Path

from tests.benchmark.compiling import Task
from tests.benchmark.policies import expectations, overlapping_rules

MOST_S = {1_000: 3.0, 5_000: 15.0}  # by the number of statements
MOST_MIB = 500.0
YES_OR_NO = (0, 2)  # 2: the answer is no, differs, has findings


def tasks(directory: Path, *, as_root: bool) -> tuple[Task, ...]:
    """What is timed; the policies are written into `directory`. `verify` loads, and needs root."""
    found: list[Task] = []
    for count, most_s in MOST_S.items():
        times = 5 if count < 5_000 else 2
        old, new = directory / f"old-{count}.policy", directory / f"new-{count}.policy"
        text = overlapping_rules(count)
        old.write_text(text + expectations(50))
        new.write_text(_changed(text))

        commands: dict[str, tuple[str, ...]] = {
            "test": ("test", str(old)),
            "query": ("query", str(old), "ssh from any to self"),
            "diff": ("diff", str(old), str(new)),
            "lint": ("lint", str(old)),
        }
        if as_root:
            commands |= {
                f"verify, {target}": ("verify", str(old), "--target", target)
                for target in ("nft", "iptables")
            }
        found += (
            Task(f"{name}, {count:,} statements", words, times, most_s, MOST_MIB, YES_OR_NO)
            for name, words in commands.items()
        )
    return tuple(found)


def _changed(text: str) -> str:
    """The policy with a few statements left out, and one more."""
    lines = text.splitlines()
    kept = [line for number, line in enumerate(lines) if number < 3 or number % 300]
    return "\n".join([*kept, "allow ssh inbound from lan"]) + "\n"
