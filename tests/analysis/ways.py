"""Policies, loaded by each way in scratch namespaces and proved; what is wrong is in the report."""

from __future__ import annotations

from policylang.apply import engines, proved, transaction
from policylang.apply.engine import Engine
from policylang.apply.transaction import Rehearsal
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.pipeline import Source, artifact_of, lowered, optimised

WAYS = ("nft", "iptables-nft", "iptables-legacy")


class RefusedError(Exception):
    """The policy compiles to nothing for a target; the message says why."""


def rules_of(source: Source) -> Ruleset:
    """What the statements of a policy say; raises `RefusedError`."""
    report = Report()
    ruleset = lowered(source, report)
    if ruleset is None or report.has_errors:
        raise RefusedError(_errors(report))
    return ruleset


def rehearsed(ruleset: Ruleset, way: str) -> tuple[Engine, Rehearsal]:
    """Rules, loaded by a way in a scratch namespace; raises `RefusedError`."""
    report = Report()
    rules = optimised(ruleset, report)
    artifact = None if rules is None else artifact_of(rules, way.partition("-")[0], report)
    if artifact is None:
        raise RefusedError(_errors(report))
    engine = engines.by_way(way)
    rehearsal = transaction.rehearsal(artifact, engine, report)
    if rehearsal is None:
        raise RefusedError(_errors(report))
    return engine, rehearsal


def verified(ruleset: Ruleset, way: str) -> Report:
    """What the proof of rules by a way reports; raises `RefusedError`."""
    engine, rehearsal = rehearsed(ruleset, way)
    report = Report()
    proved.is_proved(ruleset, rehearsal, engine, report)
    return report


def _errors(report: Report) -> str:
    return "; ".join(f"{d.code}: {d.message}" for d in report.in_order())
