"""Reads what `ipset save` writes: `create NAME TYPE …`, then `add NAME ELEMENT …`.

Sets whose elements are more than an address, a port or a MAC address are refused, and so is
whatever changes what an element means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from policylang.source import SourceFile, Span
from policylang.syntax.lists.elements import ADDRESS, MAC, PORT, Elements
from policylang.syntax.wording import quoted

KINDS = {"hash:ip": ADDRESS, "hash:net": ADDRESS, "hash:mac": MAC, "bitmap:port": PORT}

# Options of an element that say nothing of what it is, and whether a value follows (ipset(8)).
_OPTIONS = {
    **dict.fromkeys(("timeout", "packets", "bytes", "comment"), True),
    **dict.fromkeys(("skbmark", "skbprio", "skbqueue"), True),
    **dict.fromkeys(("-exist", "-!"), False),
}
_WIDENING = frozenset({"netmask", "bitmask"})  # an element stands for more than it says
_WORD = re.compile(r'"[^"]*"|\S+')
_SAVE = re.compile(r"(?:create|add)[ \t]+\S")


def is_save(line: str) -> bool:
    """Whether a list whose first line this is was written by `ipset save`."""
    return _SAVE.match(line) is not None


def read(file: SourceFile, elements: Elements) -> None:
    """Take in the elements of all sets, of which there may be one a family."""
    saved = _Saved(file, elements)
    for index, line in enumerate(file.text.split("\n")):
        words = line.split()
        if words and words[0][0] != "#":
            saved.take(index, line, words)


@dataclass(slots=True)
class _Saved:
    """The sets of a file: their kinds by name, None for those that were refused."""

    file: SourceFile
    elements: Elements
    kinds: dict[str, str | None] = field(default_factory=dict)
    families: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, index: int, line: str, words: Sequence[str]) -> None:
        """Take in a line, counted from 0."""
        where = partial(self._span, index, line)
        match words:
            case ["add", name, element]:
                self._add(name, element, index, line)
            case ["add", name, element, *_]:
                fault = _fault(_WORD.findall(line)[3:])
                if fault is None:
                    self._add(name, element, index, line)
                else:
                    self.elements.refuse(
                        f"{quoted(fault)} changes what an element means, or is not known",
                        where,
                        help="take such elements out, and write them as exceptions of the set",
                    )
            case ["create", name, form, *options]:
                self._create(name, form, options, where)
            case ["COMMIT"]:
                pass
            case _:
                self.elements.refuse(
                    f"{quoted(words[0])} starts no line of `ipset save` that fills a set", where
                )

    def _create(self, name: str, form: str, options: Sequence[str], where: partial[Span]) -> None:
        kind = KINDS.get(form)
        family = "inet6" if "inet6" in options else "inet"
        widened = next((option for option in options if option in _WIDENING), None)
        self.kinds[name] = None
        if kind is None:
            known = ", ".join(f"`{known}`" for known in KINDS)
            self.elements.refuse(
                f"sets of the type {quoted(form)} hold more than one thing an element",
                where,
                help=f"the types that can be read are {known}",
            )
        elif widened is not None:
            self.elements.refuse(
                f"{quoted(widened)} changes what the elements mean", where, help="write prefixes"
            )
        elif (other := self.families.setdefault((kind, family), name)) != name:
            self.elements.refuse(
                f"{quoted(name)} is a second set beside {quoted(other)}",
                where,
                help="save one set a file: `ipset save NAME`",
            )
        else:
            self.kinds[name] = kind

    def _add(self, name: str, element: str, index: int, line: str) -> None:
        if name not in self.kinds:
            self.elements.refuse(
                f"no `create` above says what {quoted(name)} holds",
                partial(self._span, index, line),
            )
        elif (kind := self.kinds[name]) is not None:
            # behind `add` and the name, which may be the same text
            before = line.index(name, line.index("add") + 3) + len(name)
            where = partial(self._element_span, index, line.index(element, before), element)
            self.elements.take(element, where, kind)

    def _span(self, index: int, line: str) -> Span:
        start = self.file.line_starts[index] + len(line) - len(line.lstrip())
        return Span(self.file, start, start + len(line.strip()))

    def _element_span(self, index: int, offset: int, element: str) -> Span:
        start = self.file.line_starts[index] + offset
        return Span(self.file, start, start + len(element))


def _fault(options: Sequence[str]) -> str | None:
    """The first option behind an element that says what it is, as `nomatch` does."""
    at = 0
    while at < len(options):
        takes_value = _OPTIONS.get(options[at])
        if takes_value is None:
            return options[at]
        at += 2 if takes_value else 1
    return None
