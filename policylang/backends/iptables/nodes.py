"""What a chain is written from: rules, and groups of them that share a condition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from policylang.backends.iptables.targets import Call
from policylang.ir.actions import Action, Guard
from policylang.ir.origin import Origin
from policylang.packets.cube import Cube


@dataclass(frozen=True, slots=True)
class Pairs:
    """Packets that are in an ipset of several fields: `flags` names each one's direction."""

    kind: str
    flags: str
    elements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A rule: packets in `cube`, and in `pairs` where there are any, meet the action."""

    cube: Cube
    action: Action | Call
    guards: tuple[Guard, ...] = ()
    origins: tuple[Origin, ...] = field(default=(), compare=False)
    pairs: Pairs | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are read for packets in `cube` alone."""

    cube: Cube
    nodes: tuple[Node, ...]
    origins: tuple[Origin, ...] = field(default=(), compare=False)


Node = Leaf | Group


def within(node: Node, cube: Cube) -> Node:
    """The node for those packets alone that are in `cube` too."""
    return replace(node, cube=node.cube & cube)


def leaves(nodes: Iterable[Node]) -> Iterator[Leaf]:
    """The rules of all groups, each with the conditions of the groups around it."""
    for node in nodes:
        if isinstance(node, Leaf):
            yield node
        else:
            yield from leaves(within(inner, node.cube) for inner in node.nodes)
