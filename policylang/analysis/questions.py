"""What becomes of the first packets that a question is about: which pass, which do not, and why.

All that may begin a connection is followed through the rules once, and each question is then
compared with what came of that. It knows machines and what questions are about, and neither how
a question is worded nor how its answer is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from policylang.analysis.assumed import (
    at_targets,
    counts,
    floods,
    plausible,
    routed,
    without_memory,
)
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.first_packets import first_packets
from policylang.analysis.following import Fate, Follower, Met
from policylang.analysis.machine import (
    Condition,
    ConnectionMarkIs,
    Hook,
    Line,
    Machine,
    MarkIs,
)
from policylang.analysis.modelled import condition
from policylang.ir import actions as ir
from policylang.ir.actions import Translation
from policylang.ir.ruleset import AddressTest
from policylang.ir.stages import Path
from policylang.lower.asked import Asked
from policylang.model.types import Zone
from policylang.packets.cube import Cube
from policylang.packets.fields import Field, FlowDirection, State
from policylang.packets.values import Ranges

_BEHIND = {
    Hook.INPUT: Path.INPUT,
    Hook.FORWARD: Path.FORWARD,
    Hook.POSTROUTING: Path.FORWARD,
    Hook.OUTPUT: Path.OUTPUT,
}


class Answer(StrEnum):
    """What is true of the packets of a question, or of some of them."""

    YES = "yes"  # they pass
    NO = "no"  # they do not
    PARTLY = "partly"  # some pass; of a part: they pass or not, by what is not known here


@dataclass(frozen=True, slots=True)
class Piece:
    """Packets of a question that one line decides, as they came to the first rules.

    `path` is the one on which they came, `domain` all that comes on it like that.
    """

    fate: Fate
    packets: Packets
    path: Path
    domain: Packets

    @property
    def decided_on(self) -> Path:
        """The path on which it was decided; a translation may have led to another one."""
        return _BEHIND.get(self.fate.hook, self.path)


@dataclass(slots=True)
class Pieces:
    """What became of the packets of a question; an empty one is about nobody."""

    asked: Packets
    pieces: tuple[Piece, ...]

    def union(self, space: Space, holds: Callable[[Fate], bool]) -> Packets:
        """The packets with a fate of that kind, whatever the open questions may be answered."""
        return space.may(space.union(p.packets for p in self.pieces if holds(p.fate)))


class Beginnings:
    """What becomes of all that begins connections.

    `tests` are what the fields of address tests ask, of the policy and of the questions to it.
    This host's routes are taken to be as `zones` say: what goes to an address in their networks
    leaves by their interfaces. What arrives may claim any source. Of other `families` nothing is
    said. A packet that `is_alone` is within all rates and numbers of connections; any is within
    those beyond which `protect` speaks of a flood. Several machines may share a `space`.
    """

    def __init__(
        self,
        machine: Machine,
        tests: tuple[AddressTest, ...] = (),
        zones: tuple[Zone, ...] = (),
        families: tuple[int, ...] = (4, 6),
        *,
        is_alone: bool = False,
        space: Space | None = None,
    ) -> None:
        self.space = space or Space()
        self._routed = routed(zones, self.space)
        machine = without_memory(machine)
        self._follower = Follower(machine, self.space, apart=True, address_tests=tests)
        first = first_packets(self.space)
        calm = self.space.of(Cube.of({Field.FAMILY: Ranges.of(*families)}))
        calm -= at_targets(machine, self.space)
        self._granted = tuple(counts(machine) if is_alone else floods(machine))
        for line, count in self._granted:
            within = replace(count, holds=True)
            calm &= self.space.answered(within, self._follower.at(line))
        self._first = {
            path: packets & calm if path is Path.INPUT else packets & calm & self._routed
            for path, packets in first.items()
        }
        self._fates: dict[Path, tuple[Fate, ...]] = {}
        self._all_of: dict[Path, Mapping[bool, Packets]] = {}
        self._plausible: tuple[Cube, ...] | None = None
        self._conditional: tuple[tuple[Line, Condition], ...] | None = None

    def first(self, path: Path) -> Packets:
        """All first packets of a path that are spoken of."""
        return self._first[path]

    def fates(self, path: Path) -> tuple[Fate, ...]:
        """What becomes of all that is for this host, passed on, or its own."""
        found = self._fates.get(path)
        if found is None:
            first = self._first[path]
            if path is Path.OUTPUT:
                found = self._follower.leaving(first).fates
            else:
                found = self._follower.arriving(first, path).fates
            found = self._fates[path] = tuple(map(self._as_routed, found))
        return found

    def _as_routed(self, fate: Fate) -> Fate:
        """A fate of what is sent elsewhere, less what would leave by another way than it does."""
        line = fate.translated
        if line is None or not isinstance(line.act, Translation):
            return fate
        # What was dialled is told by the fields that every packet has.
        fate = replace(fate, entered=self.space.free(fate.entered, *_DIALLED))
        if fate.hook is Hook.INPUT:
            return fate
        decided = fate.decided & self._routed
        sources = tuple(met for met in fate.sources if met.packets.meets(decided))
        entered = self.entered(fate, decided)
        return replace(fate, decided=decided, entered=entered, sources=sources)

    def pieces(self, asked: Asked) -> Pieces:
        """The packets of a question by what became of them."""
        space = self.space
        is_marked = [g for g in asked.guards if isinstance(g, ir.MarkGuard)]
        marked = self._met(is_marked) if is_marked else None
        conditions = self._met(g for g in asked.guards if not isinstance(g, ir.MarkGuard))
        found: list[Piece] = []
        for path, cubes in asked.dialled.items():
            if cubes:
                found += self._dialled(path, space.of_all(cubes) & conditions, marked)
        of_mark = space.everything if marked is None else marked
        for path, cubes in asked.reached.items():
            if cubes:
                found += self._reached(path, space.of_all(cubes) & conditions & of_mark)
        if asked.published:
            found += self._published(space.of_all(asked.published) & conditions & of_mark)
        total = space.union(piece.packets for piece in found)
        return Pieces(space.may(total), tuple(found))

    def _met(self, guards: Iterable[ir.Guard]) -> Packets:
        """The packets that pass guards."""
        packets = self.space.everything
        for guard in guards:
            packets &= self.space.answered(condition(guard, 4, {}))
        return packets

    def _dialled(self, path: Path, packets: Packets, marked: Packets | None) -> Iterator[Piece]:
        """What is dialled where the question asks about; marks are those that rules see."""
        packets &= self._first[path]
        if not packets:
            return
        for fate in self.fates(path):
            part = fate.entered & packets
            if part and marked is not None:
                part &= self.entered(fate, fate.decided & marked)
            if part:
                yield Piece(fate, part, path, self._first[path])

    def entered(self, fate: Fate, decided: Packets) -> Packets:
        """Some of the packets that a line decided, as they came to the first rules."""
        line = fate.translated
        by = None if line is None else Met(line, self.space.everything)
        entered = self._follower.as_entered(decided, by)
        if line is not None:
            entered = self.space.free(entered, *_DIALLED)
        return entered & fate.entered

    def _reached(self, path: Path, packets: Packets) -> Iterator[Piece]:
        """What was dialled elsewhere and sent to where the question asks about."""
        entered = (Path.OUTPUT,) if path is Path.OUTPUT else (Path.INPUT, Path.FORWARD)
        for start in entered:
            for fate in self.fates(start):
                line = fate.translated
                if line is None or not isinstance(line.act, Translation):
                    continue
                if start is not Path.OUTPUT and _BEHIND.get(fate.hook) is not path:
                    continue
                there = fate.decided & packets
                if there and (part := self.entered(fate, there)):
                    yield Piece(replace(fate, decided=there), part, start, self._first[start])

    def _published(self, packets: Packets) -> Iterator[Piece]:
        """What another program has sent elsewhere; it is asked about as it was then."""
        first = self.space.assigned(self._first[Path.FORWARD], _PUBLISHED)
        for fate in self._follower.passed_on(packets & first).fates:
            yield Piece(fate, fate.entered, Path.FORWARD, first)

    # --- answers ------------------------------------------------------------------------------

    def answer(self, found: Pieces) -> Answer:
        """Whether all of a question's packets pass, none of them, or some."""
        passing = found.union(self.space, lambda fate: fate.is_accepted)
        if not passing:
            return Answer.NO
        stopped = found.union(self.space, lambda fate: not fate.is_accepted)
        return Answer.PARTLY if stopped else Answer.YES

    def quick_answer(self, asked: Asked) -> Answer | None:
        """The answer alone, of a question without conditions; None where it is about nobody."""
        space = self.space
        passing = stopped = space.nothing
        for path, cubes in asked.dialled.items():
            if not cubes:
                continue
            packets = self._first[path] & space.of_all(cubes)
            both = self._totals(path)
            passing |= packets & both[True]
            stopped |= packets & both[False]
        for path, cubes in asked.reached.items():
            for piece in self._reached(path, space.of_all(cubes)) if cubes else ():
                if piece.fate.is_accepted:
                    passing |= piece.packets
                else:
                    stopped |= piece.packets
        if passing and stopped:
            return Answer.PARTLY
        return Answer.YES if passing else Answer.NO if stopped else None

    def _totals(self, path: Path) -> Mapping[bool, Packets]:
        """All first packets of a path that may pass, and all that may not."""
        if path not in self._all_of:
            self._all_of[path] = {
                accepts: self.space.may(
                    self.space.union(
                        fate.entered for fate in self.fates(path) if fate.is_accepted is accepts
                    )
                )
                for accepts in (True, False)
            }
        return self._all_of[path]

    def conditions_of(self, packets: Packets) -> tuple[Condition, ...]:
        """What must be the case for packets to be in a set, beside what they are themselves."""
        space, found = self.space, []
        for line, asked in self._asked():
            holds = space.answered(replace(asked, holds=True), self._follower.at(line))
            if not packets.meets(holds):
                found.append(replace(asked, holds=False))
            elif holds.covers(packets):
                found.append(replace(asked, holds=True))
        return tuple(dict.fromkeys(found))

    def _asked(self) -> tuple[tuple[Line, Condition], ...]:
        """The lines that ask something that no packet tells, each with what it asks."""
        if self._conditional is None:
            granted = {(id(line), asked.question) for line, asked in self._granted}
            self._conditional = tuple(
                (line, asked)
                for lines in self._follower.machine.chains.values()
                for line in lines
                for asked in line.conditions
                if not isinstance(asked.question, MarkIs | ConnectionMarkIs)
                and (id(line), asked.question) not in granted
            )
        return self._conditional

    @property
    def plausible(self) -> tuple[Cube, ...]:
        """What packets look like that people take for ordinary ones, in the names of the rules."""
        if self._plausible is None:
            self._plausible = plausible(self._follower.machine)
        return self._plausible


_DIALLED = (Field.ORIG_DADDR, Field.ORIG_DPORT)

# What another program has sent elsewhere, when it is passed on.
_PUBLISHED = {
    Field.DNATED: Ranges.of(1),
    Field.CT_STATE: Ranges.of(State.NEW),
    Field.CT_DIRECTION: Ranges.of(FlowDirection.ORIGINAL),
}


def is_answered(fate: Fate) -> bool:
    """Whether packets with this fate are told that they do not pass."""
    return fate.line is not None and isinstance(fate.line.act, ir.Reject)
