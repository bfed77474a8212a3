"""`policylang query`: says who can reach what, of a policy or of rules of any origin."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from policylang.cli.given import given
from policylang.cli.matrices import WIDTH, left_out
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import json_place
from policylang.cli.subjects import SeveralHosts
from policylang.cli.teller import show
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.source import SourceFile, Span

if TYPE_CHECKING:
    from policylang.analysis.answers import Told
    from policylang.analysis.machine import Machine
    from policylang.analysis.questions import Answer, Beginnings
    from policylang.analysis.wording import Names
    from policylang.lower.asked import Asking
    from policylang.model.policy import Policy
    from policylang.model.types import PolicyRule

_ANYWHERE = " from any to any"  # behind a service, whose ends the table has
MOST_SHOWN = 12  # parts of an answer, unless all are asked for


@dataclass(frozen=True, slots=True)
class Questioned:
    """Rules and what is asked of them: the last of the policy's tests are the questions."""

    policy: Policy
    machine: Machine
    is_policy: bool
    families: tuple[int, ...] = (4, 6)  # one alone of what iptables-save or ip6tables-save wrote


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its answer; of one about nobody there are no parts."""

    question: str
    answer: Answer
    parts: tuple[Told, ...]
    left_out: int = 0
    is_understood: bool = True


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Answer the questions, or print the table; the exit status.

    2 where an answer is no or partly, 1 where something could not be read.
    """
    from policylang.analysis.diagram import TooLargeError

    texts = tuple(dict.fromkeys(chosen.questions))
    if chosen.matrix and chosen.services is not None:
        names = (name.strip() for name in chosen.services.split(","))
        texts = tuple(dict.fromkeys(f"{name}{_ANYWHERE}" for name in names if name))
    files = tuple(
        SourceFile("question" if len(texts) == 1 else f"question {n}", text)
        for n, text in enumerate(texts, 1)
    )
    found = _questioned(chosen, files, report)
    if isinstance(found, SeveralHosts):
        return _of_site(found, chosen, files, report)
    status = REFUSED
    if found is not None and not report.has_errors:
        try:
            status = _answered(found, texts, chosen, report)
        except TooLargeError:
            report.add(
                "too-large",
                f"the rules of `{chosen.file}` make too many different packets to be told apart",
                None,
                help="a narrower question may do: fewer services, and ends that are named",
            )
    show(report, chosen, sys.stderr)
    return REFUSED if report.has_errors else status


def _of_site(
    site: SeveralHosts,
    chosen: argparse.Namespace,
    questions: tuple[SourceFile, ...],
    report: Report,
) -> int:
    """Ask all hosts of a policy, along the way of the packets."""
    from policylang.analysis.diagram import TooLargeError
    from policylang.cli import sites

    try:
        status, lines = sites.answer(site.loaded, chosen, questions, report)
    except TooLargeError:
        message = f"the hosts of `{chosen.file}` make too many different packets to be told apart"
        report.add("too-large", message, None, help="`--host NAME` asks one of them")
        status, lines = REFUSED, []
    show(report, chosen, sys.stderr)
    if lines:
        print("\n".join(lines))
    return status


# --- what is asked, and of what ---------------------------------------------------------------


def _questioned(
    chosen: argparse.Namespace, questions: tuple[SourceFile, ...], report: Report
) -> Questioned | SeveralHosts | None:
    """What is asked, of a policy in its own names; reports what cannot be read."""
    from policylang import pipeline
    from policylang.cli import subjects

    besides = given(chosen, report)
    if besides is None:
        return None
    found = subjects.named(
        chosen.file, report, parameters=chosen.parameters, questions=questions, given=besides
    )
    if chosen.matrix:
        found = subjects.one_of(found, report)
    if found is None or isinstance(found, SeveralHosts):
        return found
    if found.policy is not None:
        return Questioned(found.policy, found.machine, is_policy=True)
    policy = pipeline.questions_of(questions, report)
    if policy is None:
        return None
    return Questioned(policy, found.machine, is_policy=False, families=found.families)


def _answered(
    found: Questioned, texts: tuple[str, ...], chosen: argparse.Namespace, report: Report
) -> int:
    from policylang.analysis.naming import names_of
    from policylang.analysis.questions import Beginnings
    from policylang.lower.asked import asking

    tests = found.policy.tests[len(found.policy.tests) - len(texts) :] if texts else ()
    questions = [expectation.asked for test in tests for expectation in test.expectations]
    if chosen.matrix:
        _check_columns(questions, report)
    asker = asking(found.policy, questions, report)
    if report.has_errors:
        return REFUSED
    beginnings = Beginnings(found.machine, asker.tests, found.policy.zones, found.families)
    names = names_of(found.policy, asker.tests, questions)
    if chosen.matrix:
        return _table(found, questions, texts, asker, beginnings, chosen)
    most = None if chosen.all or chosen.format == "json" else MOST_SHOWN
    answers = [
        _answer(text, asker, asked, beginnings, names, most)
        for text, asked in zip(texts, questions, strict=True)
    ]
    if chosen.format == "json":
        print(json.dumps(answers_as_json(answers, found.families), indent=2))
    else:
        print("\n\n".join("\n".join(map(folded, _lines(one))) for one in answers))
        if note := left_out(found.families):
            print(f"\n{note}")
    return DONE if all(one.answer == "yes" for one in answers) else CHANGES


