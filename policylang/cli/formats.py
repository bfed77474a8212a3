"""Diagnostics in the form that was asked for by `--format`: one place for all commands."""

from __future__ import annotations

from collections.abc import Sequence

from policylang.cli.github import as_commands
from policylang.cli.places import from_the_top
from policylang.cli.render import as_json
from policylang.cli.sarif import as_sarif
from policylang.diagnostics import Diagnostic, Report

ELSEWHERE = ("github", "sarif")  # shown beside the text, by others
WRITERS = {"json": as_json, "github": as_commands, "sarif": as_sarif}


def written(diagnostics: Sequence[Diagnostic], form: str) -> str:
    """Diagnostics for programs; raises KeyError for `text`, which is for people."""
    return WRITERS[form](diagnostics)


def placed(report: Report, policy: str, form: str) -> Report:
    """A report on one policy, its files called as those who show it in this form know them."""
    return from_the_top(report, policy) if form in ELSEWHERE else report
