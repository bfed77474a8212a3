"""A packet as a set of packets that has it alone, and what diagrams say becomes of it.

What no field says of a packet (marks, owners, the hour, rates) is said as well, so that nothing
is open about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import Follower, Reading
from policylang.analysis.machine import (
    Base,
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    Hook,
    Line,
    MarkIs,
    NotAfter,
    OwnerIs,
    Question,
    RateHolds,
    Unknown,
    WeekTimeIs,
)
from policylang.analysis.modelled import machine_of
from policylang.ir import actions as ir
from policylang.ir.ruleset import DynamicSet, Lookup, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Cube, Packet
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Ranges
from tests.properties.evaluate import Tags, World

ALL_BITS = 0xFFFF_FFFF
NOBODY = ALL_BITS  # the owner of what no local process sends: no policy names that number
# Fields that a packet of one path, or of no connection, has not: rules compare what is not there
# to nothing, and the kernel an empty name.
ABSENT = (Field.IIF, Field.OIF, Field.CT_HELPER, Field.CT_DIRECTION, Field.IPSEC, Field.IPSEC_OUT)
EVERY = 8  # packet that is looked up is looked for in all sets
SCREENS = (Stage.SCREEN, Stage.SCREEN_STATE)
HOOKS = {Path.INPUT: Hook.INPUT, Path.FORWARD: Hook.FORWARD, Path.OUTPUT: Hook.OUTPUT}


@dataclass(frozen=True, slots=True)
class Said:
    """What becomes of a packet: the decision, None where nothing decides."""

    action: ir.Action | None

    @property
    def accepts(self) -> bool:
        return not isinstance(self.action, ir.Drop | ir.Reject)


@dataclass(slots=True)
class Diagrams:
    """A ruleset, followed as sets of packets."""

    ruleset: Ruleset
    space: Space = field(default_factory=Space)
    follower: Follower = field(init=False)
    _fates: dict[Path, list[tuple[Packets, ir.Action]]] = field(default_factory=dict)
    _looked_up: int = 0

    def __post_init__(self) -> None:
        machine = machine_of(self.ruleset)
        tests = self.ruleset.address_tests
        self.follower = Follower(machine, self.space, address_tests=tests)
        for base in machine.bases:  # so that all questions are known from the start
            self.follower.read(base, self.space.everything)

    # --- one packet -----------------------------------------------------------------------------

    def only(self, packet: Packet, tags: Tags, world: World, *, is_told: bool = False) -> Packets:
        """The set of this one packet, with all answers; `is_told`: also those of address tests."""
        told = packet if is_told else world.tested(self.ruleset, packet)
        values = dict.fromkeys(ABSENT, 0) | dict(told)
        found = self.space.of(Cube.of({f: Ranges.of(v) for f, v in values.items()}))
        user, group = (NOBODY if n is None else n for n in (tags.user, tags.group))
        monday = tags.now.date() - timedelta(days=tags.now.weekday())
        start = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
        second = int((tags.now - start).total_seconds())
        questions: list[Question] = [
            MarkIs(tags.mark, ALL_BITS),
            ConnectionMarkIs(0, ALL_BITS),
            OwnerIs("user", Ranges.of(user)),
            OwnerIs("group", Ranges.of(group)),
            WeekTimeIs(Ranges.of(second)),
        ]
        for question in questions:
            found &= self.space.answered(Condition(question))
        for question, _ in self.space.asked():
            found &= self.space.answered(Condition(question, _answer(question, tags)))
        return found

    def fate(self, path: Path, packet: Packet, tags: Tags, world: World) -> Said:
        """What becomes of one packet, as a set of one that is followed."""
        return self._fate_of(path, self.only(packet, tags, world))

    def _fate_of(self, path: Path, one: Packets) -> Said:
        for base in self._bases(path):
            reading = self.follower.read(base, one)
            assert not (reading.passed and reading.denied), "one packet has one fate"
            if not reading.passed:
                return Said(_last_verdict(reading))
            one = reading.passed
        return Said(ir.Accept())

    # --- all packets at once --------------------------------------------------------------------

    @property
    def changes_packets(self) -> bool:
        """Whether what rules do to a packet changes what later rules are asked of it."""
        asked = {test.name for test in self.ruleset.address_tests if isinstance(test, DynamicSet)}
        acts = list(_actions(self.ruleset))
        is_added = any(isinstance(act, ir.AddToSet) and act.set in asked for act in acts)
        return is_added or any(isinstance(act, CHANGING) for act in acts)

    def fate_of_all(self, path: Path, packet: Packet, tags: Tags, world: World) -> Said:
        """The same, looked up among the sets into which all packets fall; none may be changed."""
        one = self.only(packet, tags, world)
        if path not in self._fates:
            self._fates[path] = sorted(self._decided(path), key=_is_denial)
        found = (action for packets, action in self._fates[path] if packets.meets(one))
        met = [next(found)]
        self._looked_up += 1
        if self._looked_up % EVERY == 0:  # it is in no other set
            met += found
        assert len(met) == 1, f"{len(met)} fates for one packet: {met}"
        return Said(met[0])

    def _decided(self, path: Path) -> Iterator[tuple[Packets, ir.Action]]:
        """Disjoint sets of all packets, each with what becomes of it."""
        live = self.space.everything
        for base in self._bases(path):
            reading = self.follower.read(base, live)
            told = self.space.nothing
            for met in reading.met:
                if isinstance(met.line.act, ir.Drop | ir.Reject):
                    told |= met.packets
                    yield met.packets, met.line.act
            assert told == reading.denied
            assert not reading.passed.meets(reading.denied)
            live = reading.passed
        yield live, ir.Accept()

    def _bases(self, path: Path) -> Iterator[Base]:
        """Those that decide whether a packet passes, in order."""
        for hook in (Hook.PREROUTING, HOOKS[path]):
            for base in self.follower.machine.on(hook):
                if base.stage is Stage.FILTER or (
                    path is not Path.OUTPUT and base.stage in SCREENS
                ):
                    yield base


CHANGING = (
    *(ir.SetMark, ir.SetConnectionMark, ir.SetDscp, ir.RememberQuestion, ir.RememberAsker),
    ir.Native,
)


def _is_denial(decided: tuple[Packets, ir.Action]) -> bool:
    return isinstance(decided[1], ir.Drop | ir.Reject)


def _actions(ruleset: Ruleset) -> Iterator[ir.Action]:
    for chain in ruleset.chains:
        for item in chain.items:
            if isinstance(item, Lookup):
                yield from (entry.action for entry in item.entries)
            else:
                yield item.action


def _answer(question: Question, tags: Tags) -> bool:
    match question:
        case RateHolds() | ConnectionsHold():
            return tags.within_rates
        case NotAfter(last_day):
            return tags.now.date() <= last_day
        case Unknown():  # a program, an owner or a line of a target's own of which nothing is known
            return question.text.startswith("queue")
        case _:
            raise AssertionError(f"nobody answers {question}")


def _last_verdict(reading: Reading) -> ir.Action:
    line: Line = next(
        met.line for met in reversed(reading.met) if isinstance(met.line.act, ir.Drop | ir.Reject)
    )
    assert isinstance(line.act, ir.Drop | ir.Reject)
    return line.act


def cube_of(packet: Mapping[Field, int]) -> Cube:
    """The packets with these values; fields that may be any are left out."""
    return Cube.of({f: Ranges.of(v) for f, v in packet.items() if f in UNIVERSE})