def _check_columns(questions: Iterable[PolicyRule], report: Report) -> None:
    """Report `wrong-end` where what stands for a service says where it goes as well."""
    from policylang.model.types import AnyEnd, Conditions, EndList

    anywhere = (EndList((AnyEnd(),)),)
    for asked in questions:
        ends = (asked.source.lists, asked.destination.lists)
        if ends != (anywhere, anywhere) or asked.conditions != Conditions():
            file = asked.span.file
            own = Span(file, 0, len(file.text) - len(_ANYWHERE))
            message = f"`{own.text}` is no service: the table has ends of its own"
            help_ = "name services and ports alone, as in `--services ssh,http,dns`"
            report.add("wrong-end", message, own, help=help_)


def _table(
    found: Questioned,
    questions: list[PolicyRule],
    texts: tuple[str, ...],
    asker: Asking,
    beginnings: Beginnings,
    chosen: argparse.Namespace,
) -> int:
    """Print the table, of the services that were asked about or else of all that are named."""
    from policylang.analysis.matrix import Service, interfaces_of, matrix, mentioned
    from policylang.cli import matrices
    from policylang.model.types import Traffic

    services = tuple(
        Service(text.removesuffix(_ANYWHERE), asked.what)
        for text, asked in zip(texts, questions, strict=True)
    ) or mentioned(found.policy)
    services = services or (Service("all", (Traffic(),)),)
    zones = found.policy.zones if found.is_policy else interfaces_of(found.machine)
    rows = tuple(matrix(zones, services, asker, beginnings))
    matrices.tell(rows, services, chosen, found.families)
    return DONE


def _answer(
    text: str,
    asker: Asking,
    asked: PolicyRule,
    beginnings: Beginnings,
    names: Names,
    most: int | None,
) -> Answered:
    from policylang.analysis.answers import is_understood, told
    from policylang.analysis.parts import parts_of

    pieces = beginnings.pieces(asker.asked(asked))
    parts = parts_of(pieces, beginnings)
    shown = told(parts, names, most)
    return Answered(
        text,
        beginnings.answer(pieces),
        shown,
        len(parts) - len(shown),
        is_understood(parts),
    )


# --- telling ----------------------------------------------------------------------------------


def _lines(answered: Answered) -> Iterator[str]:
    """An answer as people read it."""
    yield f"{visible(answered.question)}: {answered.answer}"
    if not answered.parts:
        yield "  no packet is asked about: ends, conditions and services exclude each other"
        return
    if not answered.is_understood:
        yield "  not all of the rules are understood: what says `yes` passes at least, and what"
        yield "  says `yes` or `partly` at most"
    for one in answered.parts:
        yield ""
        yield from part_lines(one)
    if answered.left_out:
        yield ""
        yield f"  … and {answered.left_out} parts more; `--all` shows them"


def folded(line: str) -> str:
    """A line as several where it is wider than a page; words stay whole."""
    return "\n".join(
        wrap(
            line,
            WIDTH,
            subsequent_indent=f"{_INDENT}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def part_lines(one: Told) -> Iterator[str]:
    phrases = (one.rest,) if one.is_rest else one.phrases
    mark = f"{one.part.answer:<6}"
    for phrase in phrases:
        yield f"  {mark}  {visible(phrase)}"
        mark = " " * len(mark)
    if not one.is_rest:
        if not one.region.is_whole:
            yield f"{_INDENT}and more of the kind"
        for phrase in one.excepted:
            yield f"{_INDENT}except {visible(phrase)}"
    if one.sent_on is not None:
        yield f"{_INDENT}→ {visible(one.sent_on)}: {visible(one.sent_by or '')}"
    if one.source is not None:
        yield f"{_INDENT}→ {visible(one.source)}"
    if one.why != one.sent_by:
        yield f"{_INDENT}{one.fate}: {visible(one.why)}"
    if one.condition is not None:
        yield f"{_INDENT}if it is {visible(one.condition)}"
    for why in (why for why in one.otherwise if why != one.why):
        yield f"{_INDENT}otherwise: {visible(why)}"


_INDENT = " " * 10


def answers_as_json(answers: list[Answered], families: tuple[int, ...]) -> dict[str, object]:
    """The value that `--format json` prints; its keys are stable.

    `version` is 1, `families` are those that are spoken of (4, 6). `answers` has an object for each
    question: `question`, `answer` (`yes`, `no`, `partly`), `understood` (false where rules of other
    origin hold something that was not) and `parts`. A part has `answer`, `path` (`inbound`,
    `forward`, `outbound`), `packets` and `except` (arrays of objects: for each field that is not
    open, an array of values and ranges as the language writes them), `complete` (false where there
    are too many to list), `words`, `fate`, `decided_by`, `sent_on`, `sent_by`, `source` and
    `condition` (each a text or null) and `otherwise` (an array). `decided_by` has `text` and the
    five of a place, null where no statement decides. Parts have no packet in common, and all
    packets of the question.
    """
    return {
        "version": 1,
        "families": list(families),
        "answers": [
            {
                "question": one.question,
                "answer": str(one.answer),
                "understood": one.is_understood,
                "parts": [part_as_json(part) for part in one.parts],
            }
            for one in answers
        ],
    }


_PATHS = {"input": "inbound", "forward": "forward", "output": "outbound"}


def part_as_json(one: Told) -> dict[str, object]:
    from policylang.analysis.wording import cube_values

    span = None if one.origin is None else one.origin.span
    return {
        "answer": str(one.part.answer),
        "path": _PATHS[one.part.path],
        "packets": [cube_values(cube) for cube in one.region.cubes],
        "except": [cube_values(cube) for cube in one.region.excepted],
        "complete": one.region.is_whole,
        "words": list(one.phrases),
        "fate": one.fate,
        "decided_by": {"text": one.why, **json_place(span)},
        "sent_on": one.sent_on,
        "sent_by": one.sent_by,
        "source": one.source,
        "condition": one.condition,
        "otherwise": list(one.otherwise),
    }
