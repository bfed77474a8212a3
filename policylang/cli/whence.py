"""`policylang why`: from a rule, a log line, a counter or an element back to the statement."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policylang.cli.finding import Found, explained
from policylang.cli.knowing import known_of
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import json_place
from policylang.cli.subjects import STDIN, STDIN_NAME, standard_input
from policylang.cli.teller import show, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.ir.origin import Origin, Why

FRAME, TITLE = "34", "1"
MOST_LINES = 12  # of a statement that are shown
_FORMS = "a rule as nft or iptables lists it, a line of the log, an address, or FILE:LINE"


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Explain; the exit status: 2 where nothing is known of what was asked, 1 for bad input."""
    asked = asked_of(chosen.what, report)
    known = known_of(chosen, report) if asked and not report.has_errors else None
    show(report, chosen, sys.stderr)
    if known is None or report.has_errors:
        return REFUSED
    found = [explained(text, known) for text in asked]
    if chosen.format == "json":
        print(json.dumps(as_json(known.name, found), indent=2))
    else:
        lines = _Lines(wants_color(chosen.color, sys.stdout))
        for number, one in enumerate(found):
            if number:
                print()
            for line in lines.of(one, is_one=len(found) == 1):
                print(line)
    return DONE if all(one.because for one in found) else CHANGES


def asked_of(what: Sequence[str], report: Report) -> list[str]:
    """What to explain: the words of the command line, or the lines of standard input.

    Reports `nothing-asked`.
    """
    if list(what) != [STDIN]:
        text = " ".join(what).strip()
        if not text:
            report.add("nothing-asked", "nothing is asked", None, help=f"name {_FORMS}")
        return [text] if text else []
    lines = [line.strip() for line in (standard_input(STDIN_NAME, report) or "").splitlines()]
    found = list(dict.fromkeys(line for line in lines if line))
    if not found and not report.has_errors:
        report.add("nothing-asked", "standard input is empty", None, help=f"write {_FORMS} a line")
    return found


# --- told -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines for a terminal."""

    color: bool

    def of(self, found: Found, *, is_one: bool) -> Iterator[str]:
        if not is_one:
            yield self._paint(visible(found.asked), TITLE)
        if not found.because:
            yield "nothing is known of it"
        for note in found.notes if found.kind == "log" else ():
            yield f"  {visible(note)}"
        for one in found.because:
            yield visible(f"{one.words}:" if found.kind in ("log", "set", "element") else one.words)
            if one.rule:
                yield f"  {visible(one.rule)}"
            yield from self._statements(one.origins)
        for note in found.notes if found.kind != "log" else ():
            yield f"  {visible(note)}"

    def _statements(self, origins: tuple[Origin, ...]) -> Iterator[str]:
        for origin in dict.fromkeys(origins):
            span = origin.span
            if span is None:
                yield f"  no statement: {origin.why.value}"
                continue
            why = "" if origin.why in (Why.WRITTEN, Why.DEFAULT) else f" ({origin.why.value})"
            name = f' "{visible(origin.name)}"' if origin.name else ""
            yield f"  {self._paint('-->', FRAME)} {visible(span.place)}{name}{why}"
            last = span.file.line_of(max(span.start, span.end - 1))
            width = len(str(last))
            for number in range(span.line, min(last, span.line + MOST_LINES - 1) + 1):
                line = visible(span.file.line_text(number).replace("\t", "    "))
                yield f"  {self._paint(f'{number:>{max(width, 4)}} |', FRAME)} {line}"
        if not origins:
            yield "  no statement of ours made it"

    def _paint(self, text: str, look: str) -> str:
        return f"\x1b[{look}m{text}\x1b[0m" if self.color else text


def as_json(name: str, found: Sequence[Found]) -> dict[str, object]:
    """One object; its keys are stable, and always there.

    `version` (1), `of` (the policy or generation), and `answers`, an array with `asked`, `kind`
    (rule, statement, log, element, set), `known`, `notes` (an array of texts) and `because`: an
    array with `words`, `rule` (or null) and `statements`, each with `text`, `why`, `name`,
    `service` and the place as `check` has it.
    """
    return {
        "version": 1,
        "of": name,
        "answers": [
            {
                "asked": one.asked,
                "kind": one.kind,
                "known": bool(one.because),
                "notes": list(one.notes),
                "because": [
                    {
                        "words": because.words,
                        "rule": because.rule or None,
                        "statements": [_origin_as_json(o) for o in dict.fromkeys(because.origins)],
                    }
                    for because in one.because
                ],
            }
            for one in found
        ],
    }


def _origin_as_json(origin: Origin) -> dict[str, object]:
    return {
        "text": None if origin.span is None else origin.span.text,
        "why": origin.why.value,
        "name": origin.name,
        "service": origin.service,
        **json_place(origin.span),
    }
