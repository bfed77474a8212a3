"""What a policy is given from outside: which host is meant, and hosts declared beside it."""

from __future__ import annotations

import argparse
from codecs import BOM_UTF8
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
    """What the command line says; None, reported, where a file of it cannot be read.

    To be asked once a command: what comes by a pipe can be read only once.
    """
    found = [_text(name, report) for name in chosen.inventory]
    texts = tuple(file for file in found if file is not None)
    return Given(chosen.host, texts) if len(texts) == len(found) else None


def _text(name: str, report: Report) -> SourceFile | None:
    """A file of `--inventory`; reports `unreadable-file` and `not-utf8`."""
    from policylang.syntax.decoding import decoded
    from policylang.syntax.wording import quoted

    try:
        data = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such path"
        message = f"cannot read {quoted(name)}: {why[0].lower()}{why[1:]}"
        report.add("unreadable-file", message, None)
        return None
    return decoded(data.removeprefix(BOM_UTF8), name, report)
