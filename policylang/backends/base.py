"""What all targets share: the artifact, and how lines keep track of their statements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from policylang.diagnostics import Report
from policylang.ir.capabilities import Capabilities
from policylang.ir.origin import Origin
from policylang.ir.ruleset import NO_NEEDS, Needs, Ruleset


@dataclass(frozen=True, slots=True)
class Line:
    """A line of output that a template lays out, and the statements that it came from."""

    text: str
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A finished file: `origins[n]` are the statements behind its line n+1, or empty."""

    name: str
    text: str
    origins: tuple[tuple[Origin, ...], ...] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a policy compiles to for one target; `needs` are to be seen to beside loading it."""

    target: str
    files: tuple[OutputFile, ...]
    needs: Needs = NO_NEEDS

    def file(self, name: str) -> OutputFile | None:
        return next((f for f in self.files if f.name == name), None)


class Backend(Protocol):
    """A target. `emit` is given verified rulesets only and reports nothing but what is its own."""

    name: str
    capabilities: Capabilities

    def emit(self, ruleset: Ruleset, report: Report) -> Artifact: ...


COMMENT_REPLACEMENTS = {'"': "'", "\\": "/"}  # neither target can escape them everywhere


def comment_text(text: str, most_bytes: int) -> str:
    """A comment that no target's syntax can take for anything else, cut to `most_bytes`.

    Only printable ASCII is left: what is not becomes `?`, quotes and backslashes become
    look-alikes, and what is too long ends in `...`.
    """
    safe = "".join(COMMENT_REPLACEMENTS.get(c, c if 32 <= ord(c) < 127 else "?") for c in text)
    return safe if len(safe) <= most_bytes else safe[: most_bytes - 3] + "..."
