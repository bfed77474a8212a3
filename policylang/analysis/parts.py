"""An answer taken apart: packets with one answer and one reason together, each once.

It knows what became of the packets of a question, and no words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from policylang.analysis.diagram import Packets
from policylang.analysis.machine import Condition, Line
from policylang.analysis.questions import Answer, Beginnings, Piece, Pieces
from policylang.ir.stages import Path


@dataclass(frozen=True, slots=True)
class Source:
    """A line that gives packets another source when they leave: all of them, or some."""

    line: Line
    is_of_all: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Packets of a question with one answer and one reason, as they came to the first rules.

    `line` decided, and of what passes only on `conditions` (PARTLY) `otherwise` does if not. What
    sends them elsewhere, and what gives them another source then, are lines too. `path` is the one
    on which they came, `decided_on` the one on which they were decided, and `domain` all first
    packets of the first.
    """

    answer: Answer
    packets: Packets
    line: Line | None
    path: Path
    decided_on: Path
    domain: Packets
    translated: Line | None = None
    sources: tuple[Source, ...] = ()
    otherwise: tuple[Line | None, ...] = ()
    conditions: tuple[Condition, ...] = ()


def parts_of(found: Pieces, beginnings: Beginnings) -> tuple[Part, ...]:
    """The packets of a question by answer and reason: disjoint, and all of them."""
    space = beginnings.space
    passing = found.union(space, lambda fate: fate.is_accepted)
    stopped = found.union(space, lambda fate: not fate.is_accepted)
    parts: list[Part] = []
    for answer, packets, accepts in (
        (Answer.YES, passing - stopped, True),
        (Answer.PARTLY, passing & stopped, True),
        (Answer.NO, stopped - passing, False),
    ):
        left = packets
        for piece in found.pieces:
            if not left:
                break
            if piece.fate.is_accepted is not accepts:
                continue
            own = space.may(piece.packets) & left
            if own:
                left -= own
                parts.append(_part(answer, own, piece, found, beginnings))
    return tuple(_joined(parts))


def _part(
    answer: Answer, own: Packets, piece: Piece, found: Pieces, beginnings: Beginnings
) -> Part:
    fate = piece.fate
    otherwise: tuple[Line | None, ...] = ()
    conditions: tuple[Condition, ...] = ()
    if answer is Answer.PARTLY:
        otherwise = tuple(
            dict.fromkeys(
                p.fate.line for p in found.pieces if not p.fate.is_accepted and p.packets.meets(own)
            )
        )
        conditions = beginnings.conditions_of(piece.packets & own)
    sources = tuple(_sources(own, piece, beginnings)) if fate.is_accepted else ()
    return Part(
        answer,
        own,
        fate.line,
        piece.path,
        piece.decided_on,
        piece.domain,
        fate.translated,
        sources,
        otherwise,
        conditions,
    )


def _sources(own: Packets, piece: Piece, beginnings: Beginnings) -> Iterator[Source]:
    """What gives packets of a piece another source when they leave."""
    fate = piece.fate
    for met in fate.sources:
        if beginnings.entered(fate, fate.decided & met.packets).meets(own):
            others = beginnings.entered(fate, fate.decided - met.packets)
            yield Source(met.line, not others.meets(own))


def reason(line: Line | None) -> tuple[object, ...]:
    """What is the same of two lines that come from one statement."""
    if line is None:
        return ()
    return tuple(
        (o.why, None if o.span is None else (o.span.file.name, o.span.start)) for o in line.origins
    ) or (line.place,)


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Parts with the same answer and reason become one."""
    groups: dict[tuple[object, ...], Part] = {}
    for part in parts:
        key = (
            part.answer,
            part.path,
            reason(part.line),
            reason(part.translated),
            tuple(reason(s.line) for s in part.sources) if part.translated else (),
            tuple(map(reason, part.otherwise)),
        )
        first = groups.get(key)
        if first is None:
            groups[key] = part
            continue
        groups[key] = replace(
            first,
            packets=first.packets | part.packets,
            sources=tuple(_shared(first.sources, part.sources)),
            conditions=tuple(dict.fromkeys((*first.conditions, *part.conditions))),
        )
    yield from groups.values()


def _shared(some: tuple[Source, ...], others: tuple[Source, ...]) -> Iterator[Source]:
    """The new sources of packets together that have these and those."""
    every = {reason(s.line): s for s in (*some, *others)}
    for key, source in every.items():
        of_all = [any(reason(s.line) == key and s.is_of_all for s in one) for one in (some, others)]
        yield Source(source.line, all(of_all))
