"""`policylang diff`: what two policies, or what is in force, do differently; what is told of it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from policylang.cli.given import Given, given
from policylang.cli.matrices import left_out
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import json_place
from policylang.cli.revisions import Revision, both_ends
from policylang.cli.subjects import (
    SeveralHosts,
    Subject,
    families_of,
    in_same_words,
    named,
    of_revision,
    one_of,
)
from policylang.cli.teller import show, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.source import SourceFile, Span

if TYPE_CHECKING:
    from policylang.analysis.changed import Change, Differences, Fate
    from policylang.analysis.reviewing import Statement, Told
    from policylang.packets.cube import Cube
    from policylang.packets.fields import Field

MOST_SHOWN = 20  # changes of a kind, unless all are asked for
COLORS = {"+": "32", "-": "31", "~": "33"}  # ECMA-48: green, red, yellow
TITLE, FRAME = "1", "34"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two subjects, and what differs."""

    old: Subject
    new: Subject
    differences: Differences

    @property
    def families(self) -> tuple[int, ...]:
        """The families of which both tell; of others nothing is said."""
        return families_of(self.old, self.new)

    def told(self, change: Change) -> Told:
        """A change in words."""
        from policylang.analysis.reviewing import tell

        return tell(change, self.old.names, self.new.names)


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Compare, and tell; the exit status.

    2 where there is a difference, or with `--fail-on opened` where anything is allowed that was
    not; 1 where something cannot be read.
    """
    besides = given(chosen, report)
    compared = None
    if besides is not None:
        old, new = (_side(side, besides, chosen, report) for side in sides_of(chosen))
        if isinstance(old, SeveralHosts) and isinstance(new, SeveralHosts):
            from policylang.cli import site_diffs

            return site_diffs.run(chosen, old, new, report)
        one, other = one_of(old, report), one_of(new, report)
        compared = None if one is None or other is None else compare(one, other, report)
    show(report, chosen, sys.stderr)
    if compared is None or report.has_errors:
        return REFUSED
    most = None if chosen.all else MOST_SHOWN
    match chosen.format:
        case "json":
            print(json.dumps(as_json(compared), indent=2))
        case "markdown":
            from policylang.cli.markdown import review

            title = f"{compared.old.name} → {compared.new.name}"
            print_lines(review(title, compared.differences, compared.told, most=most))
            if note := left_out(compared.families):
                print_lines(("", note))
        case _:
            color = wants_color(chosen.color, sys.stdout)
            print_lines(Lines(color, most).of(compared))
    found = compared.differences
    fails = found.opens if chosen.fail_on == "opened" else bool(found.changes)
    return CHANGES if fails else DONE


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def compare(old: Subject, new: Subject, report: Report) -> Compared | None:
    """What both sides do differently; None, reported, where that cannot be told."""
    from policylang.analysis.diagram import Space, TooLargeError
    from policylang.analysis.differences import differences

    if not families_of(old, new):
        message = f"`{old.name}` and `{new.name}` have rules of two families: nothing is in both"
        help_ = "name the rules for IPv4 and those for IPv6, with a comma between, on both sides"
        report.add("unreadable-rules", message, None, help=help_)
        return None
    try:
        found = differences(*in_same_words(old, new), Space())
    except TooLargeError:
        report.add(
            "too-large",
            f"`{old.name}` and `{new.name}` make too many different packets to be compared",
            None,
            help="rules that overlap in many fields at once are what makes them so many",
        )
        return None
    return Compared(old, new, found)


def sides_of(chosen: argparse.Namespace) -> Sequence[str | Revision]:
    """What is compared, the old side first."""
    if chosen.rev is None:
        sides: Sequence[str | Revision] = chosen.subjects
        return sides
    (file,) = chosen.subjects
    path = file if Path(file).is_absolute() else f"./{file}"
    first, second = both_ends(chosen.rev)
    return Revision(first, path, file), file if second is None else Revision(second, path, file)


def _side(
    side: str | Revision, besides: Given, chosen: argparse.Namespace, report: Report
) -> Subject | SeveralHosts | None:
    """One side, read whatever is wrong with the other; errors say in which they are."""
    own = Report()
    parameters: Mapping[str, str] = chosen.parameters
    if isinstance(side, Revision):
        called = side.text
        found = of_revision(side, own, parameters=parameters, given=besides)
    else:
        called = side
        found = named(side, own, parameters=parameters, netns=chosen.netns, given=besides)
    report.take(placed(own, called))
    return found


_LAST = re.compile(r"[^/:]*$")  # what a policy calls itself: its name in its folder


def placed(report: Report, called: str) -> Report:
    """A report in which files are called as on the command line: both sides have the same names."""
    folder = _LAST.sub("", called)
    files: dict[SourceFile, SourceFile] = {}

    def there(span: Span) -> Span:
        new = files.setdefault(span.file, SourceFile(f"{folder}{span.file.name}", span.file.text))
        return replace(span, file=new)

    found = [
        replace(
            one,
            span=None if one.span is None else there(one.span),
            labels=tuple(replace(label, span=there(label.span)) for label in one.labels),
        )
        for one in report.diagnostics
    ]
    return Report(found, report.heeded)


# --- for people -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines for a terminal, `most` changes of a kind."""

    color: bool
    most: int | None

    def of(self, compared: Compared) -> Iterator[str]:
        from policylang.analysis.reviewing import HEADINGS, counted

        title = f"{visible(compared.old.name)} → {visible(compared.new.name)}"
        yield f"{self._paint(title, TITLE)}: {counted(compared.differences)}"
        for kind, group in groupby(compared.differences.changes, key=lambda one: one.kind):
            found = list(group)
            yield ""
            yield self._paint(HEADINGS[kind], TITLE)
            shown = found if self.most is None else found[: self.most]
            for change in shown:
                yield from self._change(compared.told(change))
            if len(found) > len(shown):
                yield f"  … and {len(found) - len(shown)} more: `--all` shows them"
        if note := left_out(compared.families):
            yield from ("", note)

    def _change(self, told: Told) -> Iterator[str]:
        change = told.change
        unsure = "perhaps " if change.shown.is_unsure else ""
        for number, packets in enumerate(told.packets):
            head = f"{told.sign} {change.way} {unsure}" if not number else ""
            head = f"  {head}" if head else " " * (len(change.way) + len(unsure) + 5)
            yield self._paint(f"{head}{visible(packets)}", COLORS[told.sign])
        for packets in told.excepted:
            yield self._paint(f"      except {visible(packets)}", COLORS[told.sign])
        if told.left_out:
            yield "      … and more such packets"
        yield from self._side("now", told.becomes, told.statements_after)
        yield from self._side("was", told.was, told.statements_before)
        yield f"      {self._paint('e.g.', FRAME)} {visible(told.example)}"

    def _side(self, when: str, done: str, statements: tuple[Statement, ...]) -> Iterator[str]:
        first, *more = [one.text for one in statements] or [""]
        texts = [", by ".join(part for part in (done, first) if part), *more]
        for number, text in enumerate(texts):
            mark = self._paint(when, FRAME) if not number else " " * len(when)
            yield f"      {mark}  {visible(text)}"

    def _paint(self, text: str, look: str) -> str:
        return f"\x1b[{look}m{text}\x1b[0m" if self.color else text


