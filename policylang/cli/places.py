"""What files are called outside of this program: by their paths from the top of the repository.

Messages call a file by its path from its policy's folder. Who shows them beside the text, on a page
of a repository, knows neither the policy nor that folder. It does not know what is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from policylang.diagnostics import Report
from policylang.source import SourceFile, Span

STDIN_NAME = "<stdin>"


def from_the_top(report: Report, policy: str) -> Report:
    """A report on the policy in that file, in which files are called from the repository's top.

    What concerns no place of a file is told at the beginning of the policy. Without a repository
    files are called from this folder, and what is not below it by its whole path.
    """
    root = top(Path.cwd())
    whole = None if policy == STDIN_NAME else Span(SourceFile(_called(policy, root), ""), 0, 0)
    return _renamed(report, policy, lambda path: _called(path, root), whole)


def from_here(report: Report, policy: str) -> Report:
    """A report on the policy in that file, in which files are called as that is called.

    What concerns no place of a file is told at the beginning of the policy: there are others.
    """
    return _renamed(report, policy, os.path.normpath, Span(SourceFile(policy, ""), 0, 0))


def _renamed(report: Report, policy: str, call: Callable[[str], str], whole: Span | None) -> Report:
    folder = os.path.dirname(policy)  # noqa: PTH120 - of standard input's name there is none
    files: dict[SourceFile, SourceFile] = {}

    def renamed(span: Span) -> Span:
        name = span.file.name
        if name == STDIN_NAME:
            return span
        path = os.path.join(folder, name)  # noqa: PTH118 - as above
        # What the command line names beside the policy is called as it is named there.
        called = call(name if Path(name).exists() and not Path(path).exists() else path)
        new = files.setdefault(span.file, SourceFile(called, span.file.text))
        return replace(span, file=new)

    found = [
        replace(
            one,
            span=whole if one.span is None else renamed(one.span),
            labels=tuple(replace(label, span=renamed(label.span)) for label in one.labels),
        )
        for one in report.diagnostics
    ]
    return Report(found, report.heeded)


def top(folder: Path) -> Path:
    """The nearest folder around this one that git keeps; this one where there is none."""
    around = (folder, *folder.parents)
    return next((one for one in around if (one / ".git").exists()), folder)


def _called(path: str, root: Path) -> str:
    """A path from the top, with `/`; the whole of it where it is not below."""
    whole = Path(os.path.normpath(Path.cwd() / path))
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()
