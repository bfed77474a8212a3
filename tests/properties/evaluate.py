"""What a ruleset does to a single packet: reads the ir rule by rule and knows no target.

Every test that compares rulesets reads them with this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from policylang.ir import actions as ir
from policylang.ir.actions import Action, Guard, Jump, Log, is_terminal
from policylang.ir.ruleset import (
    AddressTest,
    DynamicSet,
    Entry,
    HostSuffix,
    ListedSet,
    Lookup,
    Rule,
    Ruleset,
)
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Packet
from policylang.packets.fields import DADDR_TESTS, SADDR_TESTS, Field
from policylang.packets.values import V6_BASE

COUNTED = (ir.RateGuard, ir.ConnectionsGuard)

# Fields that are not known where a stage is passed: conntrack has not seen the packet yet, and
# it is not known by which interface it leaves.
UNKNOWN: dict[Stage, tuple[Field, ...]] = {
    Stage.SCREEN: (Field.OIF, Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION),
    Stage.SCREEN_STATE: (Field.OIF,),
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What decided, None where nothing did, and what was done on the way.

    `effects` are the logs, the addresses put into sets, the questions remembered, the changes of
    the packet and the lines of a target's own, in order; `asked` are the guards that counted the
    packet, each with the action that depended on it.
    """

    action: Action | None
    effects: tuple[Action, ...] = ()
    asked: tuple[tuple[Guard, Action], ...] = ()

    @property
    def logs(self) -> tuple[Log, ...]:
        return tuple(effect for effect in self.effects if isinstance(effect, Log))


@dataclass(frozen=True, slots=True)
class Tags:
    """What guards ask of a packet that is in none of its fields.

    `user` and `group` are those of the local process that sends it; `now` is in UTC;
    `within_rates` tells whether all rates and numbers of connections are kept to.
    """

    mark: int = 0
    user: int | None = None
    group: int | None = None
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    within_rates: bool = True

    def meet(self, guard: Guard) -> bool:
        """Whether a guard lets the packet through; AssertionError for what no tag tells."""
        match guard:
            case ir.RateGuard(over=over) | ir.ConnectionsGuard(over=over):
                return self.within_rates is not over
            case ir.MarkGuard(value, mask):
                return self.mark & mask == value
            case ir.OwnerGuard(kind, ids, names):
                assert not names, "who a name stands for is known by the machine that loads"
                owner = self.user if kind == "user" else self.group
                return owner is not None and owner in ids
            case ir.TimeGuard(week_s, is_local):
                assert not is_local, "local time is known by the machine that loads"
                monday = self.now.date() - timedelta(days=self.now.weekday())
                start = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
                return int((self.now - start).total_seconds()) in week_s
            case ir.UntilGuard(last_day, is_local):
                assert not is_local, "local time is known by the machine that loads"
                return self.now.date() <= last_day
            case ir.ConnectionMarkGuard(value):
                return value == 0  # no connection has a mark
            case ir.CgroupGuard():
                raise AssertionError("no tag tells the control group of a process")


@dataclass(frozen=True, slots=True)
class World:
    """What the address tests of a ruleset ask: the members of dynamic sets, as address numbers."""

    members: dict[str, frozenset[int]] = field(default_factory=dict)

    def tested(self, ruleset: Ruleset, packet: Packet) -> Packet:
        """The packet with the answers to all address tests of the ruleset."""
        answers = dict(packet)
        for address, tests in ((Field.SADDR, SADDR_TESTS), (Field.DADDR, DADDR_TESTS)):
            for test, asked in zip(tests, ruleset.address_tests, strict=False):
                answers[test] = int(self._passes(asked, packet[address]))
        return answers

    def _passes(self, test: AddressTest, address: int) -> bool:
        match test:
            case ListedSet(addresses=held):
                return address in held
            case DynamicSet(name):
                return address in self.members.get(name, frozenset())
            case HostSuffix(value, mask):
                return address >= V6_BASE and (address - V6_BASE) & mask == value


@dataclass(frozen=True, slots=True)
class Bits:
    """What is known of a mark: its bits under `mask`."""

    value: int = 0
    mask: int = 0

    def having(self, value: int, mask: int) -> Bits:
        """What is known once these bits are set."""
        return Bits(self.value & ~mask | value, self.mask | mask)

    def are(self, value: int, mask: int) -> bool | None:
        """Whether the bits under `mask` are these; None where that is not known."""
        if (self.value ^ value) & self.mask & mask:
            return False
        return None if mask & ~self.mask else True


