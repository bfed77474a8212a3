"""`policylang review`: a comment on a change of policies, to be read before it is loaded.

What differs is found here, side by side; how it is laid out, and cut to fit, is `comment`'s matter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from policylang.backends import TARGETS
from policylang.cli.comment import Host, Section, comment
from policylang.cli.diffing import Compared
from policylang.cli.given import Given, given
from policylang.cli.golden_cases import PARAMETERS, parameters_beside
from policylang.cli.golden_outputs import outputs
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.output import write_stdout
from policylang.cli.places import from_here, top
from policylang.cli.revisions import Revision, both_ends, is_there, laid_out, revision_of, top_of
from policylang.cli.subjects import Subject, in_same_words
from policylang.cli.teller import show
from policylang.diagnostics import Report, Severity
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


@dataclass(slots=True)
class _Outcome:
    """What the exit status depends on."""

    sections: list[Section] = field(default_factory=list)
    differs: bool = False
    opens: bool = False


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Write the comment to standard output; the exit status.

    2 where packets fare otherwise, or with `--fail-on opened` where anything is allowed that was
    not; 1 where a policy cannot be read or compared, which the comment says as well.
    """
    outcome = _Outcome()
    besides = given(chosen, report)
    if besides is not None:
        for pair in _pairs(chosen):
            own = Report()
            _look(pair, chosen, besides, outcome, own)
            report.take(own)
    if outcome.sections:
        write_stdout(comment(outcome.sections, chosen.limit), report)
    show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    fails = outcome.opens if chosen.fail_on == "opened" else outcome.differs
    return CHANGES if fails else DONE


Words = str | Revision


def _pairs(chosen: argparse.Namespace) -> Iterator[tuple[str, Words, Words]]:
    """What is compared: a title, and both sides."""
    if chosen.rev is None:
        old, new = chosen.subjects
        yield f"{old} → {new}", _words(old), _words(new)
        return
    first, second = both_ends(chosen.rev)
    for file in chosen.subjects:
        path = file if Path(file).is_absolute() else f"./{file}"
        now = file if second is None else Revision(second, path, file)
        yield file, Revision(first, path, file), now


def _words(text: str) -> Words:
    return text if Path(text).exists() else revision_of(text) or text


def _look(
    pair: tuple[str, Words, Words],
    chosen: argparse.Namespace,
    besides: Given,
    outcome: _Outcome,
    report: Report,
) -> None:
    """Compare one pair, and add what is told of it; reports what cannot be read or compared."""
    title, *words = pair
    may_be_new = chosen.rev is not None
    there = [_is_there(one, report) if may_be_new else True for one in words]
    if None in there:
        return
    if not any(there):
        report.add("unreadable-file", f"cannot read `{title}`: no such file on either side", None)
        return
    sides = [
        _read(one, chosen, besides, report) if is_there else NOTHING
        for one, is_there in zip(words, there, strict=True)
    ]
    old, new = sides
    if old is None or new is None:
        errors = [d for d in report.in_order() if d.severity is Severity.ERROR]
        texts = tuple(f"{d.code}: {d.message}" for d in errors)
        outcome.sections.append(Section(title, errors=texts))
        return
    hosts = [
        _host(title, host, old, new, outcome, report)
        for host in dict.fromkeys((*old.subjects, *new.subjects))
    ]
    state = "is new" if old is NOTHING else "is removed" if new is NOTHING else ""
    outcome.sections.append(
        Section(
            title,
            state=state,
            hosts=tuple(hosts),
            texts=_differing(old.texts, new.texts, title.rpartition(" → ")[2]),
            rules=_differing(old.rules, new.rules, ""),
            notes=new.left_out,
        )
    )


def _is_there(words: Words, report: Report) -> bool | None:
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
            path = (
                main if name == MAIN else os.path.normpath(f"{folder}/{name}" if folder else name)
            )
            found.append((path, before, after))
    return tuple(found)


# --- a side -----------------------------------------------------------------------------------


def _read(words: Words, chosen: argparse.Namespace, besides: Given, report: Report) -> Side | None:
    called = words.text if isinstance(words, Revision) else words
    own = Report()
    with _place(words, own) as path:
        if path is None:
            side = None
        else:
            root = top_of(path) if isinstance(words, Revision) else top(Path.cwd() / path.parent)
            side = _side(called, path, root, chosen, besides, own)
    # Warnings are for who compiles it.
    errors = Report([d for d in own.diagnostics if d.severity is Severity.ERROR])
    report.take(from_here(errors, called))
    return None if errors.has_errors else side


@contextmanager
def _place(words: Words, report: Report) -> Iterator[Path | None]:
    if isinstance(words, Revision):
        with laid_out(words, report) as path:
            yield path
    else:
        yield Path(words)


def _side(
    called: str,
    path: Path,
    root: Path,
    chosen: argparse.Namespace,
    besides: Given,
    report: Report,
) -> Side | None:
    parameters = {**parameters_beside(path, report), **chosen.parameters}
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
    rules: dict[str, str] = {}
    left_out: list[str] = []
    for target in TARGETS if chosen.target is None else (chosen.target,):
        own = Report()
        texts = outputs(loaded, (target,), own, only=besides.host)
        if texts is None:
            why = next(d.message for d in own.in_order() if d.severity is Severity.ERROR)
            left_out.append(f"there are no rules for {target}: {why}")
        else:
            rules |= texts
    return Side(called, _texts(path, loaded, root), subjects, rules, tuple(left_out))


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
    """What the policy was read from: its files, its lists, its parameters and its lock file.

    Files that are no part of the repository are left out: a comment is read by more people than
    what else the machine holds.
    """
    folder, whole = path.parent, Path(os.path.realpath(root))

    def is_shown(file: Path) -> bool:
        where = Path(os.path.realpath(file))
        return where.is_relative_to(whole) and ".git" not in where.relative_to(whole).parts

    first, *more = loaded.files
    texts = {MAIN: first.text}
    texts |= {file.name: file.text for file in more if is_shown(folder / file.name)}
    beside = [path.with_suffix(PARAMETERS), lock_path(path)]
    lists = [folder / Path(name).parent / one.path for name, one in loaded.lists]
    for other in (*beside, *lists):
        if is_shown(other) and other.is_file() and other.stat().st_size <= MOST_LIST_BYTES:
            name = Path(os.path.relpath(other, folder)).as_posix()
            texts[name] = other.read_text("utf-8", "replace")
    return texts


# --- what differs -----------------------------------------------------------------------------


def _host(
    title: str, host: str | None, old: Side, new: Side, outcome: _Outcome, report: Report
) -> Host:
    """What a host does otherwise; one that is gone does nothing any more, and is not compared."""
    before, after = old.subjects.get(host), new.subjects.get(host)
    if after is None:
        outcome.differs = True
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
    outcome.differs |= bool(found.changes)
    outcome.opens |= found.opens
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
