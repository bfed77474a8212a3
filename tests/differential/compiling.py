"""Compiles a policy's text in this process, and keeps the resolved model for the interpreter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.model.policy import Policy
from policylang.model.resolve import resolve
from policylang.pipeline import Text, artifact_of, ruleset_of
from policylang.syntax.loader import load_text

NAME = "random.policy"
FOLDER = Path(__file__).parent  # of the lock file, which has what lists from elsewhere hold


class RefusedError(Exception):
    """The policy has errors; they are the message."""


@dataclass(frozen=True, slots=True)
class Compiled:
    policy: Policy
    artifacts: dict[str, Artifact]


def resolved(text: str) -> Policy:
    """What a policy means; raises `RefusedError`."""
    report = Report()
    policy = resolve(load_text(text, NAME, FOLDER, report), report)
    _insist(report)
    return policy


def compiled(text: str, targets: Iterable[str]) -> Compiled:
    """What a policy means and what becomes of it on each target; raises `RefusedError`."""
    policy = resolved(text)
    report = Report()
    ruleset = ruleset_of(Text(text, NAME, FOLDER), report)
    _insist(report)
    assert ruleset is not None
    artifacts = {}
    for target in targets:
        artifact = artifact_of(ruleset, target, report)
        _insist(report)
        assert artifact is not None
        artifacts[target] = artifact
    return Compiled(policy, artifacts)


def _insist(report: Report) -> None:
    if report.has_errors:
        errors = (d for d in report.in_order() if d.severity == "error")
        raise RefusedError("; ".join(f"{d.code}: {d.message}" for d in errors))
