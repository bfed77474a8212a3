"""`policylang textconv`: compiled rules in words, so that git shows how their meaning differs.

What is told is what the rules do otherwise than a firewall that lets nothing pass. The words depend
on the rules alone: no number of a line, no handle, no name of a file is among them.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from policylang.analysis.changed import Change, Kind
from policylang.analysis.closed import closed
from policylang.analysis.diagram import Space, TooLargeError
from policylang.analysis.differences import differences
from policylang.analysis.reviewing import Told, tell
from policylang.analysis.sides import Way
from policylang.analysis.wording import NO_NAMES
from policylang.apply import user_namespace
from policylang.cli.options import DONE, REFUSED
from policylang.cli.output import write_stdout
from policylang.cli.subjects import Subject, in_same_words, subject_of
from policylang.cli.teller import show
from policylang.cli.visible import visible
from policylang.diagnostics import Report

DIGITS = 16  # of a checksum that tells texts apart

HEADINGS = {
    Kind.OPENED: "passes",
    Kind.ANSWERED: "is refused with an answer",
    Kind.TRANSLATED: "is translated",
    Kind.HELPED: "is given a conntrack helper",
    Kind.MARKED: "is marked",
    Kind.LOGGED: "is logged",
    Kind.COLLECTED: "is put into sets",
    Kind.TREATED: "is treated",
}
_REASON = re.compile(r"(?:(?:handle|rule) \d+ \((?P<nft>.*)\)| \d+: (?P<iptables>.*))$")
_STATEMENT = re.compile(r"(?P<file>.+?):\d+ (?P<words>.*)")
_NUMBER = re.compile(r",? (?:handle |rule )?\d+$")


def run(chosen: argparse.Namespace) -> int:
    """Write what the rules of a file mean, or the file as it is; 1 where there is no file."""
    chosen.format, chosen.color = "text", "auto"
    report = Report()
    try:
        data = Path(chosen.file).read_bytes()
    except OSError as error:
        report.add("unreadable-file", f"cannot read `{chosen.file}`: {error.strerror}", None)
        show(report, chosen, sys.stderr)
        return REFUSED
    text = data.decode("utf-8", "replace")
    own = Report()
    # Not by a name that could be a question's own word, such as `-`.
    path = Path.cwd() / chosen.file
    told = _meaning(str(path), text, own)
    if told is None:
        # A textconv that fails is the end of the whole `git diff`.
        why = next((d.message for d in own.in_order()), "these are no rules")
        # Where git lays a side of a comparison is another folder each time.
        why = why.replace(f"`{path}`", f"`{path.name}`")
        told = f"# what this means is not told: {visible(why)}\n{text}"
    write_stdout(told, report)
    show(report, chosen, sys.stderr)
    return REFUSED if report.has_errors else DONE


def _meaning(file: str, text: str, report: Report) -> str | None:
    """What rules mean; None, with the reason in the report, where that cannot be told."""
    subject = subject_of(file, report, parameters={})
    if any(d.code == "not-permitted" for d in report.diagnostics) and user_namespace.enter_own():
        report.diagnostics.clear()
        subject = subject_of(file, report, parameters={})
    if subject is None or subject.target is None:
        return None
    try:
        lines = list(_lines(subject, text))
    except TooLargeError:
        report.add("too-large", "they make too many different packets to be told apart", None)
        return None
    return "".join(f"{line}\n" for line in lines)


def _lines(subject: Subject, text: str) -> Iterator[str]:
    closed_one = Subject("nothing", closed(), NO_NAMES, families=subject.families)
    found = differences(*in_same_words(closed_one, subject), Space()).changes
    told = [tell(change, NO_NAMES, NO_NAMES, most=None) for change in found]
    names = " and ".join(f"IPv{family}" for family in subject.families)
    yield f"# What these rules do with {names}; all else is dropped, and nothing done to it."
    ways, kinds = list(Way), list(Kind)

    def order(one: Told) -> tuple[int, bool, int, bool, tuple[str, ...]]:
        change = one.change
        way, kind = ways.index(change.way), kinds.index(change.kind)
        return way, not change.is_first, kind, not change.is_plain, one.packets

    for heading, group in groupby(sorted(told, key=order), lambda one: _heading(one.change)):
        yield ""
        yield heading
        for one in group:
            yield from _told(one)
    yield ""
    # Else git would show nothing at all where the same is said otherwise.
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
    yield f"# As text: {digest}. Where only this differs, the same is said in other words."


def _heading(change: Change) -> str:
    which = "" if change.is_first else " of connections"
    what = HEADINGS.get(change.kind, "passes on conditions")
    return f"{change.way}{which}: what {what}"


def _told(one: Told) -> Iterator[str]:
    unsure = "perhaps " if one.change.shown.is_unsure else ""
    yield from (f"  {unsure}{visible(packets)}" for packets in one.packets)
    yield from (f"    except {visible(packets)}" for packets in one.excepted)
    if one.left_out:
        yield "    … and more such packets"
    if one.becomes:
        yield f"    {visible(one.becomes)}"
    for words in dict.fromkeys(_without_numbers(s.text) for s in one.statements_after):
        yield f"    by {visible(words)}"


def _without_numbers(place: str) -> str:
    """Who decides: a statement with its file, or else the reason, or the chain of the rule."""
    reason = _REASON.search(place)
    if reason is None:
        return _NUMBER.sub("", place)
    words = reason["nft"] or reason["iptables"]
    statement = _STATEMENT.fullmatch(words)
    return words if statement is None else f"{statement['file']}: {statement['words']}"
