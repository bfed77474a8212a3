"""An inventory of machines as text of the language: hosts, and sets of them by their groups.

Who keeps the inventory, and where, it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policylang.source import SourceFile

FILE = "inventory"  # what messages call the text
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Inventory:
    """Machines by name with the texts of their addresses, and groups with names of machines."""

    hosts: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[str]]


def text_of(inventory: Inventory, declared: frozenset[str]) -> SourceFile:
    """The declarations, in the order of the inventory.

    What the policy declares by itself (`declared`) is left to it, and so is what has no address.
    Groups that have a machine's name or no machine are left out. ValueError for a name that the
    language cannot say.
    """
    return SourceFile(FILE, "".join(f"{line}\n" for line in _lines(inventory, declared)))


def _lines(inventory: Inventory, declared: frozenset[str]) -> Iterator[str]:
    hosts = dict(inventory.hosts)
    known = declared | {name for name, addresses in hosts.items() if addresses}
    for name, addresses in hosts.items():
        if addresses and name not in declared:
            _check(name)
            yield f"host {name} {{ address {', '.join(addresses)} }}"
    for group, members in inventory.groups.items():
        there = [name for name in dict.fromkeys(members) if name in known]
        if there and group not in known:
            _check(group)
            yield f"set {group} = {', '.join(there)}"


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(name)
