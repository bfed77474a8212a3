"""Names of chains and prefixes of log lines."""

from __future__ import annotations

from policylang.ir.stages import Path, Stage


def base_chain(stage: Stage, path: Path) -> str:
    """The name of the chain that packets enter on a stage and path."""
    return path.value if stage is Stage.FILTER else f"{stage.value}-{path.value}"


def log_prefix(what: str, direction: str | None) -> str:
    """What a log line starts with where the policy gives no prefix of its own.

    `direction` is the policy's word for the path, None before the paths part.
    """
    return f"{what}: " if direction is None else f"{what} {direction}: "
