"""Follows sets of packets through base chains, exactly: who meets which line, who passes.

It knows what acts do to packets; where rules come from, and how hooks follow each other, it does
not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import (
    AddTo,
    Base,
    Condition,
    CopyMark,
    Goto,
    Hook,
    Line,
    Machine,
    Obscure,
    Return,
    Unknown,
)
from policylang.ir import actions as ir
from policylang.ir.actions import is_terminal
from policylang.ir.ruleset import AddressTest, DynamicSet, HostSuffix
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    SADDR_TESTS,
    Field,
    State,
)
from policylang.packets.values import Ranges


@dataclass(frozen=True, slots=True)
class Met:
    """Packets that met a line, as they were then."""

    line: Line
    packets: Packets


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of packets: those that passed, as the lines left them, and those denied.

    `met` are the lines that some packet met, in the order in which packets come to them;
    `decisions` those of them that decided, and whether they accepted.
    """

    passed: Packets
    denied: Packets
    met: tuple[Met, ...]
    decisions: tuple[tuple[Met, bool], ...] = ()


@dataclass(slots=True)
class _Pass:
    """One way through a base chain."""

    accepted: list[Packets] = field(default_factory=list)
    denied: list[Packets] = field(default_factory=list)
    met: list[Met] = field(default_factory=list)
    decisions: list[tuple[Met, bool]] = field(default_factory=list)
    has_helper: Packets | None = None  # packets whose connection was given one already


