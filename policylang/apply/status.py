"""What is in force: which generation, since when, drifted or not, and what statements counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policylang.apply import engines, foreign, recovery
from policylang.apply.difference import Difference, difference
from policylang.apply.engine import Engine
from policylang.apply.foreign import ForeignChain
from policylang.apply.loaded import Count, Loaded
from policylang.apply.record import Kept, Record, State
from policylang.apply.written import Origins, decides, elements_of, rules_of
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir.origin import Origin


@dataclass(frozen=True, slots=True)
class Counted:
    """A statement of the policy, and what its rules counted; None where they do not count.

    With `is_shared` other statements have a part in it.
    """

    origin: Origin
    count: Count | None
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """All that there is to say; `drift` None where nothing recorded is said to be in force.

    `ways` are those that hold something of ours, `left_ms` what a pending generation has left.
    `statements` are those of the generation by which packets are judged at present.
    """

    state: State
    current: Kept | None
    pending: Kept | None
    left_ms: int | None
    ways: tuple[str, ...]
    drift: Difference | None
    statements: tuple[Counted, ...]
    foreign: tuple[ForeignChain, ...]


def status(record: Record, state: State, report: Report) -> Status:
    """What is in force in this thread's namespace."""
    current, pending = (
        recovery.kept_of(record, state.current),
        recovery.kept_of(record, state.pending),
    )
    drift, left_ms = None, None
    statements: tuple[Counted, ...] = ()
    artifact = recovery.artifact_of(record, state.current, report)
    if current is not None and artifact is not None:
        engine = engines.by_way(current.way)
        listed = engine.listed(report)
        drift = drifted(engine, artifact, listed, report)
        statements = () if listed is None else counted(artifact, listed)
    artifact = recovery.artifact_of(record, state.pending, report)
    if pending is not None and artifact is not None:
        engine = engines.by_way(pending.way)
        left_ms, listed = engine.armed_ms(report), engine.pending(report)
        statements = () if listed is None else counted(artifact, listed)
    return Status(
        state,
        current,
        pending,
        left_ms,
        tuple(engine.way for engine in engines.in_force(report)),
        drift,
        statements,
        foreign.chains(report),
    )


def drifted(
    engine: Engine, artifact: Artifact, listed: Loaded | None, report: Report
) -> Difference | None:
    """What differs from what an artifact makes: `before` is the artifact, `after` is in force."""
    expected = recovery.as_loaded(engine, artifact, report)
    if expected is None or listed is None:
        return None
    return difference(expected.without_lists, listed.without_lists)


def counted(artifact: Artifact, listed: Loaded) -> tuple[Counted, ...]:
    """What the rules of each statement counted, in the order of the policy.

    A rule that several statements share counts for each of them. Rules of a chain that no longer
    are the artifact's count for none.
    """
    found: dict[tuple[str, int], Counted] = {}
    for origins, count in _counts(artifact, listed):
        spans = {(o.span.file.name, o.span.start): o for o in origins if o.span is not None}
        for key, origin in spans.items():
            known = found.get(key, Counted(origin, None))
            is_shared = known.is_shared or len(spans) > 1
            found[key] = Counted(known.origin, _sum(known.count, count), is_shared)
    return tuple(found[key] for key in sorted(found))


def _sum(one: Count | None, other: Count | None) -> Count | None:
    if one is None or other is None:
        return one or other
    return Count(one.packets + other.packets, one.bytes + other.bytes)


def _counts(artifact: Artifact, listed: Loaded) -> Iterator[tuple[Origins, Count | None]]:
    """Each rule and element that counts for statements: which, and what it counted."""
    rules, elements = rules_of(artifact), elements_of(artifact)
    for chain in listed.chains:
        origins = rules.get(chain.place, [])
        if len(origins) == len(chain.rules):
            for rule, own in zip(chain.rules, origins, strict=True):
                if decides(rule.text):
                    yield own, rule.count
    for one in listed.sets:
        for text, own in elements.get(one.place, {}).items():
            if text in one.counts and decides(text):
                yield own, one.counts[text]
