"""`policylang review`: a comment on a change of policies, to be read before it is loaded.

What differs is found here, side by side; how it is laid out, and cut to fit, is `comment`'s matter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from policylang import pipeline
from policylang.analysis.changed import Change, Differences
from policylang.analysis.closed import closed
from policylang.analysis.diagram import Space, TooLargeError
from policylang.analysis.differences import differences
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.reviewing import Told
from policylang.analysis.wording import NO_NAMES
from policylang.cli.comment import Host, Section, comment
from policylang.cli.diffing import Compared
from policylang.cli.given import Given, given
from policylang.cli.golden_cases import (
    CHOSEN,
    PARAMETERS,
    cases,
    parameters_beside,
    targets_beside,
)
from policylang.cli.golden_outputs import outputs
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.output import write_stdout
from policylang.cli.places import from_here, top
from policylang.cli.revisions import (
    Revision,
    Trees,
    both_ends,
    is_there,
    revision_of,
    top_of,
    trees,
)
from policylang.cli.subjects import Subject, in_same_words
from policylang.cli.teller import show
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic, Report, Severity
from policylang.ir.origin import Why
from policylang.lower.stateful import lower
from policylang.syntax.loader import lock_path
from policylang.syntax.tree import Loaded

MAIN = ""  # what the policy's own file is called among its texts: both sides may name it otherwise
MOST_LIST_BYTES = 1_000_000  # of a list that is shown; longer ones change by thousands of lines

# What every firewall does is not told of a new one.
_EVERYWHERE = frozenset({Why.LOOPBACK, Why.ESSENTIAL, Why.IMPLIED_REPLY, Why.ICMP_ERROR})


@dataclass(frozen=True, slots=True)
class Side:
    """A policy as it is on one side.

    `texts` are what it was read from, by path from its folder, its own file as `MAIN`; `subjects`
    what it does, by host; `rules` what it compiles to, and `left_out` why not for some target.
    """

    called: str
    texts: Mapping[str, str]
    subjects: Mapping[str | None, Subject]
    rules: Mapping[str, str]
    left_out: tuple[str, ...] = ()


NOTHING = Side("nothing", {}, {}, {})


@dataclass(frozen=True, slots=True)
class Unread:
    """A side that cannot be compared: why, a line for each error, as anybody may read it."""

    errors: tuple[str, ...]


@dataclass(slots=True)
class _Review:
    """What is asked for, the revisions that are laid out for it, and what came of it so far.

    `differs` and `opens` are what the exit status depends on.
    """

    chosen: argparse.Namespace
    besides: Given
    trees: Trees
    sections: list[Section] = field(default_factory=list)
    differs: bool = False
    opens: bool = False


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Write the comment to standard output; the exit status.

    2 where packets fare otherwise, or with `--fail-on opened` where anything is allowed that was
    not; 1 where a policy cannot be read or compared, which the comment says as well.
    """
    besides = given(chosen, report)
    if besides is None:
        show(report, chosen, sys.stderr)
        return REFUSED
    with trees() as laid:
        review = _Review(chosen, besides, laid)
        for pair in _pairs(review, report):
            own = Report()
            _look(pair, review, own)
            report.take(own)
    if review.sections:
        write_stdout(comment(review.sections, chosen.limit), report)
    show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    fails = review.opens if chosen.fail_on == "opened" else review.differs
    return CHANGES if fails else DONE


Words = str | Revision
Pair = tuple[str, Words | None, Words | None]  # a title and both sides; None is where it is none


def _pairs(review: _Review, report: Report) -> Iterator[Pair]:
    """What is compared; reports `no-policies`, and what keeps a folder from being looked into."""
    chosen = review.chosen
    if chosen.rev is None:
        old, new = chosen.subjects
        yield f"{old} → {new}", _words(old), _words(new)
        return
    first, second = both_ends(chosen.rev)
    for subject in chosen.subjects:
        own = Report()
        sides = [_policies(_at(one, subject), subject, review, own) for one in (first, second)]
        report.take(own)
        if own.has_errors:  # what a side has is not known, and none of it is new
            continue
        if sides == [None, None]:
            yield subject, _at(first, subject), _at(second, subject)
            continue
        old, new = (side or frozenset() for side in sides)
        if not old | new:
            report.add("no-policies", f"there is no policy in `{subject}`", None)
        for file in sorted(old | new):
            yield (
                file,
                _at(first, file) if file in old else None,
                _at(second, file) if file in new else None,
            )


def _at(name: str | None, file: str) -> Words:
    """A file in a revision; of None it is the one that is there now."""
    if name is None:
        return file
    return Revision(name, file if Path(file).is_absolute() else f"./{file}", file)


