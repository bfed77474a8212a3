"""Rules with one action that differ in one field become one rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

from policylang.diagnostics import Report
from policylang.ir.actions import Action
from policylang.ir.origin import Origin, Why, joined
from policylang.ir.ruleset import Chain, Item, Rule, Ruleset
from policylang.optimise.intervals import Intervals
from policylang.optimise.order import MOST_CHECKS, is_plain, may_swap
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

MOST_STEPS = 256  # how far back a rule is moved past rules that decide otherwise

# What two rules must have in common to become one, but for their values of `Field`. Rules that
# exist for different reasons stay apart, so that each line says why it is there.
Key = tuple[Action, tuple[Why, ...], Field, tuple[tuple[Field, Ranges], ...]]


def merge(ruleset: Ruleset, report: Report) -> Ruleset:
    """The ruleset with every chain merged as far as it goes."""
    return replace(ruleset, chains=tuple(_merge_chain(chain) for chain in ruleset.chains))


def _merge_chain(chain: Chain) -> Chain:
    items = chain.items
    while True:
        merged = _merge_once(items)
        if len(merged) == len(items):
            return Chain(chain.name, merged)
        items = merged


@dataclass(slots=True)
class _Growing:
    """A rule that takes others in; all of them differ from it in `field` alone.

    `frame` is what they have in common, and `values` what they say of the field.
    """

    rule: Rule
    field: Field | None = None
    frame: Cube = EVERYTHING
    values: Intervals = dataclass_field(default_factory=Intervals)
    origins: list[tuple[Origin, ...]] = dataclass_field(default_factory=list)

    def take_in(self, rule: Rule, field: Field) -> None:
        if self.field is None:
            self.field = field
            self.frame = Cube.of(dict(self.rule.cube.beside(field)))
            self.origins.append(self.rule.origins)
            for pair in self.rule.cube[field]:
                self.values.add(*pair)
        for pair in rule.cube[field]:
            self.values.add(*pair)
        self.origins.append(rule.origins)

    def may_swap(self, rule: Rule) -> bool:
        """What `order.may_swap` says of this rule as far as it has grown, or False."""
        if self.field is None or self.rule.action == rule.action:
            return may_swap(rule, self.rule)
        common = self.frame & rule.cube
        return common.is_empty or all(
            self.values.overlapping(*pair) is None for pair in common[self.field]
        )

    def finished(self) -> Rule:
        if self.field is None:
            return self.rule
        values = Ranges.merged(self.values.pairs)
        cube = Cube.of({**dict(self.frame), self.field: values})
        return Rule(cube, self.rule.action, (), joined(*self.origins))


def _merge_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    output: list[Item | _Growing] = []
    where: dict[Key, int] = {}
    last: dict[Action | None, int] = {}  # by action; None for what is no plain rule
    for item in items:
        if not isinstance(item, Rule) or not is_plain(item):
            last[None] = len(output)
            output.append(item)
            continue
        why = tuple(dict.fromkeys(origin.why for origin in item.origins))
        keys: dict[Field, Key] = {
            f: (item.action, why, f, item.cube.beside(f))
            for f, _ in item.cube.stated
            if f is not Field.TCP_FLAGS  # bits: the union of two masks may be none
        }
        home = _home(item, keys, output, where, last)
        if home is not None:
            index, field = home
            growing = output[index]
            assert isinstance(growing, _Growing)
            growing.take_in(item, field)
            continue
        for key in keys.values():
            where[key] = len(output)
        last[item.action] = len(output)
        output.append(_Growing(item))
    return tuple(o.finished() if isinstance(o, _Growing) else o for o in output)


def _home(
    rule: Rule,
    keys: dict[Field, Key],
    output: list[Item | _Growing],
    where: dict[Key, int],
    last: dict[Action | None, int],
) -> tuple[int, Field] | None:
    """The rule to go into and the field in which the two differ, if there is one in reach."""
    last_other = max((i for action, i in last.items() if action != rule.action), default=-1)
    for field, key in keys.items():
        index = where.get(key)
        if index is None:
            continue
        growing = output[index]
        assert isinstance(growing, _Growing)
        if growing.field not in (None, field):
            continue
        if index > last_other or _in_reach(rule, output, index):
            return index, field
    return None


def _in_reach(rule: Rule, output: list[Item | _Growing], index: int) -> bool:
    """Whether a rule can move up to the item at `index`."""
    if len(output) - index > MOST_STEPS:
        return False
    checks = 0
    for other in output[index + 1 :]:
        if isinstance(other, _Growing):
            if other.rule.action == rule.action:
                continue
            swaps = other.may_swap(rule)
        else:
            swaps = may_swap(rule, other)
        checks += 1
        if not swaps or checks > MOST_CHECKS:
            return False
    return True
