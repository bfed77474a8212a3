"""`policylang lint`: what is right in policies and yet hardly meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from policylang.cli.formats import placed
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import summary
from policylang.cli.teller import show
from policylang.diagnostics import Report

if TYPE_CHECKING:
    from policylang.ir.ruleset import Ruleset
    from policylang.pipeline import Source


def run(chosen: argparse.Namespace, sources: Iterable[tuple[str, Source]], report: Report) -> int:
    """Lint policies, each with what lines call it; the exit status.

    2 where something was found, 1 where a policy has errors or a finding is denied.
    """
    found: list[tuple[str, Report]] = []
    for name, source in sources:
        own = Report()
        lint(name, source, chosen.parameters, own)
        found.append((name, placed(_without(own, chosen.allow), name, chosen.format)))
    for _, own in found:
        report.take(own)
    codes = {diagnostic.code for diagnostic in report.diagnostics}
    is_text = chosen.format == "text"
    show(report, chosen, sys.stderr if is_text else sys.stdout)
    if is_text:
        for name, own in found:
            counts = summary(own.diagnostics)
            print(f"{name}: {counts or 'nothing found'}")
    if report.has_errors or codes & set(chosen.deny):
        return REFUSED
    return CHANGES if codes else DONE


def _without(report: Report, codes: Iterable[str]) -> Report:
    left_out = set(codes)
    kept = [d for d in report.diagnostics if d.code not in left_out or d.severity == "error"]
    return Report(kept, report.heeded)


def lint(name: str, source: Source, parameters: dict[str, str], report: Report) -> None:
    """Report what is found in a policy, what `check` warns of included; and `too-large`."""
    from policylang import pipeline
    from policylang.analysis.diagram import TooLargeError
    from policylang.analysis.lints import find_all
    from policylang.analysis.lints.silenced import find_idle
    from policylang.analysis.lints.subject import Subject
    from policylang.lower.stateful import lower
    from policylang.optimise import optimise

    loaded = pipeline.loaded_from(source, report, parameters)
    if loaded.hosts and loaded.here is None and not report.has_errors:
        from policylang.cli.fleet import for_each_host

        for_each_host(loaded, lambda one, own: lint(name, one, parameters, own), report)
        return
    policy = pipeline.meant_by(loaded, report)
    if policy is None:
        return
    ruleset = lower(policy, report)
    if report.has_errors:
        return
    _try_targets(optimise(ruleset, report), report)
    if report.has_errors:
        return
    subject = Subject(loaded, policy, ruleset)
    try:
        find_all(subject, parameters, report)
        find_idle(subject, report)
    except TooLargeError:
        report.add(
            "too-large",
            f"the rules of `{name}` make too many different packets to be told apart",
            None,
            help="fewer statements that overlap in everything, or a part of them, may do",
        )
        return
    if subject.is_cut:
        report.add(
            "lint-limit",
            f"not everything was looked at in `{name}`, which has {len(policy.statements)} "
            "statements",
            None,
            help="what is told holds, and more may be so",
        )


def _try_targets(ruleset: Ruleset, report: Report) -> None:
    """Take the warnings of all targets that can do what the policy asks for.

    Where none can, take the errors.
    """
    from policylang import pipeline
    from policylang.backends import TARGETS

    tried = [Report() for _ in TARGETS]
    for target, own in zip(TARGETS, tried, strict=True):
        pipeline.artifact_of(ruleset, target, own)
    able = [own for own in tried if not own.has_errors]
    for own in able or tried[:1]:
        report.take(own)
