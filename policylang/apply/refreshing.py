"""What becomes of a lock file when its sources are asked again; it opens no file.

A source that gives nothing keeps what it had. What the lock holds is then brought to the sets that
are in force, whichever policy they were loaded by: a set stands for its sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from policylang.apply import kernel, live_lists, sources
from policylang.apply.live_lists import Updated
from policylang.apply.record import Record
from policylang.apply.sources import Answer, Failed
from policylang.diagnostics import Report
from policylang.ir.ruleset import ListSource
from policylang.packets.values import Ranges
from policylang.source import Span
from policylang.syntax.loader import read_lock_beside
from policylang.syntax.locks import Lock, Locked, address_texts
from policylang.syntax.wording import quoted

Spans = Mapping[ListSource, Span | None]  # the lists that are to be refreshed, and where declared


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A new lock, and what each source that was asked answered, by its name in the lock."""

    lock: Lock
    answers: Mapping[str, Answer]

    @property
    def has_failed(self) -> bool:
        return any(isinstance(answer, Failed) for answer in self.answers.values())


def refreshed(lists: Spans, lock: Lock, report: Report, *, only_due: bool) -> Refreshed:
    """Ask the sources of lists, or those alone whose time has come; warns `source-failed`.

    Sources that no list names keep their place in the lock.
    """
    keys = dict.fromkeys(key for one in lists for key in one.sources)
    if only_due:
        keys = dict.fromkeys(key for one in lists for key in _due(one, lock))
    answers = sources.ask(tuple(keys), lock)
    new = {**lock, **{key: a for key, a in answers.items() if isinstance(a, Locked)}}
    for key, answer in answers.items():
        if isinstance(answer, Failed):
            span = next((span for one, span in lists.items() if key in one.sources), None)
            _tell_failed(key, answer, lock.get(key), span, report)
    return Refreshed(new, answers)


def _due(one: ListSource, lock: Lock) -> Iterator[str]:
    """The sources to be asked again; a date in the future is no date."""
    now = datetime.now(UTC)
    for key in one.sources:
        held = lock.get(key)
        age = None if held is None else now - held.refreshed
        if age is None or not timedelta() <= age < timedelta(seconds=one.refresh_s):
            yield key


def _tell_failed(
    key: str, failed: Failed, before: Locked | None, span: Span | None, report: Report
) -> None:
    stays = "it never gave any"
    if before is not None:
        count = sum(1 for _ in address_texts(before.addresses))
        age = age_words(datetime.now(UTC) - before.refreshed)
        stays = f"what it gave {age} ago stays in use: {elements(count)}"
    report.add(
        "source-failed",
        f"{quoted(source_text(key))} gave no addresses",
        span,
        help=f"{failed.reason}; {stays}",
    )


def source_text(key: str) -> str:
    """The name or the URL of a source, by its name in a lock file."""
    return key.partition(" ")[2]


def elements(count: int) -> str:
    """How many addresses and prefixes, in words."""
    return "1 address or prefix" if count == 1 else f"{count} addresses and prefixes"


def age_words(age: timedelta) -> str:
    """How long ago something was: its largest unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size or size == 1:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("a second is the smallest unit")


def without_others(lists: Iterable[ListSource], lock: Lock) -> Lock:
    """A lock with the sources of the lists alone."""
    named = {key for one in lists for key in one.sources}
    return {key: held for key, held in lock.items() if key in named}


def addresses(lists: Iterable[ListSource], lock: Lock) -> dict[ListSource, Ranges]:
    """What each list holds by a lock; those that it does not have whole are left out."""
    found: dict[ListSource, Ranges] = {}
    for one in lists:
        held = [lock.get(key) for key in one.sources]
        if all(part is not None for part in held):
            parts = (pair for part in held if part is not None for pair in part.addresses)
            found[one] = Ranges.merged(parts)
    return found


def bring(
    lists: Iterable[ListSource], lock: Lock, report: Report, *, netns: str | None
) -> tuple[Updated, ...] | None:
    """Bring what a lock holds to the sets that are in force; None, reported, where that fails.

    Reports `not-permitted`, `no-such-namespace`, `lock-held` and `loading-failed`.
    """
    wanted = addresses(lists, lock)

    def work() -> tuple[Updated, ...] | None:
        if not kernel.may_change(report):
            return None
        with kernel.alone(report) as is_alone:
            return live_lists.update(wanted, report) if is_alone else None

    return kernel.in_netns(netns, work, report)


def follow(lists: Sequence[ListSource], policy: str) -> None:
    """Bring what the lock file of a policy (an absolute path, or empty) holds to its sets.

    They are those of a generation that was just put in force; the calling thread has its namespace
    to itself. What cannot be read is left for `policylang refresh` to tell.
    """
    quiet = Report()
    lock = read_lock_beside(Path(policy), policy, quiet) if lists and policy else None
    if lock:
        live_lists.update(addresses(lists, lock), quiet)


def in_force(
    record: Record, report: Report, *, netns: str | None
) -> dict[str, tuple[ListSource, ...]] | None:
    """The lists of the generations that are, or will be again, in force, by the policy's path.

    None, reported, where what is in force is not known.
    """
    state = kernel.in_netns(netns, lambda: record.state(report), report)
    if state is None:
        return None
    found: dict[str, dict[ListSource, None]] = {}
    for number in dict.fromkeys((state.current, state.pending, state.confirmed)):
        if number is None:
            continue
        kept, artifact = record.one(number, report), record.artifact(number, report)
        if kept is None or not kept.policy_path or artifact is None:
            continue
        if artifact.needs.lists:
            found.setdefault(kept.policy_path, {}).update(dict.fromkeys(artifact.needs.lists))
    return {path: tuple(lists) for path, lists in found.items()}
