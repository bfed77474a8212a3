"""Which rules take targets in turn together: those that came from the same statements."""

from __future__ import annotations

from collections.abc import Sequence

from policylang.ir.actions import Action, DestinationNat
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Rule, Ruleset
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

# An action that counts, and the places of the statements that it does so for.
Turns = tuple[Action, tuple[tuple[str, int], ...]]


def takes_turns(action: Action) -> bool:
    """Whether an action counts, so that it may stand in one place of the output alone."""
    return isinstance(action, DestinationNat) and not action.by_source and action.targets.count > 1


def turns_of(action: Action, origins: Sequence[Origin]) -> Turns | None:
    """What rules have in common that take turns together.

    None where the action takes none, or no statement is behind it.
    """
    if not takes_turns(action):
        return None
    places = {(o.span.file.name, o.span.start) for o in origins if o.span is not None}
    return (action, tuple(sorted(places))) if places else None


def protocols_in_turn(ruleset: Ruleset) -> dict[Turns, list[Ranges]]:
    """For all that take turns together, the protocols of each of their rules."""
    found: dict[Turns, list[Ranges]] = {}
    for chain in ruleset.chains:
        for item in chain.items:
            if isinstance(item, Rule):
                turns = turns_of(item.action, item.origins)
                if turns is not None:
                    found.setdefault(turns, []).append(item.cube[Field.L4PROTO])
    return found
