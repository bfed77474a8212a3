"""What rules do to packets beside deciding them, and where one side does something else.

Logs, marks, helpers, sets: each act is a set of packets to which it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from policylang.analysis.changed import Fate, Kind
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import AddTo, Line
from policylang.analysis.passing import Met
from policylang.analysis.sides import Decider
from policylang.ir import actions as ir
from policylang.ir.origin import Why

_KEEPING = (ir.SetMark, ir.SetConnectionMark, AddTo, ir.AddToSet)
_FOR_OWN_USE = frozenset(Why) - {Why.WRITTEN, Why.DEFAULT, Why.PROTECTION}

EFFECTS = (Kind.HELPED, Kind.MARKED, Kind.LOGGED, Kind.COLLECTED, Kind.TREATED)


@dataclass(frozen=True, slots=True)
class Done:
    """Packets to which an act is done, and the lines that do it."""

    packets: Packets
    lines: tuple[Line, ...]
    act: Hashable

    @property
    def is_own(self) -> bool:
        """Whether rules do it for their own use: what they keep so shows in what they let pass."""
        if not isinstance(self.act, _KEEPING):
            return False
        origins = [origin for line in self.lines for origin in line.origins]
        return bool(origins) and all(o.why in _FOR_OWN_USE for o in origins)

    @property
    def fate(self) -> Fate:
        """The act as what becomes of packets."""
        conditions = dict.fromkeys(c for line in self.lines for c in line.conditions)
        deciders = dict.fromkeys(Decider.of(line) for line in self.lines)
        return Fate(acts=(self.act,), conditions=tuple(conditions), deciders=tuple(deciders))


@dataclass(frozen=True, slots=True)
class Exchange:
    """Packets to which `new` is done in the place of `old`; None is nothing of the kind."""

    kind: Kind
    packets: Packets
    old: Done | None
    new: Done | None


def exchanges(
    old: tuple[Met, ...], new: tuple[Met, ...], space: Space, alike: Callable[[Packets], Packets]
) -> Iterator[Exchange]:
    """Where the acts of two sides differ; `alike` leaves those packets that are told of at all."""
    before, after = _done(old, space), _done(new, space)
    for one in _exchanges(before, after, space, alike):
        if not any(done is not None and done.is_own for done in (one.old, one.new)):
            yield one


def _exchanges(
    before: Mapping[tuple[Kind, Hashable], Done],
    after: Mapping[tuple[Kind, Hashable], Done],
    space: Space,
    alike: Callable[[Packets], Packets],
) -> Iterator[Exchange]:
    for kind in EFFECTS:
        acts = dict.fromkeys(act for k, act in (*before, *after) if k is kind)
        gains: dict[Hashable, Packets] = {}
        losses: dict[Hashable, Packets] = {}
        for act in acts:
            was, now = (
                found.packets if (found := side.get((kind, act))) else space.nothing
                for side in (before, after)
            )
            gains[act], losses[act] = alike(now - was), alike(was - now)
        for act, found_gains in gains.items():
            gained = found_gains
            for other, lost in losses.items():
                if common := gained & lost:
                    yield Exchange(kind, common, before[kind, other], after[kind, act])
                    gained -= common
                    losses[other] = lost - common
            if gained:
                yield Exchange(kind, gained, None, after[kind, act])
        for act, lost in losses.items():
            if lost:
                yield Exchange(kind, lost, before[kind, act], None)


def _done(met: tuple[Met, ...], space: Space) -> dict[tuple[Kind, Hashable], Done]:
    groups: dict[tuple[Kind, Hashable], list[Met]] = {}
    for one in met:
        if (kind := _effect_of(one.line)) is not None:
            groups.setdefault((kind, one.line.act), []).append(one)
    return {
        key: Done(space.union(m.packets for m in found), tuple(m.line for m in found), key[1])
        for key, found in groups.items()
    }


def _effect_of(line: Line) -> Kind | None:
    match line.act:
        case ir.Log():
            return Kind.LOGGED
        case ir.AssignHelper():
            return Kind.HELPED
        case ir.SetMark() | ir.SetConnectionMark() | ir.SetDscp():
            return Kind.MARKED
        case AddTo() | ir.AddToSet():
            return Kind.COLLECTED
        case ir.ClampMss() | ir.Offload() | ir.Untrack():
            return Kind.TREATED
        case _:
            return None
