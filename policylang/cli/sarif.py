"""Diagnostics as SARIF 2.1.0, which code hosts and editors show at their places.

The form is that of the OASIS standard (sarif-v2.1.0); sections are named by their numbers. It knows
nothing of how they came about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from policylang import __version__
from policylang.cli.render import json_place
from policylang.cli.visible import visible
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic
from policylang.source import Span

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ROOT = "%SRCROOT%"  # 3.14.14: what uris are relative to; by this name GitHub knows the repository


def as_sarif(diagnostics: Iterable[Diagnostic]) -> str:
    """A log with one run: a rule for each id that occurs, and a result for each diagnostic."""
    found = tuple(diagnostics)
    codes = sorted({one.code for one in found})
    run = {
        "tool": {
            "driver": {
                "name": "policylang",
                "version": __version__,
                "rules": [_rule(code) for code in codes],
            }
        },
        "originalUriBaseIds": {ROOT: {"description": {"text": "the top of the repository"}}},
        "columnKind": "unicodeCodePoints",  # 3.14.17
        "results": [_result(one, codes.index(one.code)) for one in found],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(code: str) -> dict[str, Any]:
    """3.49: what `policylang explain` says of an id."""
    known = CODES[code]
    more = f"{known.explanation}\n\n`policylang explain {code}` says the same."
    return {
        "id": code,
        "shortDescription": {"text": known.title},
        "fullDescription": {"text": known.explanation},
        "help": {"text": more, "markdown": more},
        "defaultConfiguration": {"level": known.severity},
    }


def _result(one: Diagnostic, index: int) -> dict[str, Any]:
    """3.27: one diagnostic, its help on lines of its own, and labels as related locations."""
    text = one.message if one.help is None else f"{one.message}\nhelp: {one.help}"
    result: dict[str, Any] = {
        "ruleId": one.code,
        "ruleIndex": index,
        "level": str(one.severity),
        "message": _message(text),
    }
    if one.span is not None:
        result["locations"] = [{"physicalLocation": _place(one.span)}]
    if one.labels:
        result["relatedLocations"] = [
            {"id": number, "physicalLocation": _place(label.span), "message": _message(label.text)}
            for number, label in enumerate(one.labels, start=1)
        ]
    return result


def _place(span: Span) -> dict[str, Any]:
    """3.29: lines and columns count from 1, and the end is exclusive, as with ours (3.30)."""
    place = json_place(span)
    name = str(place["file"])
    location: dict[str, Any] = {"uri": quote(name, errors="surrogateescape")}
    if name.startswith("/"):
        location["uri"] = f"file://{location['uri']}"
    else:
        location["uriBaseId"] = ROOT
    region = {
        "startLine": place["line"],
        "startColumn": place["column"],
        "endLine": place["end_line"],
        "endColumn": place["end_column"],
    }
    return {"artifactLocation": location, "region": region}


def _message(text: str) -> dict[str, str]:
    """3.11: braces would be placeholders (3.11.5), and `[…](…)` a link (3.11.6)."""
    lines = "\n".join(visible(line) for line in text.split("\n"))
    return {"text": lines.replace("{", "{{").replace("}", "}}").replace("](", "] (")}
