"""Checks a policy for a tool that asks about a file, not about a target; knows no such tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policylang import pipeline
from policylang.backends import TARGETS
from policylang.cli.fleet import for_each_host, merge
from policylang.cli.visible import visible
from policylang.diagnostics import Diagnostic, Report
from policylang.source import Span
from policylang.syntax.tree import Loaded


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy as it was read, and what was found, for each of its hosts.

    `report` has an error where nothing can be made of the policy. `refused` are targets that it is
    not for, while it is for another.
    """

    loaded: Loaded
    report: Report
    refused: Mapping[str, Report]


def checked(source: pipeline.Source, given: Mapping[str, str]) -> Checked:
    """What is wrong with a policy; `given` are values of its parameters."""
    report = Report()
    loaded = pipeline.loaded_from(source, report, given)
    if loaded.here is None and loaded.hosts:
        made = for_each_host(loaded, _for_targets, report)
    else:
        alone = _for_targets(loaded, report)
        made = {} if alone is None else {"": alone}
    if report.has_errors:
        return Checked(loaded, report, {})
    refused: dict[str, Report] = {}
    for target in TARGETS:
        own = Report()
        merge({host: found[target] for host, found in made.items()}, own)
        if own.has_errors:
            refused[target] = own
        else:
            report.take(own)
    if len(refused) == len(TARGETS):
        for own in refused.values():
            report.take(own)
        refused = {}
    return Checked(loaded, report, refused)


def _for_targets(loaded: Loaded, report: Report) -> dict[str, Report] | None:
    """What each target has to say; None, with an error in `report`, where it comes to none."""
    ruleset = pipeline.ruleset_of(loaded, report)
    if ruleset is None:
        return None
    found = {target: Report() for target in TARGETS}
    for target, own in found.items():
        pipeline.artifact_of(ruleset, target, own)
    return found


def lines(diagnostics: Iterable[Diagnostic], folder: Path) -> Iterator[str]:
    """Diagnostics as compilers tell them, `FILE:LINE:COLUMN: error[CODE]: MESSAGE`.

    Names of files are those of `folder`. Behind it are the other places, and the help.
    """
    for diagnostic in diagnostics:
        said = f"{diagnostic.severity}[{diagnostic.code}]: {visible(diagnostic.message)}"
        yield f"{_place(diagnostic.span, folder)}{said}"
        for label in diagnostic.labels:
            yield f"{_place(label.span, folder)}note: {visible(label.text)}"
        if diagnostic.help is not None:
            first, *more = diagnostic.help.split("\n")
            yield f"    help: {visible(first)}"
            yield from (f"          {visible(line)}" for line in more)


def _place(span: Span | None, folder: Path) -> str:
    if span is None:
        return ""
    return f"{visible(str(folder / span.file.name))}:{span.line}:{span.column}: "
