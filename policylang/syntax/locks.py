"""Reads and writes lock files: what lists from elsewhere held when they were last asked.

A lock file is JSON, sorted, an address or a prefix a line, so that it can be kept under version
control and read as a difference. What asks the sources it does not know, and it opens no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policylang.diagnostics import Report
from policylang.packets.values import (
    Range,
    Ranges,
    format_address,
    parse_address,
    parse_one_address,
    prefixes,
)
from policylang.source import SourceFile, Span
from policylang.syntax.wording import quoted

FORMAT = 1

RESOLVE, URL = "resolve", "url"  # where the addresses of a set come from

_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Locked:
    """What a source held at a time in UTC.

    `marks` are what a server gave to ask by whether there is anything new.
    """

    addresses: Ranges
    refreshed: datetime
    marks: Mapping[str, str] = field(default_factory=dict)


Lock = Mapping[str, Locked]  # by the source: `resolve cdn.example`, `url https://lists.example/a`

MARKS = ("etag", "last-modified")


def lock_text(lock: Lock) -> str:
    """The lock file of a lock: the same text for the same lock, read again by `read_lock`."""
    sources = {
        key: {
            "addresses": list(address_texts(locked.addresses)),
            "refreshed": locked.refreshed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **locked.marks,
        }
        for key, locked in lock.items()
    }
    document = {"lock": FORMAT, "sources": sources}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def address_texts(values: Ranges) -> Iterable[str]:
    """Addresses and prefixes, in order, that are together a set of addresses."""
    for low, high in values:
        for base, length in prefixes(low, high):
            is_one = length == (128 if ":" in format_address(base) else 32)
            yield format_address(base) if is_one else f"{format_address(base)}/{length}"


class _DamageError(Exception):
    """Why a text is no lock file, and where: an offset."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


def read_lock(file: SourceFile, report: Report) -> Lock | None:
    """What a lock file says; None, and `damaged-lock` at its line, where it is none."""
    try:
        return _read(file.text)
    except _DamageError as damage:
        report.add(
            "damaged-lock",
            str(damage),
            Span(file, damage.start, damage.end),
            help="put back an earlier version of the file, or delete it and run "
            "`policylang refresh`, which asks every source again",
        )
        return None


def _read(text: str) -> Lock:
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        at = min(error.pos, max(0, len(text.rstrip()) - 1))
        raise _DamageError("the lock file is no JSON from here on", at, at + 1) from error
    except _TwiceError as error:
        raise _at(text, error.key, f"{quoted(error.key)} stands twice", last=True) from error
    except (ValueError, RecursionError) as error:  # numbers and brackets beyond all bounds
        raise _DamageError("the lock file is no JSON that can be read", 0, 1) from error
    if isinstance(document, dict) and document.keys() == {"lock", "sources"}:
        said: Any = document["sources"]
        if document["lock"] == FORMAT and isinstance(said, dict):
            return {key: _locked(text, key, value) for key, value in said.items()}
    raise _DamageError("this is no lock file of this version of policylang", 0, 1)


def _locked(text: str, key: str, value: Any) -> Locked:
    kind, _, name = key.partition(" ")
    if kind not in (RESOLVE, URL) or not name:
        raise _at(text, key, f"{quoted(key)} is neither a name to resolve nor a URL")
    match value:
        case {"addresses": list(texts), "refreshed": str(date), **rest}:
            pairs = [_address(text, key, one) for one in texts]
            refreshed = _date(text, key, date)
        case _:
            raise _at(text, key, f"{quoted(key)} has no addresses and date")
    marks: dict[str, str] = {}
    for mark, held in rest.items():
        if mark not in MARKS or not isinstance(held, str) or not _is_header(held):
            raise _at(text, key, f"{quoted(str(mark))} of {quoted(key)} is not understood")
        marks[str(mark)] = held
    return Locked(Ranges.merged(pairs), refreshed, marks)


def _is_header(text: str) -> bool:
    """Whether a text can be sent as it is in a header of HTTP."""
    return text.isascii() and text.isprintable()


def _address(text: str, key: str, said: Any) -> Range:
    if isinstance(said, str):
        pair = parse_address(said)
        if pair is not None and parse_one_address(re.split("[/-]", said, maxsplit=1)[0]) == pair[0]:
            return pair
    raise _at(text, key, f"{quoted(_shown(said))} is neither an address nor a prefix", said)


def _date(text: str, key: str, said: str) -> datetime:
    if _DATE.fullmatch(said):
        try:
            return datetime.fromisoformat(said)
        except ValueError:
            pass  # no such day
    raise _at(text, key, f"{quoted(said)} is not a date such as `2027-01-31T12:00:00Z`", said)


def _shown(said: Any) -> str:
    return said if isinstance(said, str) else json.dumps(said)


def _at(text: str, key: str, message: str, said: Any = None, *, last: bool = False) -> _DamageError:
    """The damage at what is said of a source, or at the source's name."""
    name = _position(text, key, 0, last=last)
    start, end = _position(text, said, name[1]) if said is not None else name
    return _DamageError(message, *((start, end) if end else name))


def _position(text: str, value: Any, after: int, *, last: bool = False) -> tuple[int, int]:
    """Where a value stands as JSON; the beginning where it is written in an unusual way."""
    for ascii_ in (False, True):
        word = json.dumps(value, ensure_ascii=ascii_)
        start = text.rfind(word) if last else text.find(word, after)
        if start >= 0:
            return start, start + len(word)
    return 0, 0 if after else 1


class _TwiceError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, no key of which stands twice, as after a merge that went wrong."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found