def _policies(words: Words, folder: str, review: _Review, report: Report) -> frozenset[str] | None:
    """The policies of a folder as it is on one side; None where it is no folder there."""
    if isinstance(words, Revision):
        place = review.trees.folder(words, report)
    else:
        place = Path(words) if Path(words).is_dir() else None
    if place is None:
        return None
    own = Report()
    found = cases((place,), review.besides.inventory, own)
    # That one side has none is no mistake.
    report.take(Report([d for d in own.diagnostics if d.code != "no-policies"]))
    return frozenset(str(Path(folder, one.path.relative_to(place))) for one in found)


def _words(text: str) -> Words:
    return text if Path(text).exists() else revision_of(text) or text


def _look(pair: Pair, review: _Review, report: Report) -> None:
    """Compare one pair, and add what is told of it; reports what cannot be read or compared."""
    title, *words = pair
    may_be_new = review.chosen.rev is not None
    there = [_is_there(one, report) if may_be_new else True for one in words]
    if None in there:  # git cannot say
        return
    if not any(there):
        report.add("unreadable-file", f"cannot read `{title}`: no such file on either side", None)
        return
    sides = [
        _read(one, review, report) if is_there and one is not None else NOTHING
        for one, is_there in zip(words, there, strict=True)
    ]
    old, new = sides
    if isinstance(old, Unread) or isinstance(new, Unread):
        unread = [one for one in (old, new) if isinstance(one, Unread)]
        errors = tuple(error for one in unread for error in one.errors)
        review.sections.append(Section(title, errors=errors))
        return
    hosts = [
        _host(title, host, old, new, review, report)
        for host in dict.fromkeys((*old.subjects, *new.subjects))
    ]
    state = "is new" if old is NOTHING else "is removed" if new is NOTHING else ""
    called = title if may_be_new else review.chosen.subjects[1]
    review.sections.append(
        Section(
            title,
            state=state,
            hosts=tuple(hosts),
            texts=_differing(old.texts, new.texts, called),
            rules=_differing(old.rules, new.rules, ""),
            notes=new.left_out,
        )
    )


def _is_there(words: Words | None, report: Report) -> bool | None:
    if words is None:
        return False
    return is_there(words, report) if isinstance(words, Revision) else Path(words).is_file()


def _differing(
    old: Mapping[str, str], new: Mapping[str, str], main: str
) -> tuple[tuple[str, str, str], ...]:
    """The texts that differ, each with its name and both sides."""
    folder = main.rpartition("/")[0]
    found = []
    for name in dict.fromkeys((*new, *old)):
        before, after = old.get(name, ""), new.get(name, "")
        if before != after:
            path = main if name == MAIN else os.path.normpath(f"{folder or '.'}/{name}")
            found.append((path, before, after))
    return tuple(found)


# --- a side -----------------------------------------------------------------------------------


def _read(words: Words, review: _Review, report: Report) -> Side | Unread:
    called = words.text if isinstance(words, Revision) else words
    own = Report()
    path = review.trees.file(words, own) if isinstance(words, Revision) else Path(words)
    if path is None:
        report.take(own)
        return Unread(tuple(_as_a_line(one, is_shown=True) for one in own.in_order()))
    root = top_of(path) if isinstance(words, Revision) else top(Path.cwd() / path.parent)
    side = _side(called, path, root, review, own)
    # Warnings are for who compiles it.
    found = [d for d in own.in_order() if d.severity is Severity.ERROR]
    if side is not None and not found:
        return side
    beside = {file.name for file in review.besides.inventory}
    shown = [_may_be_shown(one, path, root, beside) for one in found]
    errors = from_here(Report(found), called)
    report.take(errors)
    told = zip(errors.diagnostics, shown, strict=True)
    return Unread(tuple(_as_a_line(one, is_shown=is_shown) for one, is_shown in told))


def _may_be_shown(error: Diagnostic, policy: Path, root: Path, beside: set[str]) -> bool:
    """Whether an error is about files of the repository alone, or those `beside` the policy.

    Of any other file nobody who reads a comment is to know a word.
    """
    spans = [span for span in (error.span, *(label.span for label in error.labels)) if span]
    names = {span.file.name for span in spans} - beside
    return all(_is_within(policy.parent / name, root) for name in names)


def _as_a_line(error: Diagnostic, *, is_shown: bool) -> str:
    place = "" if error.span is None else f"{error.span.place}: "
    if is_shown:
        return f"{place}{error.code}: {error.message}"
    return f"{error.code}: {CODES[error.code].title}, in a file that is no part of the repository"