class ChainFollower:
    """Follows packets through one machine.

    `at` says at which place a line asks its questions: those of the same value at two places are
    two questions. With `apart` that is each line's own, as rates and counts are in the kernel;
    without either those of one value are one, by which two machines can be compared.
    `address_tests` are what the fields of address tests ask, where the machine is a policy's.
    """

    def __init__(
        self,
        machine: Machine,
        space: Space,
        *,
        apart: bool = False,
        at: Callable[[Line], str] | None = None,
        address_tests: tuple[AddressTest, ...] = (),
    ) -> None:
        self.machine = machine
        self.space = space
        self.at = at or (_own_place if apart else _no_place)
        self.address_tests = address_tests
        for tests in (SADDR_TESTS, DADDR_TESTS):
            for test, asked in zip(tests, address_tests, strict=False):
                if isinstance(asked, HostSuffix):
                    space.suffixes[test] = asked
        self._matches: dict[int, Packets] = {}  # by the identity of a line

    # --- one base chain -----------------------------------------------------------------------

    def read(self, base: Base, packets: Packets) -> Reading:
        """What becomes of packets in a base chain; those of other families pass."""
        concerned = self.space.of(Cube.of({Field.FAMILY: Ranges.of(*base.families)}))
        if base.is_nat:  # nf_nat_inet_fn: what conntrack does not see passes
            concerned -= self.space.of(Cube.of({Field.CT_STATE: Ranges.of(State.UNTRACKED)}))
        going = _Pass()
        live, back = self._chain(base.chain, packets & concerned, going)
        left = live | back
        if base.drops:
            going.denied.append(left)
        else:
            going.accepted.append(left)
        passed = self.space.union((*going.accepted, packets - concerned))
        denied = self.space.union(going.denied)
        return Reading(passed, denied, tuple(going.met), tuple(going.decisions))

    def hook(self, hook: Hook, packets: Packets) -> Reading:
        """What becomes of packets in all base chains of a hook, one after the other."""
        met: list[Met] = []
        decisions: list[tuple[Met, bool]] = []
        denied = self.space.nothing
        for base in self.machine.on(hook):
            reading = self.read(base, packets)
            met += reading.met
            decisions += reading.decisions
            denied |= reading.denied
            packets = reading.passed
        return Reading(packets, denied, tuple(met), tuple(decisions))

    def match(self, line: Line) -> Packets:
        """The packets that meet a line if they come to it."""
        found = self._matches.get(id(line))
        if found is None:
            found = self.space.of_all(line.cubes)
            for condition in line.conditions:
                found &= self.space.answered(condition, self.at(line))
            self._matches[id(line)] = found
        return found

    def _chain(self, name: str, live: Packets, going: _Pass) -> tuple[Packets, Packets]:
        """What comes to the end of a chain, and what went back to the caller before."""
        returned = self.space.nothing
        for line in self.machine.chains[name]:
            if not live:
                break
            met = live & self.match(line)
            if not met:
                continue
            if isinstance(line.act, ir.AssignHelper):
                # The first helper of a connection stays (nf_conntrack_helper, xt_CT).
                already = going.has_helper or self.space.nothing
                going.has_helper = already | met
                met -= already
                if met:
                    going.met.append(Met(line, met))
                continue
            going.met.append(Met(line, met))
            live, back = self._meet(line, met, live, going)
            returned |= back
        return live, returned

    def _meet(
        self, line: Line, met: Packets, live: Packets, going: _Pass
    ) -> tuple[Packets, Packets]:
        """What goes on of `live` behind a line that `met` of them meet, and what goes back."""
        nothing = self.space.nothing
        match line.act:
            case ir.Drop() | ir.Reject():
                self._decide(line, met, going, accepts=False)
                return live - met, nothing
            case ir.Queue():
                lets_pass = self._asked(f"queue {line.act.low}-{line.act.high} lets it pass")
                self._decide(line, met & lets_pass, going, accepts=True)
                self._decide(line, met - lets_pass, going, accepts=False)
                return live - met, nothing
            case ir.Jump(chain):
                left, back = self._chain(chain, met, going)
                return (live - met) | left | back, nothing
            case Goto(chain):
                left, back = self._chain(chain, met, going)
                return live - met, left | back
            case Return():
                return live - met, met
            case Obscure(text, may_decide):
                if not may_decide:
                    return live, nothing
                accepts = met & self._asked(f"{text}: accepts it")
                drops = (met - accepts) & self._asked(f"{text}: drops it")
                self._decide(line, accepts, going, accepts=True)
                self._decide(line, drops, going, accepts=False)
                return live - accepts - drops, nothing
            case ir.Untrack() | AddTo():
                return live, nothing
            case CopyMark():
                return (live - met) | self.changed(line, met), nothing
            case _ if is_terminal(line.act):
                self._decide(line, met, going, accepts=True)
                return live - met, nothing
            case _:
                return (live - met) | self.changed(line, met), nothing

    def _decide(self, line: Line, packets: Packets, going: _Pass, *, accepts: bool) -> None:
        if packets:
            (going.accepted if accepts else going.denied).append(packets)
            going.decisions.append((Met(line, packets), accepts))

    def _asked(self, text: str) -> Packets:
        return self.space.answered(Condition(Unknown(text)))

    def changed(self, line: Line, packets: Packets) -> Packets:
        """Packets as a line that does not end their way leaves them."""
        match line.act:
            case ir.SetMark(value, mask):
                return self.space.with_mark(packets, value, mask)
            case ir.SetConnectionMark(value, mask):
                return self.space.with_connection_mark(packets, value, mask)
            case CopyMark(to_connection, mask):
                return self.space.copied_mark(packets, mask, to_connection=to_connection)
            case ir.SetDscp(code):
                return self.space.assigned(packets, {Field.DSCP: Ranges.of(code)})
            case ir.AddToSet():
                held = self.held_by(line.act)
                return self.space.assigned(packets, held) if held else packets
            case ir.RememberQuestion():
                return self.space.free(packets, Field.ANSWER)
            case ir.RememberAsker():
                return self.space.free(packets, Field.TO_ASKER)
            case AddTo():
                return packets
            case _:
                return packets

    def held_by(self, act: ir.AddToSet) -> dict[Field, Ranges]:
        """The address tests that a packet passes once its address is in a set."""
        tests = SADDR_TESTS if act.end is ir.End.SOURCE else DADDR_TESTS
        return {
            test: Ranges.of(1)
            for test, asked in zip(tests, self.address_tests, strict=False)
            if isinstance(asked, DynamicSet) and asked.name == act.set
        }


def _own_place(line: Line) -> str:
    return line.place


def _no_place(line: Line) -> str:
    return ""
