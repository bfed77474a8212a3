"""Reads lists in JSON: an object a line, an array, or one of the forms that are well known.

A form that is not known is refused: which of an object's addresses are meant is not guessed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from itertools import islice

from policylang.source import SourceFile, Span
from policylang.syntax.lists.elements import ADDRESS, Elements
from policylang.syntax.wording import quoted

# Where an object that stands for one element has it: Spamhaus DROP, abuse.ch Feodo Tracker,
# Amazon's ip-ranges.json, Google's goog.json and cloud.json.
KEYS = frozenset(
    {"cidr", "ip", "ip_address", "ip_prefix", "ipv6_prefix", "ipv4Prefix", "ipv6Prefix"}
)
# Where an object that stands for a list has the elements: Amazon and Google, Fastly.
MEMBERS = frozenset({"prefixes", "ipv6_prefixes", "addresses", "ipv6_addresses"})
METADATA = ("type", "metadata")  # the last line of Spamhaus DROP

# A key, or where a value begins.
_START = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[^\s\[\]{},:"]+')


class _Object(tuple[tuple[str, object], ...]):
    """The members of an object as they are written: none is lost where a key stands twice."""

    __slots__ = ()

    @property
    def keys(self) -> set[str]:
        return {key for key, _ in self}


_DECODER = json.JSONDecoder(object_pairs_hook=_Object)


def is_json(text: str) -> bool:
    """Whether a list is JSON."""
    return text.lstrip()[:1] in ("{", "[")


def read(file: SourceFile, elements: Elements) -> None:
    """Take in the elements of a list in JSON."""
    lines = file.text.split("\n")
    written = [index for index, line in enumerate(lines) if line.strip()]
    if len(written) > 1 and isinstance(_decoded(lines[written[0]]), _Object):
        for index in written:
            _read_line(file, index, lines[index], elements)
        return
    try:
        value = _DECODER.decode(file.text)
    except (ValueError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else 0
        at = min(at, len(file.text.rstrip()) - 1)
        elements.report.add(
            "bad-list-format",
            "this is not JSON from here on",
            Span(file, at, at + 1),
            help="the file may have been cut short: load it again",
        )
        return
    _Text(file, 0, len(file.text), elements).whole(value)


def _decoded(line: str) -> object:
    """The value that a line is, or None."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None


def _read_line(file: SourceFile, index: int, line: str, elements: Elements) -> None:
    value = _decoded(line)
    if isinstance(value, _Object) and METADATA in value and not KEYS & value.keys:
        return
    start = file.line_starts[index] + len(line) - len(line.lstrip())
    end = start + len(line.strip())
    if isinstance(value, _Object):
        _Text(file, start, end, elements).item(value)
    else:
        elements.refuse("this line is not a JSON object", partial(Span, file, start, end))


@dataclass(slots=True)
class _Text:
    """A part of the file that is one value; keys and values are counted as they are met.

    What json reads has no places. Keys and values come in the order in which they are written,
    so the number of one tells where it is.
    """

    file: SourceFile
    start: int
    end: int
    elements: Elements
    met: int = 0

    def item(self, value: object) -> None:
        """Take in an element: a text, or an object that has one."""
        if isinstance(value, str):
            self._element(value)
        elif isinstance(value, _Object):
            self._object(value)
        else:
            self.elements.refuse("an element is a text in quotes, or an object with one", self.at)
            self.pass_by(value)

    def whole(self, value: object) -> None:
        """Take in all that the file says."""
        if isinstance(value, list):
            self.met += 1
            for item in value:
                self.item(item)
        elif isinstance(value, _Object) and not KEYS & value.keys:
            self._members(value)
        else:
            self.item(value)

    def _members(self, value: _Object) -> None:
        """Take in the lists of an object of a well-known form."""
        if not MEMBERS & value.keys:
            if METADATA not in value:
                self._unknown("the object has no member by which lists are known", self.at)
            return
        self.met += 1
        for key, inside in value:
            where = self.at
            self.met += 1
            if key in MEMBERS and isinstance(inside, list):
                self.met += 1
                for item in inside:
                    self.item(item)
            elif inside and isinstance(inside, (list, _Object)):
                self._unknown(f"the member {quoted(key)} is none by which lists are known", where)
                return
            else:
                self.pass_by(inside)

    def _unknown(self, message: str, where: partial[Span]) -> None:
        self.elements.report.add(
            "bad-list-format",
            message,
            where(),
            help="write what is meant into a list of one element a line, with `jq` say",
        )

    def _object(self, value: _Object) -> None:
        found = 0
        whole = self.at
        self.met += 1
        for key, inside in value:
            self.met += 1
            if key not in KEYS:
                self.pass_by(inside)
                continue
            found += 1
            if isinstance(inside, str):
                self._element(inside)
            else:
                self.elements.refuse(f"the value of {quoted(key)} is not a text in quotes", self.at)
                self.pass_by(inside)
        if found != 1:
            known = ", ".join(sorted(KEYS))
            self.elements.refuse(
                "the object has more than one address" if found else "the object has no address",
                whole,
                help=f"what names it is one of {known}",
            )

    def _element(self, text: str) -> None:
        self.elements.take(text, self.at, ADDRESS)
        self.met += 1

    def pass_by(self, value: object) -> None:
        """Count a value that says nothing of addresses, with all that is in it."""
        self.met += 1
        if isinstance(value, list):
            for item in value:
                self.pass_by(item)
        elif isinstance(value, _Object):
            for _, inside in value:
                self.met += 1
                self.pass_by(inside)

    @property
    def at(self) -> partial[Span]:
        """Where the next key or value stands."""
        return partial(self._span, self.met)

    def _span(self, number: int) -> Span:
        starts = _START.finditer(self.file.text, self.start, self.end)
        match = next(islice(starts, number, None))
        return Span(self.file, match.start(), match.end())
