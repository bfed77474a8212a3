"""Rules that no packet reaches go: what an earlier rule decides in full."""

from __future__ import annotations

from dataclasses import replace

from policylang.diagnostics import Report
from policylang.ir.ruleset import Chain, Item, Rule, Ruleset
from policylang.optimise.order import changes, is_plain
from policylang.optimise.reading import actions, read
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field

MOST_CHECKS = 64  # earlier rules on the same fields that a rule is compared with


def shadow(ruleset: Ruleset, report: Report) -> Ruleset:
    """The ruleset without rules that a single earlier rule of their chain covers.

    Chains that only such rules jumped to go with them.
    """
    chains = {chain.name: _without_shadowed(chain) for chain in ruleset.chains}
    kept = read(chains, [base.chain for base in ruleset.bases])
    return replace(ruleset, chains=tuple(chains[name] for name in chains if name in kept))


def _without_shadowed(chain: Chain) -> Chain:
    kept: list[Item] = []
    deciding: dict[tuple[Field, ...], list[Cube]] = {}
    for item in chain.items:
        cube = item.cube
        if any(
            other.covers(cube)
            for fields, cubes in deciding.items()
            if all(f in cube or f is Field.FAMILY for f in fields)
            for other in cubes[:MOST_CHECKS]
        ):
            continue
        kept.append(item)
        for field in {f for action in actions(item) for f in changes(action)}:
            # What was decided by such a field was decided by another value of it.
            for fields in [fields for fields in deciding if field in fields]:
                del deciding[fields]
        if is_plain(item) and isinstance(item, Rule):
            if cube == EVERYTHING:
                break
            deciding.setdefault(cube.fields, []).append(cube)
    return Chain(chain.name, tuple(kept))