# --- for programs -----------------------------------------------------------------------------


def as_json(compared: Compared) -> dict[str, object]:
    """One object; its keys are stable, and always there.

    `version` (1), `old` and `new` (what they are called), `families` (4, 6: those of which both
    tell), `differs`, `opens` (whether anything is
    allowed that was not, or under wider conditions), and `changes`, what opens first. Each change
    has `kind` (opened, loosened, tightened, reconditioned, closed, answered, translated, helped,
    marked, logged, collected, treated), `way` (inbound, forward, outbound), `first` (whether the
    packets begin connections), `plain` (whether they are as honest senders send them),
    `invalid_too` (whether INVALID ones fare so as well), `sure`, `packets` and `except` (arrays
    with `text` and `fields`: arrays of texts of ranges by field), `complete` (whether these are
    all), `was` and `becomes` (each with `text`, `verdict` (accepted, dropped, rejected, null),
    `answer`, `always`, and `statements`: an array with `text` and the place as `check` has it), and
    `example` (`text` and `fields`, with a text each).
    """
    return {
        "version": 1,
        "old": compared.old.name,
        "new": compared.new.name,
        "families": list(compared.families),
        "differs": bool(compared.differences.changes),
        "opens": compared.differences.opens,
        "changes": [_change_as_json(compared.told(one)) for one in compared.differences.changes],
    }


def _change_as_json(told: Told) -> dict[str, object]:
    change: Change = told.change
    shown = change.shown
    texts = (*told.packets, *("" for _ in shown.region.cubes[len(told.packets) :]))
    less = (*told.excepted, *("" for _ in shown.region.excepted[len(told.excepted) :]))
    return {
        "kind": str(change.kind),
        "way": str(change.way),
        "first": change.is_first,
        "plain": change.is_plain,
        "invalid_too": shown.invalid_too,
        "sure": not shown.is_unsure,
        "packets": _cubes_as_json(shown.region.cubes, texts),
        "except": _cubes_as_json(shown.region.excepted, less),
        "complete": shown.region.is_whole,
        "was": _fate_as_json(shown.before, told.was, told.statements_before),
        "becomes": _fate_as_json(shown.after, told.becomes, told.statements_after),
        "example": {
            "text": told.example,
            "fields": {
                f.name.lower(): _value_as_text(f, value) for f, value in shown.example.items()
            },
        },
    }


def _cubes_as_json(cubes: Iterable[Cube], texts: Iterable[str]) -> list[dict[str, object]]:
    from policylang.analysis.wording import range_in_words

    return [
        {
            "text": text,
            "fields": {
                f.name.lower(): [range_in_words(f, pair) for pair in values] for f, values in cube
            },
        }
        for cube, text in zip(cubes, texts, strict=True)
    ]


def _value_as_text(f: Field, value: int) -> str:
    from policylang.analysis.wording import range_in_words

    return range_in_words(f, (value, value))


def _fate_as_json(fate: Fate, text: str, statements: tuple[Statement, ...]) -> dict[str, object]:
    return {
        "text": text,
        "verdict": None if fate.verdict is None else str(fate.verdict),
        "answer": None if fate.answer is None else str(fate.answer),
        "always": fate.always,
        "statements": [{"text": one.words, **json_place(one.span)} for one in statements],
    }
