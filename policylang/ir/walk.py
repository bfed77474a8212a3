"""What may become of the packets of a cube on a stage and path; knows no target.

What the cube does not say may be anything, and what no cube can say (rates, times, marks, owners,
lines of a target's own) may be either way. So the answer is of two kinds at once: whether any of
the packets may pass, and whether any may be denied. Where nothing is unknown it is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from policylang.ir import actions as ir
from policylang.ir.actions import Action, Guard, is_terminal
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import (
    Chain,
    DynamicSet,
    Entry,
    HostSuffix,
    Item,
    Lookup,
    Ruleset,
    entry_cube,
)
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Cube
from policylang.packets.fields import DADDR_TESTS, SADDR_TESTS, Field
from policylang.packets.values import V6_BASE, Range, Ranges

MOST_PIECES = 256  # into which a cube may fall on its way before both ways are thought possible
MOST_STEPS = 8192  # cubes that meet a rule or an element, likewise


@dataclass(frozen=True, slots=True)
class Possible:
    """Whether packets may pass and whether they may be denied, and what decides either way.

    A stage that decides nothing lets packets pass. With `is_guess` the question was too large to
    be followed to its end, and both are said to be possible.
    """

    may_accept: bool
    may_deny: bool
    accepting: tuple[Origin, ...] = field(default=(), compare=False)
    denying: tuple[Origin, ...] = field(default=(), compare=False)
    is_guess: bool = False

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Of all that may decide."""
        return joined(self.accepting, self.denying)


PASSES = Possible(True, False)


def walk(
    ruleset: Ruleset, stage: Stage, path: Path, cube: Cube, *, target: str | None = None
) -> Possible:
    """What may become of the packets of `cube`; nothing of none.

    Lines of a target's own are those of `target`; None is any target.
    """
    return Walker(ruleset, target).walk(stage, path, cube)


class Walker:
    """Answers for one ruleset; what it works out of its lookups is kept between questions.

    With `is_alone` packets come so seldom that they are within every rate and number.
    """

    def __init__(
        self, ruleset: Ruleset, target: str | None = None, *, is_alone: bool = False
    ) -> None:
        self.ruleset = ruleset
        self.target = target
        self.is_alone = is_alone
        self.chains = {chain.name: chain for chain in ruleset.chains}
        self.bases = {(base.stage, base.path): base.chain for base in ruleset.bases}
        self.finders: dict[int, _Finder] = {}  # by the identity of a lookup

    def walk(self, stage: Stage, path: Path, cube: Cube) -> Possible:
        """As the function of that name."""
        if cube.is_empty:
            return Possible(False, False)
        chain = self.bases.get((stage, path))
        if chain is None:
            return PASSES
        going = _Going(self)
        try:
            if going.read(self.chains[chain], [self._with_tests(cube)]):
                going.pass_on(())
        except _TooLargeError:
            return Possible(
                True, True, joined(*going.accepting), joined(*going.denying), is_guess=True
            )
        return Possible(
            going.may_accept, going.may_deny, joined(*going.accepting), joined(*going.denying)
        )

    def unknown(self, guards: tuple[Guard, ...]) -> tuple[Guard, ...] | None:
        """Those of a rule's guards that may hold or not; None where one of them does not."""
        if not self.is_alone:
            return guards
        counts = [g for g in guards if isinstance(g, ir.RateGuard | ir.ConnectionsGuard)]
        if any(guard.over for guard in counts):
            return None
        return tuple(guard for guard in guards if guard not in counts)

    def finder(self, lookup: Lookup) -> _Finder:
        found = self.finders.get(id(lookup))
        if found is None:
            found = self.finders[id(lookup)] = _Finder(lookup)
        return found

    def borders(self, stage: Stage, path: Path) -> dict[Field, tuple[int, ...]]:
        """Where the values of each field that is asked for begin to mean something else, sorted.

        Two packets that lie between the same borders in all these fields have one fate.
        """
        chain = self.bases.get((stage, path))
        found: dict[Field, set[int]] = {}
        if chain is not None:
            for name in self._reached(chain):
                for item in self.chains[name].items:
                    _add_borders(item, found)
        return {f: tuple(sorted(values)) for f, values in found.items()}

    def _reached(self, name: str) -> Iterator[str]:
        seen, waiting = {name}, [name]
        while waiting:
            name = waiting.pop()
            yield name
            for item in self.chains[name].items:
                entries = item.entries if isinstance(item, Lookup) else (item,)
                for one in entries:
                    if isinstance(one.action, ir.Jump) and one.action.chain not in seen:
                        seen.add(one.action.chain)
                        waiting.append(one.action.chain)

    def tested(self, end: Field, address: int) -> dict[Field, int]:
        """What an address at SADDR or DADDR answers by itself of the ruleset's address tests."""
        tests = SADDR_TESTS if end is Field.SADDR else DADDR_TESTS
        return {
            test: int(_passes(asked, address))
            for test, asked in zip(tests, self.ruleset.address_tests, strict=False)
            if isinstance(asked, HostSuffix)
        }

    def _with_tests(self, cube: Cube) -> Cube:
        terms: dict[Field, Ranges] = {}
        for end in (Field.SADDR, Field.DADDR):
            address = cube[end].single
            if address is not None:
                terms |= {f: Ranges.of(answer) for f, answer in self.tested(end, address).items()}
        return cube & Cube.of(terms) if terms else cube


