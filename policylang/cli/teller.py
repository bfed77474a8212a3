"""Tells on the terminal what was found, each thing once; knows nothing of what is done."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TextIO

from policylang.cli.formats import WRITERS, placed, written
from policylang.cli.places import STDIN_NAME
from policylang.cli.render import Renderer, summary
from policylang.diagnostics import Diagnostic, Report


@dataclass(slots=True)
class Teller:
    """A report and how the command line wants it told; `name` is what lines call the policy."""

    chosen: argparse.Namespace
    name: str = ""
    report: Report = field(default_factory=Report)
    _told: int = 0

    @property
    def is_text(self) -> bool:
        return bool(self.chosen.format == "text")

    def show(self) -> None:
        """Tell what has not been told yet, with a last line that counts it."""
        if self.is_text or not self._told:
            show(Report(self.report.diagnostics[self._told :]), self.chosen, sys.stderr)
        self._told = len(self.report.diagnostics)

    def show_so_far(self) -> None:
        """The same before a question; as JSON there is one array, at the end."""
        if self.is_text:
            self.show()


def show(report: Report, chosen: argparse.Namespace, stream: TextIO) -> None:
    """Write what was found, with a last line that counts it."""
    policy = getattr(chosen, "file", None)
    if policy is not None:
        report = placed(report, STDIN_NAME if policy == "-" else policy, chosen.format)
    found = report.in_order()
    if chosen.format in WRITERS:
        stream.write(written(found, chosen.format))
    elif found:
        stream.write(f"{Renderer(wants_color(chosen.color, stream)).render(found)}\n")
        stream.write(f"{summary(found)}\n")


def show_elsewhere(
    failures: Iterable[tuple[str, Diagnostic]], chosen: argparse.Namespace, report: Report
) -> None:
    """Write what was found, and what failed of which policy, for those who show it elsewhere."""
    told = Report([*report.diagnostics])
    for policy, failure in failures:
        told.take(placed(Report([failure]), policy, chosen.format))
    show(told, chosen, sys.stdout)


def wants_color(choice: str, stream: TextIO) -> bool:
    """Whether to colour what is written to a stream."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):  # no-color.org
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"
