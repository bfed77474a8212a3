"""Writes chains as the lines of one table and family; knows neither files nor built-in chains.

Where a line cannot hold a rule, the rule becomes several lines for disjoint packets. Where that
is not enough, or a guard would then be met more than once, it becomes a chain of its own: what
is not meant returns from it, and its last line acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from policylang.backends.base import Line, comment_text
from policylang.backends.iptables.guards import Counting, counting_match, guard_sieve
from policylang.backends.iptables.lookups import plan
from policylang.backends.iptables.matches import spell
from policylang.backends.iptables.names import PREFIX, ChainNames, digest
from policylang.backends.iptables.nodes import Group, Leaf, Node, leaves
from policylang.backends.iptables.sets import IpSets
from policylang.backends.iptables.sieve import InexpressibleError, Matches, Sieve, Slot
from policylang.backends.iptables.targets import (
    Call,
    Target,
    helper_target,
    set_targets,
    target,
)
from policylang.backends.iptables.translations import (
    Goal,
    is_of_family,
    is_one_target,
    protocols_to_name,
    translated,
)
from policylang.backends.turns import Turns, turns_of
from policylang.diagnostics import Report
from policylang.ir.actions import (
    AddToSet,
    AssignHelper,
    ClampMss,
    ConnectionsGuard,
    Jump,
    Leave,
    Native,
    RateGuard,
    RememberAsker,
    RememberQuestion,
    Translation,
    TransparentProxy,
    is_terminal,
)
from policylang.ir.origin import Origin, describe
from policylang.ir.ruleset import Item, Rule
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP_SYN, UDP, Field, with_flags
from policylang.packets.values import Ranges

LINES_MOST = 16  # so many lines for a rule of several lists, before it becomes a chain
COMMENT_BYTES = 120

UDP_ALONE = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
SYN_ALONE = Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN, TCP_SYN)})
REPEATED_MOST = 2  # for so many protocols a whole rule is written, before it becomes a chain

Chosen = Mapping[int, str]
Sieves = list[tuple[int, Sieve]]


@dataclass(slots=True)
class TableWriter:
    """Writes the chains of one `table` for one family.

    `turns` are the protocols of rules that take turns together. `chains` are the lines by chain
    name, `called` the chains of the ruleset to which they lead since it was last cleared.
    """

    table: str
    family: int
    names: ChainNames
    sets: IpSets
    report: Report
    turns: Mapping[Turns, Sequence[Ranges]]
    chains: dict[str, list[Line]] = field(default_factory=dict)
    called: dict[str, None] = field(default_factory=dict)
    _shared: dict[AssignHelper | RememberQuestion, str] = field(default_factory=dict)
    _taking_turns: dict[Turns, Target] = field(default_factory=dict)

    def write(self, name: str, items: Iterable[Item]) -> None:
        """Write a chain, under the name that it has in the ruleset.

        Reports `unsupported` for what iptables cannot say.
        """
        here = self.names[name]
        self.chains.setdefault(here, [])
        for item in items:
            try:
                here = self._item(here, item)
            except InexpressibleError as reason:
                origins = item.origins if isinstance(item, Rule) else item.entries[0].origins
                refuse(reason, origins, self.report)

    def _item(self, here: str, item: Item) -> str:
        """Write an item and return the chain that the next one belongs to."""
        if isinstance(item, Rule):
            if isinstance(item.action, Native):
                self._native(here, item.action, item.origins)
                return here
            return self._leaf(here, Leaf(item.cube, item.action, item.guards, item.origins))
        nodes = plan(item, self.family)
        if any(isinstance(entry.action, Leave) for entry in item.entries):
            for leaf in leaves(nodes):
                here = self._leaf(here, leaf)
        else:
            self._nodes(here, nodes)
        return here

    def _nodes(self, here: str, nodes: Iterable[Node], *, in_group: bool = False) -> None:
        for node in nodes:
            if isinstance(node, Leaf):
                self._leaf(here, node, in_group=in_group)
            else:
                self._group(here, node)

    def _group(self, here: str, group: Group) -> None:
        if spell(group.cube, self.family, self.sets, group.origins) is None:
            return
        inner = self._new_chain(here)
        self._leaf(here, Leaf(group.cube, Call(inner), (), group.origins))
        self._nodes(inner, group.nodes, in_group=True)

    def _new_chain(self, near: str) -> str:
        name = self.names.near(near)
        self.chains[name] = []
        return name

    def _native(self, here: str, action: Native, origins: tuple[Origin, ...]) -> None:
        """Write a line of the user's own, as it stands, where it is for this target and family."""
        if action.target != "iptables" or action.family not in (None, self.family):
            return
        if not action.text.isprintable():
            raise InexpressibleError("a line with control characters")
        self.chains[here].append(Line(f"-A {here} {action.text}", origins))

    # --- rules ----------------------------------------------------------------------------------

    def _leaf(self, here: str, leaf: Leaf, *, in_group: bool = False) -> str:
        """Write a rule and return the chain that the next one belongs to.

        In a group no other node holds the same packets, so that a jump need not come back.
        """
        cube, action = leaf.cube, leaf.action
        if isinstance(action, (RememberQuestion, RememberAsker)):
            cube = cube & UDP_ALONE
        elif isinstance(action, ClampMss):
            cube = cube & SYN_ALONE
        elif isinstance(action, TransparentProxy):
            cube = cube & Cube.of({Field.L4PROTO: Ranges.of(action.protocol)})
        elif isinstance(action, Translation):
            if not is_of_family(action, self.family):
                return here
            parts = _rule_by_protocol(leaf, action)
            if len(parts) > 1:
                for part in parts:
                    self._leaf(here, part, in_group=in_group)
                return here
        matches = spell(cube, self.family, self.sets, leaf.origins)
        if matches is None:
            return here
        if leaf.pairs is not None:
            matches[Slot.PAIRS] = self._in_set(here, leaf)
        guards: list[Counting] = []
        for place, guard in enumerate(leaf.guards, Slot.GUARDS):
            if isinstance(guard, (RateGuard, ConnectionsGuard)):
                guards.append(guard)
                continue
            assert not guards, "what counts is asked last"
            sieve = guard_sieve(guard)
            if sieve.steps:
                matches[place] = sieve
            elif not sieve.otherwise:
                return here
        goal = self._target(here, leaf, comes_back=not in_group)
        ends = not isinstance(action, Call) and is_terminal(action)
        expanded, sieves = _expanded(matches, may_repeat=ends)
        if not sieves and (len(expanded) == 1 or not guards):
            for chosen in expanded:
                self._line(here, chosen, guards, goal, leaf.origins)
            return here
        inner = self._new_chain(here)
        # `Leave` must return from the chain that the built-in one jumps to. So nothing comes
        # back to it from `inner`: what is not meant goes to `after`, which is the rest of it.
        after = self._new_chain(here) if isinstance(leaf.action, Leave) else None
        into = _call(inner) if after is None else _go(inner)
        for chosen in expanded:
            self._line(here, chosen, (), into, leaf.origins)
        self._sift(inner, sieves, guards, goal, leaf.origins, after)
        if after is None:
            return here
        self._line(here, {}, (), _go(after), leaf.origins)
        return after

    def _sift(
        self,
        here: str,
        sieves: Sieves,
        guards: Sequence[Counting],
        goal: Target,
        origins: tuple[Origin, ...],
        after: str | None,
    ) -> None:
        """Write a chain that acts once on what all sieves let in; the rest goes to `after`."""
        out = Target("-j RETURN") if after is None else _go(after)
        for slot, sieve in sorted(sieves, key=lambda item: not item[1].is_plain):
            if sieve.is_plain and not sieve.alternatives:
                for match in sieve.barred:
                    self._line(here, {slot: match}, (), out, origins)
                continue
            inner = self._new_chain(here)
            for match, lets_in in sieve.steps:
                self._line(here, {slot: match}, (), _go(inner) if lets_in else out, origins)
            if sieve.otherwise or after is not None:
                self._line(here, {}, (), _go(inner) if sieve.otherwise else out, origins)
            here = inner
        self._line(here, {}, guards, goal, origins)
        if after is not None and guards:
            self._line(here, {}, (), out, origins)

    def _in_set(self, here: str, leaf: Leaf) -> Sieve:
        pairs = leaf.pairs
        assert pairs is not None
        name = self.sets.other(
            here.removeprefix(PREFIX), pairs.kind, self.family, pairs.elements, leaf.origins
        )
        return Sieve.any_of([f"-m set --match-set {name} {pairs.flags}"])

    def _target(self, here: str, leaf: Leaf, *, comes_back: bool) -> Target:
        if isinstance(leaf.action, Translation):
            return self._translation(here, leaf, leaf.action)
        match leaf.action:
            case Jump(chain):
                self.called[chain] = None
                return target(Call(self.names[chain], comes_back), self.family)
            case AssignHelper() as action:
                return _go(self._shared_chain(action, f"ct-{action.helper}", leaf.origins))
            case AddToSet() | RememberAsker() as action:
                (only,) = set_targets(action, self.family, self.sets, leaf.origins)
                return only
            case RememberQuestion(timeout_s) as action:
                return _call(self._shared_chain(action, f"asked-{timeout_s}s", leaf.origins))
            case Native():
                raise AssertionError("a line of the user's own has no matches")
            case action:
                return target(action, self.family)

    def _translation(self, here: str, leaf: Leaf, action: Translation) -> Target:
        """The target of a translation; rules that take turns together go to the same chain."""
        turns = turns_of(action, leaf.origins)
        if turns is None or turns not in self.turns:
            return self._goal(here, translated(action, leaf.cube), leaf.origins)
        if turns not in self._taking_turns:
            protocols = Ranges.merged(pair for some in self.turns[turns] for pair in some)
            goal = translated(action, Cube.of({Field.L4PROTO: protocols}))
            self._taking_turns[turns] = self._goal(here, goal, leaf.origins)
        return self._taking_turns[turns]

    def _goal(self, here: str, goal: Goal, origins: tuple[Origin, ...]) -> Target:
        """The goal itself, or the way to a chain that chooses among several."""
        if isinstance(goal, Target):
            return goal
        inner = self._new_chain(here)
        for choice in goal:
            step = self._goal(inner, choice.goal, origins)
            matched: Chosen = {Slot.GUARDS: choice.match} if choice.match else {}
            self._line(inner, matched, (), step, origins)
        return _go(inner)

    def _shared_chain(
        self, action: AssignHelper | RememberQuestion, wanted: str, origins: tuple[Origin, ...]
    ) -> str:
        """A chain for what takes lines of its own, the same for all rules that do it.

        Who goes to one that gives a helper leaves the chain that it comes from. Where that does
        not end the stage, a later helper changes nothing: the first one stays.
        """
        if action not in self._shared:
            name = self._shared[action] = self.names.apart(wanted)
            self.chains[name] = []
            if isinstance(action, AssignHelper):
                self._line(name, {}, (), helper_target(action), ())
            else:
                for goal in set_targets(action, self.family, self.sets, origins):
                    self._line(name, {}, (), goal, origins)
        return self._shared[action]

    # --- lines ----------------------------------------------------------------------------------

    def _line(
        self,
        here: str,
        chosen: Chosen,
        guards: Sequence[Counting],
        goal: Target,
        origins: tuple[Origin, ...],
    ) -> None:
        if goal.needs is not None and Slot.TRANSPORT not in chosen:
            chosen = {**chosen, Slot.TRANSPORT: goal.needs}
        lines = self.chains[here]
        words = [f"-A {here}", *(chosen[slot] for slot in sorted(chosen))]
        for guard in guards:
            # A table of buckets belongs to its name, with the rate that it was made with, for
            # all tables of rules and as long as a rule of any generation has it.
            name = f"{here}-{len(lines) + 1}-{digest(f'{self.table} {guard!r}')}"
            words.append(counting_match(guard, name, self.family))
        if comment := comment_text(describe(origins), COMMENT_BYTES):
            words.append(f'-m comment --comment "{comment}"')
        lines.append(Line(" ".join((*words, goal.text)), origins))


