"""Lines of a target's own language, with a log in the place of each: where it stands can be proved.

What such a line says is its author's business, and no reader's. That it stands where the policy
has it is ours: a log stands there instead, of which all is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from policylang.ir.actions import Log, Native
from policylang.ir.ruleset import Item, Rule, Ruleset

PREFIX = "policylang native line "
ANY_FAMILY = 0


def marked(ruleset: Ruleset, target: str) -> Ruleset | None:
    """The rules with a log for each line of the target's own; None where there is none.

    Lines of other targets are left out.
    """
    numbers = iter(range(1, 1 << 30))
    found = False
    chains = []
    for chain in ruleset.chains:
        items: list[Item] = []
        for item in chain.items:
            if isinstance(item, Rule) and isinstance(item.action, Native):
                found = found or item.action.target == target
                items += _log(item, item.action, target, numbers)
            else:
                items.append(item)
        chains.append(replace(chain, items=tuple(items)))
    return replace(ruleset, chains=tuple(chains)) if found else None


def _log(rule: Rule, native: Native, target: str, numbers: Iterator[int]) -> Iterator[Rule]:
    if native.target == target:
        family = native.family or ANY_FAMILY
        yield replace(rule, action=Log(f"{PREFIX}{family}.{next(numbers)}"))


def family_of(rule: str) -> int | None:
    """The family (or `ANY_FAMILY`) of the line for which a rule, in a target's words, is a log."""
    found = _MARK.search(rule)
    return None if found is None else int(found[1])


_MARK = re.compile(rf"{PREFIX}(\d)\.")
