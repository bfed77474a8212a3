"""`policylang refresh`: asks for addresses from elsewhere, and brings them in force."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from policylang.apply import refreshing
from policylang.apply.record import Record, state_folder
from policylang.apply.refreshing import Refreshed, Spans
from policylang.cli import output
from policylang.cli.options import DONE, REFUSED
from policylang.cli.teller import show
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.ir.ruleset import ListSource
from policylang.syntax.loader import lock_path, read_lock_beside
from policylang.syntax.locks import Lock, Locked, address_texts, lock_text


def run(chosen: argparse.Namespace) -> int:
    """Carry out `refresh`; the exit status."""
    report = Report()
    is_done = _all(chosen, report) if chosen.all else _one(chosen, report)
    show(report, chosen, sys.stderr)
    return DONE if is_done and not report.has_errors else REFUSED


def _one(chosen: argparse.Namespace, report: Report) -> bool:
    """Refresh the lists of a policy; whether every source answered and nothing would change."""
    from policylang import pipeline  # what the timer runs compiles nothing

    policy = Path(chosen.file)
    found = pipeline.lists_of(policy, report, parameters=chosen.parameters)
    if found is None:
        return False
    lists = {one.source: next((o.span for o in one.origins), None) for one in found}
    if not lists:
        print(f"{visible(chosen.file)}: no list from elsewhere")
        return True
    before = read_lock_beside(policy, lock_path(policy).name, report)
    if before is None:
        return False
    made = refreshing.refreshed(lists, before, report, only_due=chosen.due)
    lock = refreshing.without_others(lists, made.lock)
    _print_answers(made, before)
    if chosen.check:
        return not made.has_failed and _addresses(lock) == _addresses(before)
    if lock != before:
        output.write_file(lock_path(policy), lock_text(lock), report)
    if report.has_errors:
        return False
    _bring(tuple(lists), lock, report, chosen)
    return not made.has_failed


def _all(chosen: argparse.Namespace, report: Report) -> bool:
    """Refresh what is due of all that is in force; whether every source answered."""
    record = Record(state_folder(chosen.netns))
    by_policy = refreshing.in_force(record, report, netns=chosen.netns)
    is_whole = by_policy is not None
    for path, lists in sorted((by_policy or {}).items()):
        is_whole &= _due(Path(path), dict.fromkeys(lists), report, chosen)
    return is_whole


def _due(policy: Path, lists: Spans, report: Report, chosen: argparse.Namespace) -> bool:
    own = Report()
    before = read_lock_beside(policy, str(lock_path(policy)), own)
    if before is not None:
        made = refreshing.refreshed(lists, before, own, only_due=True)
        _print_answers(made, before)
        if made.lock != before:
            output.replace_file(lock_path(policy), lock_text(made.lock), own)
        # What is known is brought in force even if it cannot be written down.
        _bring(tuple(lists), made.lock, own, chosen)
    for told in own.diagnostics:
        report.add(told.code, told.message, told.span, help=told.help, labels=told.labels)
    return before is not None and not made.has_failed


def _bring(
    lists: Sequence[ListSource], lock: Lock, report: Report, chosen: argparse.Namespace
) -> None:
    own = Report()
    updated = refreshing.bring(lists, lock, own, netns=chosen.netns)
    is_of_nobody = chosen.netns is None and not chosen.all
    if is_of_nobody and {told.code for told in own.diagnostics} == {"not-permitted"}:
        print("the lock file alone: what is loaded can be looked at as root")
        return
    for told in own.diagnostics:
        report.add(told.code, told.message, told.span, help=told.help, labels=told.labels)
    for one in updated or ():
        print(f"{one.place}: {one.added} added, {one.removed} removed")


def _print_answers(made: Refreshed, before: Lock) -> None:
    """A line for each source that answered: how much it is, and what is new."""
    for key, answer in made.answers.items():
        if not isinstance(answer, Locked):
            continue
        new, old = set(address_texts(answer.addresses)), set[str]()
        if key in before:
            old = set(address_texts(before[key].addresses))
        changes = f"{len(new - old)} new, {len(old - new)} gone" if new != old else "unchanged"
        count = refreshing.elements(len(new))
        print(f"{visible(refreshing.source_text(key))}: {count}, {changes}")


def _addresses(lock: Lock) -> dict[str, tuple[tuple[int, int], ...]]:
    return {key: held.addresses.pairs for key, held in lock.items()}