def refuse(reason: InexpressibleError, origins: Iterable[Origin], report: Report) -> None:
    """Report `unsupported` at the first statement behind what cannot be said."""
    span = next((o.span for o in origins if o.span is not None), None)
    report.add("unsupported", f"iptables cannot express {reason}", span, help=reason.help)


def _go(chain: str) -> Target:
    return Target(f"-g {chain}")


def _call(chain: str) -> Target:
    return Target(f"-j {chain}")


def _rule_by_protocol(leaf: Leaf, action: Translation) -> list[Leaf]:
    """The rule for each of its protocols, where its target wants to know it and these are few."""
    protocols = protocols_to_name(action, leaf.cube)
    is_counting = any(isinstance(guard, (RateGuard, ConnectionsGuard)) for guard in leaf.guards)
    if is_counting or not is_one_target(action) or not 1 < len(protocols) <= REPEATED_MOST:
        return [leaf]
    if leaf.cube[Field.L4PROTO].count > len(protocols):
        return [leaf]
    each = (Cube.of({Field.L4PROTO: Ranges.of(number)}) for number in protocols)
    return [replace(leaf, cube=leaf.cube & one) for one in each]


def _expanded(matches: Matches, *, may_repeat: bool) -> tuple[list[Chosen], Sieves]:
    """The matches of each line, and the sieves that no line of these says.

    A packet may meet several of the lines only with `may_repeat`.
    """
    lists: list[tuple[int, tuple[str, ...]]] = []
    sieves: Sieves = []
    for slot, sieve in matches.items():
        is_once = sieve.may_overlap and len(sieve.steps) > 1 and not may_repeat
        if not sieve.is_plain or is_once:
            sieves.append((slot, sieve))
            continue
        if sieve.alternatives:
            lists.append((slot, sieve.alternatives))
        if sieve.barred:
            sieves.append((slot, Sieve.none_of(sieve.barred)))
    lists.sort(key=lambda item: (len(item[1]), item[0]))
    is_only_list = not sieves and all(len(words) == 1 for _, words in lists[:-1])
    count = 1
    taken: list[list[tuple[int, str]]] = []
    for slot, words in lists:
        count *= len(words)
        if count <= LINES_MOST or is_only_list:
            taken.append([(slot, word) for word in words])
        else:
            sieves.append((slot, Sieve.any_of(words)))
    taken.sort(key=lambda options: options[0][0])
    return [dict(chosen) for chosen in product(*taken)], sieves