def _passes(test: HostSuffix, address: int) -> bool:
    return address >= V6_BASE and (address - V6_BASE) & test.mask == test.value


def _add_borders(item: Item, found: dict[Field, set[int]]) -> None:
    def add(f: Field, ranges: Iterable[Range]) -> None:
        near = found.setdefault(f, set())
        for low, high in ranges:
            near.add(low)
            near.add(high + 1)

    for f, values in item.cube:
        add(f, values)
    if isinstance(item, Lookup):
        for position, f in enumerate(item.fields):
            add(f, (entry.key[position] for entry in item.entries))


class _TooLargeError(Exception):
    """A cube fell into more pieces than are worth following."""


class _Going:
    """One way through the chains."""

    def __init__(self, walker: Walker) -> None:
        self.walker = walker
        self.may_accept = self.may_deny = False
        self.accepting: list[tuple[Origin, ...]] = []
        self.denying: list[tuple[Origin, ...]] = []
        self.steps = 0

    def pass_on(self, origins: tuple[Origin, ...]) -> None:
        self.may_accept = True
        self.accepting.append(origins)

    def deny(self, origins: tuple[Origin, ...]) -> None:
        self.may_deny = True
        self.denying.append(origins)

    def read(self, chain: Chain, live: list[Cube]) -> list[Cube]:
        """What comes to the end of a chain, as cubes that need not be disjoint."""
        known = [dict(cube.terms) for cube in live]
        for item in chain.items:
            if not live:
                break
            wanted = item.cube.terms
            may_meet = [_may_meet(wanted, terms) for terms in known]
            if True not in may_meet:
                continue
            guards = () if isinstance(item, Lookup) else self.walker.unknown(item.guards)
            if guards is None:
                continue
            rest: list[Cube] = []
            for cube, may in zip(live, may_meet, strict=True):
                met = cube & item.cube if may else None
                if met is None or met.is_empty:
                    _keep(rest, cube)
                    continue
                self._step()
                if isinstance(item, Lookup):
                    left = [*(cube - item.cube), *self._looked_up(item, met)]
                elif guards:
                    left = [cube, *self._meet(item.action, item.origins, met)]
                else:
                    left = [*(cube - item.cube), *self._meet(item.action, item.origins, met)]
                for piece in left:
                    _keep(rest, piece)
            if len(rest) > MOST_PIECES:
                raise _TooLargeError
            live, known = rest, [dict(cube.terms) for cube in rest]
        return live

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise _TooLargeError

    def _looked_up(self, lookup: Lookup, cube: Cube) -> list[Cube]:
        """What goes on of a cube that is within the lookup's."""
        finder = self.walker.finder(lookup)
        onward: list[Cube] = []
        rest = [cube]
        for meeting in finder.meeting(cube):
            self._step()
            met = cube & meeting.cube
            if met.is_empty:
                continue
            rest = [piece for one in rest for piece in one - meeting.cube]
            if len(rest) > MOST_PIECES:
                raise _TooLargeError
            onward += self._meet(meeting.action, meeting.origins, met)
        return [*rest, *onward]

    def _meet(self, action: Action, origins: tuple[Origin, ...], cube: Cube) -> list[Cube]:
        """What goes on of a cube that meets an action, as the action leaves it."""
        match action:
            case ir.Drop() | ir.Reject():
                self.deny(origins)
                return []
            case ir.Queue():  # the program that reads it decides
                self.pass_on(origins)
                self.deny(origins)
                return []
            case ir.Jump(name):
                return self.read(self.walker.chains[name], [cube])
            case ir.Native(target, _, family):
                concerned = family is None or family in cube[Field.FAMILY]
                if concerned and self.walker.target in (None, target):
                    self.pass_on(origins)
                    self.deny(origins)
                return [cube]
            case ir.AddToSet(name, end):
                tests = SADDR_TESTS if end is ir.End.SOURCE else DADDR_TESTS
                held = {
                    test: Ranges.of(1)
                    for test, asked in zip(tests, self.walker.ruleset.address_tests, strict=False)
                    if isinstance(asked, DynamicSet) and asked.name == name
                }
                return [cube.with_terms(held) if held else cube]
            case ir.RememberQuestion():
                return [cube.without(Field.ANSWER)]
            case ir.RememberAsker():
                return [cube.without(Field.TO_ASKER)]
            case ir.SetDscp(code):
                return [cube.with_terms({Field.DSCP: Ranges.of(code)})]
            case _ if is_terminal(action):
                self.pass_on(origins)
                return []
            case _:
                return [cube]


