"""Names of chains and prefixes of log lines."""

from __future__ import annotations

from policylang.ir.stages import Path, Stage


def base_chain(stage: Stage, path: Path) -> str:
    """The name of the chain that packets enter on a stage and path."""
    return path.value if stage is Stage.FILTER else f"{stage.value}-{path.value}"


def log_prefix(verb: str, path: Path) -> str:
    """What a log line starts with where the policy gives no prefix of its own."""
    return f"{verb} {path.value}: "
