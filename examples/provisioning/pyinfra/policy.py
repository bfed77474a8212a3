"""Operations of pyinfra that put a policy on a host and in force, and the fact that they ask."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path, PurePosixPath
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.operations import files


class Outcome(FactBase[dict[str, Any] | None]):
    """What `policylang apply --check --json` says of a policy; None where it says nothing.

    The text is checked before it is there for good: a dry run tells the truth, and a policy with an
    error never takes the place of one without.
    """

    def command(self, content: str, called: str) -> StringCommand:
        place = StringCommand('"$folder"/', QuoteString(called), _separator="")
        return StringCommand(
            *("folder=$(mktemp -d) && printf %s", QuoteString(content), ">", place),
            *("&& policylang apply", place, "--check --json;", 'rm -r "$folder"'),
        )

    def process(self, output: list[str]) -> dict[str, Any] | None:
        return json.loads("\n".join(output)) if output else None


def _outcome(src: str, dest: str) -> dict[str, Any]:
    text = Path(src).read_text(encoding="utf-8")
    outcome = host.get_fact(Outcome, content=text, called=PurePosixPath(dest).name)
    return outcome or {"error": "policylang said nothing: is it installed?"}


@operation()
def in_place(src: str, dest: str) -> Generator[StringCommand]:
    """Put the policy `src` at `dest`, if it has no error and could be loaded.

    A host where that is not so fails, with the error, and the others go on.
    """
    error = _outcome(src, dest)["error"]
    if error is not None:
        yield StringCommand("echo", QuoteString(error), ">&2; false")
        return
    yield from files.put._inner(src=src, dest=dest, mode="644")


@operation()
def in_force(src: str, dest: str, confirm_s: int | None = None) -> Generator[StringCommand]:
    """Load the policy `src`, which lies at `dest`, if that changes any rule.

    With `confirm_s` the kernel takes it back after so many seconds unless it is confirmed.
    """
    if not _outcome(src, dest).get("changed"):
        host.noop(f"{dest} is in force")
        return
    how = "--no-confirm" if confirm_s is None else f"--confirm {confirm_s}s"
    yield StringCommand("policylang apply", QuoteString(dest), "--yes", how)
