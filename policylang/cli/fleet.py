"""The same done for every host of a policy, side by side, and told once; nothing is written here.

What is found is the same whatever number of processes looks for it: results come back in the
order in which the policy declares its hosts.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

from policylang import pipeline
from policylang.diagnostics import Label, Report
from policylang.model.scope import told_hosts
from policylang.source import SourceFile, Span
from policylang.syntax.tree import Loaded

T = TypeVar("T")

Work = Callable[[Loaded, Report], T | None]  # of a policy as one host has it

LEAST_EACH = 8  # hosts that are worth a process of their own
_Key = tuple[str, str, Span | None, str | None, tuple[Label, ...]]  # what a diagnostic tells


@dataclass(frozen=True, slots=True)
class OfOne(Generic[T]):
    """What came of one host."""

    host: str
    made: T | None
    report: Report


def for_each_host(
    loaded: Loaded, work: Work[T], report: Report, *, shows_progress: bool = False
) -> dict[str, T]:
    """What `work` makes of each host, in the policy's order; without those where it failed.

    What is told of all hosts alike is reported once, and of some of them with their names: so the
    errors of one host never hide those of another.
    """
    names = loaded.hosts
    jobs = max(1, min(os.cpu_count() or 1, len(names) // LEAST_EACH))
    found: dict[str, OfOne[T]] = {}
    made = _alone(loaded, names, work) if jobs == 1 else _side_by_side(loaded, names, work, jobs)
    is_shown = shows_progress and sys.stderr is not None and sys.stderr.isatty()
    for one in made:
        found[one.host] = one
        if is_shown:
            print(f"\r{len(found)} of {len(names)} hosts", end="", file=sys.stderr, flush=True)
    if is_shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    in_order = {name: found[name] for name in names}
    merge({name: one.report for name, one in in_order.items()}, report)
    return {
        name: one.made
        for name, one in in_order.items()
        if one.made is not None and not one.report.has_errors
    }


def merge(reports: Mapping[str, Report], report: Report) -> None:
    """Take in what was found of each host; what holds for some of them alone names these."""
    told: dict[_Key, list[str]] = {}
    for host, own in reports.items():
        report.heeded |= own.heeded
        for one in own.diagnostics:
            key = (one.code, one.message, one.span, one.help, one.labels)
            told.setdefault(key, []).append(host)
    for (code, message, span, help_, labels), hosts in told.items():
        where = "" if len(hosts) == len(reports) else f" (on {told_hosts(hosts)})"
        report.add(code, f"{message}{where}", span, help=help_, labels=labels)


def _one(loaded: Loaded, host: str, work: Work[T]) -> OfOne[T]:
    own = Report()
    chosen = pipeline.of_host(loaded, host, own)
    made = None if chosen is None else work(chosen, own)
    return OfOne(host, made, own)


def _alone(loaded: Loaded, names: Sequence[str], work: Work[T]) -> Iterator[OfOne[T]]:
    return (_one(loaded, name, work) for name in names)


def _side_by_side(
    loaded: Loaded, names: Sequence[str], work: Work[T], jobs: int
) -> Iterator[OfOne[T]]:
    """The same in several processes, as they come; what one of them does not tell is done here."""
    files: dict[tuple[str, str], SourceFile] = {(f.name, f.text): f for f in loaded.files}
    context = multiprocessing.get_context("fork")  # the policy is there already, and not copied
    left = dict.fromkeys(names)
    with ExitStack() as ending:
        ears: list[Connection] = []
        for job in range(jobs):
            ear, mouth = context.Pipe(duplex=False)
            process = context.Process(target=_tell, args=(loaded, names[job::jobs], work, mouth))
            process.start()
            mouth.close()
            ending.callback(process.join)
            ending.callback(process.terminate)
            ending.callback(ear.close)
            ears.append(ear)
        while ears:
            ready = wait(ears)
            for ear in [one for one in ears if one in ready]:
                try:
                    one = ear.recv()
                except EOFError:
                    ears.remove(ear)
                    continue
                del left[one.host]
                yield replace(one, report=_in_files(one.report, files))
    yield from _alone(loaded, list(left), work)


def _in_files(report: Report, files: dict[tuple[str, str], SourceFile]) -> Report:
    """A report of another process, in the files of this one."""

    def here(span: Span) -> Span:
        file = files.setdefault((span.file.name, span.file.text), span.file)
        return Span(file, span.start, span.end)

    found = Report()
    for one in report.diagnostics:
        labels = (Label(here(label.span), label.text) for label in one.labels)
        span = None if one.span is None else here(one.span)
        found.add(one.code, one.message, span, help=one.help, labels=labels)
    found.heeded |= {replace(one, span=here(one.span)) for one in report.heeded}
    return found


def _tell(loaded: Loaded, names: Sequence[str], work: Work[T], mouth: Connection) -> None:
    """What a process of its own does; a mistake of ours is made again, and told, by who waits."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - how it ends is told when all is over
    with mouth:
        for name in names:
            mouth.send(_one(loaded, name, work))
