"""What a policy is given from outside: which host is meant, and hosts declared beside it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from policylang.diagnostics import Report
from policylang.source import SourceFile

if TYPE_CHECKING:
    from policylang.pipeline import Source, Text


@dataclass(frozen=True, slots=True)
class Given:
    """Which of a policy's hosts is meant (None: of one firewall), and texts of `--inventory`."""

    host: str | None = None
    inventory: tuple[SourceFile, ...] = ()

    def to(self, policy: Path | Text) -> Source:
        """A policy to which this is given."""
        if self.host is None and not self.inventory:
            return policy
        from policylang.pipeline import OfHost

        return OfHost(policy, self.host, self.inventory)


NOTHING = Given()


def given(chosen: argparse.Namespace, report: Report) -> Given | None:
    """What the command line says; None, reported, where a file of it cannot be read."""
    from policylang.syntax.decoding import decoded

    found: list[SourceFile] = []
    names: list[str] = chosen.inventory
    for name in names:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            report.add("unreadable-file", f"cannot read `{name}`: {error.strerror}", None)
            continue
        file = decoded(data, name, report)
        if file is not None:
            found.append(file)
    return Given(chosen.host, tuple(found)) if len(found) == len(names) else None
