"""What lints look at: a policy, what it means for packets, and which statement made which line.

Rules are taken as they were lowered, before anything is optimised: there each line belongs to the
statements that asked for it. It knows no lint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import Follower
from policylang.analysis.machine import Base, Condition, Hook, Line, Machine, WeekTimeIs
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.passing import Reading
from policylang.analysis.wording import Names, packet_words
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Ruleset
from policylang.ir.stages import Stage
from policylang.model.conditions import WEEK
from policylang.model.policy import Policy, Statement
from policylang.model.translations import SourceTranslation
from policylang.model.types import NativeRule, PolicyRule, Zone, ZoneEnd
from policylang.packets.cube import Cube
from policylang.packets.fields import Field, State
from policylang.packets.values import Ranges
from policylang.source import Span
from policylang.syntax.tree import Loaded

FIRST = Cube.of({Field.CT_STATE: Ranges.of(State.NEW, State.UNTRACKED)})
SCREENS = (Stage.SCREEN, Stage.SCREEN_STATE)
BOGONS = "bogons"  # what is kept out where a zone leads to the Internet

MOST_DETAILS = 400_000  # cubes that are compared for it

Where = tuple[str, int]  # a chain and a line of it, from 0


@dataclass(slots=True)
class Budget:
    """How much more may be done."""

    left: int

    def take(self, cost: int) -> bool:
        """Whether there is enough; it is gone then, and if not, all of it."""
        if cost > self.left:
            self.left = 0
            return False
        self.left -= cost
        return True


class Subject:
    """One policy and its meaning. `ruleset` is what it was lowered to, not optimised.

    `is_cut` says that not everything was looked at; `details` is for telling what causes a finding.
    """

    def __init__(self, loaded: Loaded, policy: Policy, ruleset: Ruleset) -> None:
        self.loaded, self.policy, self.ruleset = loaded, policy, ruleset
        self.space = Space()
        self.is_cut = False
        self.details = Budget(MOST_DETAILS)
        self._met_in: dict[tuple[str, int], Packets] = {}

    @cached_property
    def machine(self) -> Machine:
        return machine_of(self.ruleset)

    @cached_property
    def follower(self) -> Follower:
        return Follower(
            self.machine, self.space, apart=True, address_tests=self.ruleset.address_tests
        )

    @cached_property
    def names(self) -> Names:
        return names_of(self.policy, self.ruleset.address_tests)

    @cached_property
    def readings(self) -> dict[Base, Reading]:
        """What becomes of all packets there are, in each base chain by itself."""
        return {base: self.follower.read(base, self.everything) for base in self.machine.bases}

    @cached_property
    def everything(self) -> Packets:
        """All packets there are, at all times of the week."""
        whole = self.space.everything
        for is_local in (False, True):
            whole &= self.space.answered(Condition(WeekTimeIs(WEEK, is_local)))
        return whole

    def always(self, packets: Packets) -> Packets:
        """The packets of a set that are in it whatever the answers to open questions are."""
        never = self.space.everything - self.everything
        return self.space.must(packets | never) & self.space.everything

    @cached_property
    def filters(self) -> tuple[Base, ...]:
        """The base chains that decide."""
        return tuple(base for base in self.machine.bases if base.stage is Stage.FILTER)

    @cached_property
    def met(self) -> dict[int, Packets]:
        """The packets that meet a line, by its identity, in whichever base chain."""
        found: dict[int, list[Packets]] = {}
        for reading in self.readings.values():
            for one in reading.met:
                found.setdefault(id(one.line), []).append(one.packets)
        return {line: self.space.union(sets) for line, sets in found.items()}

    def met_in(self, base: Base, line: Line) -> Packets:
        """The packets that meet a line in one base chain."""
        if not self._met_in:
            for one, reading in self.readings.items():
                for met in reading.met:
                    key = (one.chain, id(met.line))
                    before = self._met_in.get(key)
                    self._met_in[key] = met.packets if before is None else before | met.packets
        return self._met_in.get((base.chain, id(line)), self.space.nothing)

    @cached_property
    def accepted(self) -> dict[tuple[str, Span], Packets]:
        """What the lines of a statement accept in a base chain that decides."""
        found: dict[tuple[str, Span], list[Packets]] = {}
        for base in self.filters:
            for met, accepts in self.readings[base].decisions:
                if accepts and isinstance(met.line.act, ir.Accept):
                    for span in spans_of(met.line):
                        found.setdefault((base.chain, span), []).append(met.packets)
        return {key: self.space.union(sets) for key, sets in found.items()}

    @cached_property
    def screened(self) -> Packets:
        """What is kept out before any rule, of packets that begin a connection."""
        space = self.space
        denied = space.union(
            reading.denied for base, reading in self.readings.items() if base.stage in SCREENS
        )
        return space.free(denied & space.of(FIRST), Field.CT_STATE)

    @cached_property
    def statements(self) -> dict[Span, Statement]:
        """The statements by where they stand; one that is used several times is one."""
        return {statement.span: statement for statement in self.policy.statements}

    @cached_property
    def lines(self) -> dict[Span, tuple[Where, ...]]:
        """Where the lines of each statement are."""
        found: dict[Span, list[Where]] = {}
        for name, lines in self.machine.chains.items():
            for number, line in enumerate(lines):
                for span in spans_of(line):
                    found.setdefault(span, []).append((name, number))
        return {span: tuple(places) for span, places in found.items()}

    def line(self, where: Where) -> Line:
        chain, number = where
        return self.machine.chains[chain][number]

    def lines_of(self, span: Span) -> tuple[Line, ...]:
        return tuple(self.line(where) for where in self.lines.get(span, ()))

    def is_reached(self, span: Span) -> bool:
        """Whether some packet meets some line of a statement."""
        return any(id(line) in self.met for line in self.lines_of(span))

    @cached_property
    def unreached(self) -> tuple[Span, ...]:
        """The statements that have lines, none of which any packet meets."""
        return tuple(s for s in self.statements if self.lines.get(s) and not self.is_reached(s))

    def own_packets(self, lines: Iterable[Line]) -> Packets:
        """The packets that lines are about, whatever they ask beside fields; first ones if any."""
        about = self.space.of_all(cube for line in lines for cube in line.cubes)
        first = about & self.space.of(FIRST)
        return first or about

    def example(self, base: Base, packet: Mapping[Field, int]) -> str:
        """A packet on the path of a base chain, in words."""
        unknown = {Hook.INPUT: Field.OIF, Hook.OUTPUT: Field.IIF}.get(base.hook)
        return packet_words({f: n for f, n in packet.items() if f is not unknown}, self.names)

    # --- who is outside -----------------------------------------------------------------------

    @cached_property
    def outward(self) -> frozenset[str]:
        """The zones that lead to the Internet, as far as the policy tells.

        What goes there is given another source, or bogons that come from there are kept out.
        """
        found: set[str] = set()
        for statement in self.policy.statements:
            if isinstance(statement, SourceTranslation):
                found |= {
                    element.zone.name
                    for one in statement.destination.lists
                    for element in one.elements
                    if isinstance(element, ZoneEnd) and not element.within
                }
        for protect in self.policy.protections:
            if protect.protection.value == BOGONS:
                found |= {
                    element.zone.name
                    for one in protect.source.lists
                    for element in one.elements
                    if isinstance(element, ZoneEnd)
                }
        return frozenset(z.name for z in self.policy.zones if z.name in found and _is_open(z))


def _is_open(zone: Zone) -> bool:
    """Whether anybody may be in it."""
    return zone.networks is None


def spans_of(line: Line) -> Iterator[Span]:
    """Where the statements stand that a line comes from."""
    for origin in line.origins:
        if origin.span is not None:
            yield origin.span


def meets_any(line: Line, cubes: Iterable[Cube]) -> bool:
    """Whether a line may be about packets of some cubes: far cheaper than to ask of sets."""
    return any(own.meets(cube) for own in line.cubes for cube in cubes)


def origin_of(line: Line) -> Origin | None:
    """Why a line is there: a statement goes before the language itself."""
    said = [origin for origin in line.origins if origin.span is not None]
    return next(iter((*said, *line.origins)), None)


def in_words(act: object) -> str:
    """What a verdict does to packets."""
    match act:
        case ir.Accept():
            return "accepted"
        case ir.Drop():
            return "denied"
        case _:
            return "rejected"


def called(statement: Statement) -> str:
    """What people call a statement."""
    match statement:
        case PolicyRule():
            return "rule"
        case NativeRule():
            return "line"
        case _:
            return "statement"


def of_language(why: Why) -> str:
    """What decides where no statement does."""
    match why:
        case Why.DEFAULT:
            return "the default"
        case Why.LOOPBACK:
            return "what passes over the loopback interface"
        case Why.IMPLIED_REPLY:
            return "what passes of open connections"
        case Why.INVALID:
            return "what becomes of INVALID packets"
        case Why.ESSENTIAL:
            return "what IP needs in order to work"
        case _:
            return why.value
