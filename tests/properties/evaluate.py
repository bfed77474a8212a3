"""What a ruleset does to a single packet: reads the ir rule by rule and knows no target.

Every test that compares rulesets reads them with this.
"""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.actions import Action, Jump, Log, is_terminal
from policylang.ir.ruleset import Entry, Lookup, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Packet


@dataclass(frozen=True, slots=True)
class Fate:
    """What decided, None where nothing did, and the logs that were written on the way.

    `asked` are the actions whose rates were asked on the way: each counts the packet.
    """

    action: Action | None
    logs: tuple[Log, ...] = ()
    asked: tuple[Action, ...] = ()


def evaluate(
    ruleset: Ruleset, stage: Stage, path: Path, packet: Packet, *, guards_hold: bool = True
) -> Fate:
    """The fate of a packet on a stage and path; `guards_hold` tells whether every rate does.

    A stage and path without a base chain decides nothing. Raises AssertionError where two
    entries of a lookup hold the packet, and RecursionError where chains jump in a circle.
    """
    bodies = {chain.name: chain.items for chain in ruleset.chains}
    logs: list[Log] = []
    asked: list[Action] = []

    def read(chain: str) -> Action | None:
        for item in bodies[chain]:
            action = _met(item, packet)
            if action is not None and isinstance(item, Rule) and item.guards:
                asked.append(action)
                if not guards_hold:
                    continue
            if isinstance(action, Log):
                logs.append(action)
            elif isinstance(action, Jump):
                decided = read(action.chain)
                if decided is not None:
                    return decided
            elif action is not None:
                assert is_terminal(action)
                return action
        return None

    for base in ruleset.bases:
        if (base.stage, base.path) == (stage, path):
            return Fate(read(base.chain), tuple(logs), tuple(asked))
    return Fate(None)


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