def evaluate(
    ruleset: Ruleset,
    stage: Stage,
    path: Path,
    packet: Packet,
    *,
    guards_hold: bool | Callable[[Guard], bool] = True,
) -> Fate:
    """The fate of a packet on a stage and path; `guards_hold` tells whether each guard does.

    The guards of a rule are asked in their order, up to the first that does not hold. What an
    action makes of the packet holds for the rules behind it; of a mark that was set, no guard is
    asked any more. A stage and path without a base chain decides nothing. Raises AssertionError
    where two entries of a lookup hold the packet, and RecursionError where chains jump in a circle.
    """
    bodies = {chain.name: chain.items for chain in ruleset.chains}
    effects: list[Action] = []
    asked: list[tuple[Guard, Action]] = []
    now = dict(packet)
    marks = {ir.MarkGuard: Bits(), ir.ConnectionMarkGuard: Bits()}

    def holds(guard: Guard, action: Action) -> bool:
        if isinstance(guard, COUNTED):
            asked.append((guard, action))
        if isinstance(guard, (ir.MarkGuard, ir.ConnectionMarkGuard)):
            told = marks[type(guard)].are(guard.value, guard.mask)
            if told is not None:
                return told
        return guards_hold if isinstance(guards_hold, bool) else guards_hold(guard)

    def change(action: Action) -> None:
        match action:
            case ir.SetDscp(code):
                now[Field.DSCP] = code
            case ir.SetMark(value, mask):
                marks[ir.MarkGuard] = marks[ir.MarkGuard].having(value, mask)
            case ir.SetConnectionMark(value, mask):
                marks[ir.ConnectionMarkGuard] = marks[ir.ConnectionMarkGuard].having(value, mask)
            case ir.AddToSet(name, end):
                tests = SADDR_TESTS if end is ir.End.SOURCE else DADDR_TESTS
                for test, question in zip(tests, ruleset.address_tests, strict=False):
                    if isinstance(question, DynamicSet) and question.name == name:
                        now[test] = 1

    def read(chain: str) -> Action | None:
        for item in bodies[chain]:
            action = _met(item, now)
            if action is None:
                continue
            if isinstance(item, Rule) and not all(holds(guard, action) for guard in item.guards):
                continue
            if isinstance(action, Jump):
                decided = read(action.chain)
                if decided is not None:
                    return decided
            elif is_terminal(action):
                return action
            else:
                effects.append(action)
                change(action)
        return None

    for base in ruleset.bases:
        if (base.stage, base.path) == (stage, path):
            return Fate(read(base.chain), tuple(effects), tuple(asked))
    return Fate(None)


def filtered(ruleset: Ruleset, path: Path, packet: Packet, tags: Tags, world: World) -> Fate:
    """The fate of a packet on its whole way: what screens keep out never comes to the filter."""
    tested = world.tested(ruleset, packet)
    so_far = Fate(None)
    stages = [Stage.FILTER] if path is Path.OUTPUT else [*UNKNOWN, Stage.FILTER]
    for stage in stages:
        known = {f: v for f, v in tested.items() if f not in UNKNOWN.get(stage, ())}
        on = path if stage is Stage.FILTER else Path.INPUT
        fate = evaluate(ruleset, stage, on, known, guards_hold=tags.meet)
        so_far = replace(
            fate,
            effects=(*so_far.effects, *fate.effects),
            asked=(*so_far.asked, *fate.asked),
        )
        if isinstance(fate.action, ir.Drop):
            break
        assert stage is Stage.FILTER or fate.action is None, "a screen drops or lets go on"
    return so_far


def _met(item: Rule | Lookup, packet: Packet) -> Action | None:
    """The action that a packet meets at an item, None where the item says nothing of it."""
    if not item.cube.holds(packet):
        return None
    if isinstance(item, Rule):
        return item.action
    found = [e.action for e in item.entries if _holds(item, e, packet)]
    assert len(found) <= 1, f"{len(found)} entries of a lookup hold one packet"
    return found[0] if found else None


def _holds(lookup: Lookup, entry: Entry, packet: Packet) -> bool:
    return all(
        f in packet and low <= packet[f] <= high
        for f, (low, high) in zip(lookup.fields, entry.key, strict=True)
    )
