"""What came of a change, as one object for programs; knows nothing of how a change is made.

Its form is promised: `examples/provisioning/outcome.schema.json` says it, and a test holds it to
that. A key is never taken away and never means something else while `SCHEMA` stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import as_json as diagnostics_as_json
from policylang.diagnostics import Diagnostic, Report, Severity

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did, or with `is_check` would do.

    `is_changed` says that rules of the kernel changed, or that open connections ended. `way` is how
    it was loaded, `generation` what is in force then (None: nothing of ours, or with `is_check`
    what is not made yet). `confirm_s` are the seconds in which it is to be confirmed, None where it
    is in force for good. `difference` is what `plan --json` says; `beside` is in words what else
    was done.
    """

    is_changed: bool = False
    is_check: bool = False
    way: str | None = None
    generation: int | None = None
    confirm_s: int | None = None
    difference: Mapping[str, object] | None = None
    beside: tuple[str, ...] = ()


def as_json(outcome: Outcome, report: Report) -> str:
    """The object, with all that was told meanwhile; `error` is the first error, if any, in a line.

    Where there is an error, `changed` is false unless rules were changed nevertheless.
    """
    found = report.in_order()
    first = next((d for d in found if d.severity is Severity.ERROR), None)
    value = {
        "schema": SCHEMA,
        "changed": outcome.is_changed,
        "check": outcome.is_check,
        "way": outcome.way,
        "generation": outcome.generation,
        "confirm_s": outcome.confirm_s,
        "diff": outcome.difference,
        "beside": list(outcome.beside),
        "diagnostics": json.loads(diagnostics_as_json(found)),
        "error": None if first is None else _in_a_line(first),
    }
    return json.dumps(value, indent=2) + "\n"


def status_of(outcome: Outcome, report: Report) -> int:
    """The exit status: with `is_check` it says whether anything would change."""
    if report.has_errors:
        return REFUSED
    return CHANGES if outcome.is_check and outcome.is_changed else DONE


def _in_a_line(diagnostic: Diagnostic) -> str:
    span = diagnostic.span
    place = "" if span is None else f"{span.file.name}:{span.line}:{span.column}: "
    return f"{place}{diagnostic.message}"