def _side(called: str, path: Path, root: Path, review: _Review, report: Report) -> Side | None:
    chosen, besides = review.chosen, review.besides
    for suffix in (PARAMETERS, CHOSEN):
        file = path.with_suffix(suffix)
        if not _is_within(file, root):
            report.add("unreadable-file", f"`{file.name}` leads out of the repository", None)
            return None
    parameters = {**parameters_beside(path, report), **chosen.parameters}
    targets = targets_beside(path, report)
    source = pipeline.OfHost(path, None, besides.inventory) if besides.inventory else path
    loaded = pipeline.loaded_from(source, report, parameters)
    if report.has_errors:
        return None
    hosts = (besides.host,) if besides.host is not None else loaded.hosts or (None,)
    subjects = {}
    for host in hosts:
        subject = _subject(called, loaded, host, report)
        if subject is not None:
            subjects[host] = subject
    if report.has_errors:
        return None
    wanted = tuple(target for target in targets if chosen.target in (None, target))
    rules, left_out = _rules(loaded, wanted, besides.host)
    return Side(called, _texts(path, loaded, root), subjects, rules, left_out)


def _rules(
    loaded: Loaded, targets: tuple[str, ...], host: str | None
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """What the policy compiles to, and why it does not for some target."""
    together = outputs(loaded, targets, Report(), only=host)
    if together is not None:
        return together, ()
    rules: dict[str, str] = {}
    left_out: list[str] = []
    for target in targets:
        own = Report()
        texts = outputs(loaded, (target,), own, only=host)
        if texts is None:
            why = next(d.message for d in own.in_order() if d.severity is Severity.ERROR)
            left_out.append(f"there are no rules for {target}: {why}")
        else:
            rules |= texts
    return rules, tuple(left_out)


def _subject(called: str, loaded: Loaded, host: str | None, report: Report) -> Subject | None:
    """What the policy does, on one of its hosts where it has several."""
    own = Report()
    one = pipeline.of_host(loaded, host, own)
    policy = None if one is None else pipeline.meant_by(one, own)
    ruleset = None if policy is None else lower(policy, own)
    report.take(own)
    if policy is None or ruleset is None or own.has_errors:
        return None
    names = names_of(policy, ruleset.address_tests)
    return Subject(called, machine_of(ruleset), names, policy, ruleset)


def _texts(path: Path, loaded: Loaded, root: Path) -> dict[str, str]:
    """What the policy was read from: its files, its lists, what is given beside it, its lock file.

    Files that are no part of the repository are left out: a comment is read by more people than
    what else the machine holds.
    """
    folder = path.parent
    first, *more = loaded.files
    texts = {MAIN: first.text} if _is_within(path, root) else {}
    texts |= {file.name: file.text for file in more if _is_within(folder / file.name, root)}
    beside = [*(path.with_suffix(one) for one in (PARAMETERS, CHOSEN)), lock_path(path)]
    lists = [folder / Path(name).parent / one.path for name, one in loaded.lists]
    for other in (*beside, *lists):
        if _is_within(other, root) and other.is_file() and other.stat().st_size <= MOST_LIST_BYTES:
            name = Path(os.path.relpath(other, folder)).as_posix()
            texts[name] = other.read_text("utf-8", "replace")
    return texts


def _is_within(file: Path, root: Path) -> bool:
    """Whether a file, wherever links lead, is part of the repository with that top."""
    where, whole = Path(os.path.realpath(file)), Path(os.path.realpath(root))
    return where.is_relative_to(whole) and ".git" not in where.relative_to(whole).parts


# --- what differs -----------------------------------------------------------------------------


def _host(
    title: str, host: str | None, old: Side, new: Side, review: _Review, report: Report
) -> Host:
    """What a host does otherwise; one that is gone does nothing any more, and is not compared."""
    before, after = old.subjects.get(host), new.subjects.get(host)
    if after is None:
        review.differs = True
        return Host(host, state="is removed")
    state = "" if before is not None else "is new"
    if before is None:
        before = Subject("nothing", closed(), NO_NAMES)
    try:
        found = differences(*in_same_words(before, after), Space())
    except TooLargeError:
        report.add(
            "too-large",
            f"both sides of `{title}` make too many different packets to be compared",
            None,
            help="rules that overlap in many fields at once are what makes them so many",
        )
        return Host(host, state=state, is_too_large=True)
    if state:
        found = _of_statements(found)
    review.differs |= bool(found.changes)
    review.opens |= found.opens
    compare = _OfNew if state else Compared
    return Host(host, state=state, compared=compare(before, after, found))


class _OfNew(Compared):
    """What is new, beside nothing: of that there is nothing to tell."""

    def told(self, change: Change) -> Told:
        """A change in words, without what was before."""
        return replace(Compared.told(self, change), was="", statements_before=())


def _of_statements(found: Differences) -> Differences:
    """What a new policy does of itself, not what every firewall does."""
    return replace(found, changes=tuple(one for one in found.changes if _is_own(one)))


def _is_own(change: Change) -> bool:
    whys = {o.why for decider in change.shown.after.deciders for o in decider.origins}
    return change.is_first and not whys <= _EVERYWHERE
