"""All policies of the golden cases and of the examples, those that they include as well."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.ground import REPOSITORY

POLICIES = sorted(
    path
    for folder in ("tests/golden", "examples")
    for path in (REPOSITORY / folder).rglob("*.policy")
)
# Less those that are parts of others and mean nothing by themselves.
WHOLE = [path for path in POLICIES if path.parent.name not in ("parts", "site")]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()