def _may_meet(wanted: tuple[tuple[Field, Ranges], ...], terms: dict[Field, Ranges]) -> bool:
    """False where one field alone tells that no packet is in both; nearly all is told so."""
    for f, values in wanted:
        mine = terms.get(f)
        if mine is not None:
            low, high = mine.pairs[0]
            if low == high and len(mine.pairs) == 1:
                if low not in values:
                    return False
            elif not values.meets(mine):
                return False
    return True


def _keep(kept: list[Cube], cube: Cube) -> None:
    """Add a cube unless another holds all of it: what a rule may leave alone comes back often."""
    if not any(other.covers(cube) for other in kept):
        kept.append(cube)


# --- lookups ----------------------------------------------------------------------------------

MOST_SINGLY = 64  # elements that are looked at one by one; more are put together by their action


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Packets that an element holds, or several with the same action."""

    cube: Cube
    action: Action
    origins: tuple[Origin, ...] = field(default=(), compare=False)


class _Finder:
    """The elements of a lookup that hold packets of a cube, without reading all of them."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.by_field = tuple(_grouped(lookup, at) for at in range(len(lookup.fields)))
        self.together: tuple[_Meeting, ...] | None = None

    def meeting(self, cube: Cube) -> Iterable[_Meeting]:
        entries = self._candidates(cube)
        if len(entries) > MOST_SINGLY and len(self.lookup.fields) == 1:
            if self.together is None:
                self.together = tuple(_by_action(self.lookup))
            return self.together
        return (_Meeting(entry_cube(self.lookup, e), e.action, e.origins) for e in entries)

    def _candidates(self, cube: Cube) -> Sequence[Entry]:
        """Elements that meet the cube in the field that tells them apart best."""
        best: Sequence[Entry] = self.lookup.entries
        for f, grouped in zip(self.lookup.fields, self.by_field, strict=True):
            if f in cube and len(best) > 1:
                found = grouped.meeting(cube[f])
                best = found if len(found) < len(best) else best
        return best


@dataclass(frozen=True, slots=True)
class _Grouped:
    """The elements of a lookup by their range in one field, the ranges sorted.

    Where they are disjoint, `highs` are their ends, for the search by halves.
    """

    ranges: tuple[Range, ...]
    entries: tuple[tuple[Entry, ...], ...]
    highs: tuple[int, ...] | None
    singles: Mapping[int, tuple[Entry, ...]]

    def meeting(self, values: Ranges) -> list[Entry]:
        found: list[Entry] = []
        if self.highs is None:
            for pair, entries in zip(self.ranges, self.entries, strict=True):
                if any(low <= pair[1] and pair[0] <= high for low, high in values):
                    found += entries
            return found
        if values.single is not None and values.single in self.singles:
            return list(self.singles[values.single])
        last = -1
        for low, high in values:
            at = max(bisect_left(self.highs, low), last + 1)
            while at < len(self.ranges) and self.ranges[at][0] <= high:
                found += self.entries[at]
                last = at
                at += 1
        return found


def _grouped(lookup: Lookup, at: int) -> _Grouped:
    groups: dict[Range, list[Entry]] = {}
    for entry in lookup.entries:
        groups.setdefault(entry.key[at], []).append(entry)
    ranges = tuple(sorted(groups))
    are_disjoint = all(a[1] < b[0] for a, b in pairwise(ranges))
    return _Grouped(
        ranges,
        tuple(tuple(groups[pair]) for pair in ranges),
        tuple(high for _, high in ranges) if are_disjoint else None,
        {low: tuple(groups[low, high]) for low, high in ranges if low == high},
    )


def _by_action(lookup: Lookup) -> Iterator[_Meeting]:
    """The elements of a lookup by one field, those of one action put together."""
    (key,) = lookup.fields
    groups: dict[Action, list[Entry]] = {}
    for entry in lookup.entries:
        groups.setdefault(entry.action, []).append(entry)
    for action, entries in groups.items():
        values = Ranges.merged(entry.key[0] for entry in entries)
        origins = joined(*(entry.origins for entry in entries))
        yield _Meeting(lookup.cube & Cube.of({key: values}), action, origins)
