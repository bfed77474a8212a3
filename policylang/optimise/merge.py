"""Rules with one action that differ in one field become one rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policylang.diagnostics import Report
from policylang.ir.actions import Action
from policylang.ir.origin import Origin, Why, joined
from policylang.ir.ruleset import Chain, Item, Rule, Ruleset
from policylang.optimise.order import is_plain, may_pass
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Range, Ranges

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
    """A rule that takes others in; all of them differ from it in `field` alone."""

    rule: Rule
    field: Field | None
    pairs: list[Range]
    origins: list[tuple[Origin, ...]]

    def finished(self) -> Rule:
        if self.field is None:
            return self.rule
        terms = {f: v for f, v in self.rule.cube.stated if f is not self.field}
        terms[self.field] = Ranges.merged(self.pairs)
        return Rule(Cube.of(terms), self.rule.action, (), joined(*self.origins))


def _merge_once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    output: list[Item | _Growing] = []
    where: dict[Key, int] = {}
    last: dict[Action | None, int] = {}  # by action; None for what is no plain rule
    for item in items:
        if not isinstance(item, Rule) or not is_plain(item):
            last[None] = len(output)
            output.append(item)
            continue
        stated = item.cube.stated
        why = tuple(dict.fromkeys(origin.why for origin in item.origins))
        keys = {
            f: (item.action, why, f, tuple(term for term in stated if term[0] is not f))
            for f, _ in stated
        }
        home = _home(item, keys, output, where, last)
        if home is not None:
            index, field = home
            growing = output[index]
            assert isinstance(growing, _Growing)
            growing.field = field
            growing.pairs += item.cube[field]
            growing.origins.append(item.origins)
            continue
        for key in keys.values():
            where[key] = len(output)
        last[item.action] = len(output)
        output.append(_Growing(item, None, [], [item.origins]))
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
            if growing.field is None:
                growing.pairs += growing.rule.cube[field]
            return index, field
    return None


def _in_reach(rule: Rule, output: list[Item | _Growing], index: int) -> bool:
    """Whether a rule can move up to the item at `index`."""
    if len(output) - index > MOST_STEPS:
        return False
    between = (
        other.finished() if isinstance(other, _Growing) else other
        for other in output[index + 1 :]
        if not (isinstance(other, _Growing) and other.rule.action == rule.action)
    )
    return may_pass(rule, between)
