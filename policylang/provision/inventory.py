"""An inventory of machines as text of the language: hosts, and sets of them by their groups.

Who keeps the inventory, and where, it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policylang.packets.values import parse_one_address
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.mentions import flat, named_sets
from policylang.syntax.tokens import NAME, kind_of

FILE = "<inventory>"  # what messages call the text; no file that a policy could include
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class BadNameError(ValueError):
    """A machine's name, which the language cannot say."""


class TakenNameError(ValueError):
    """A machine's name, by which the policy calls something built in."""


class BadAddressError(ValueError):
    """What is no address, and the machine that has it."""


class NoAddressError(ValueError):
    """A machine that would be the one that is meant, if it had an address."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Machines by name with the texts of their addresses, and groups with names of machines."""

    hosts: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a policy without an inventory.

    `hosts` are those that may be hosts or sets of them, `others` what else it declares, and
    `built_in` what it names of the catalogue. `ends` are those that may be an end of a rule, a part
    of a set or what a block is for.
    """

    hosts: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    built_in: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()


def names_of(loaded: tree.Loaded) -> Names:
    """The names of a policy as it is written."""
    hosts, others, ends = set[str](), set[str](), set(named_sets(loaded.statements))
    for one in flat(loaded.statements):
        match one:
            case tree.HostDecl(name=name) | tree.SetDecl(name=name):
                hosts.add(name.text)
            case (
                tree.ZoneDecl(name=name)
                | tree.RulesDecl(name=name)
                | tree.ServiceDecl(name=name)
                | tree.ServiceGroup(name=name)
            ):
                others.add(name.text)
            case tree.OnBlock(hosts=named, exceptions=excepted):
                ends |= {name.text for name in (*named, *excepted)}
            case _:
                pass
    built_in = frozenset((*loaded.services, *loaded.sets))
    return Names(frozenset(hosts), frozenset(others), built_in, frozenset(ends))


def text_of(inventory: Inventory, names: Names) -> SourceFile:
    """The declarations, in the order of the inventory.

    What the policy declares by itself is left to it, and what has no address is left out. So are
    groups without a machine, and those whose name the language cannot say, a machine has, or the
    policy has for something else. BadNameError, TakenNameError and BadAddressError for machines.
    """
    return SourceFile(FILE, "".join(f"{line}\n" for line in _lines(inventory, names)))


def _lines(inventory: Inventory, names: Names) -> Iterator[str]:
    for name, addresses in inventory.hosts.items():
        if addresses and name not in names.hosts:
            if name in names.built_in:
                raise TakenNameError(name)
            yield f"host {_spelled(name)} {{ address {', '.join(_checked(name, addresses))} }}"
    known = _known(inventory, names)
    for group, members in _groups(inventory, names):
        there = [_spelled(name) for name in dict.fromkeys(members) if name in known]
        if there:
            yield f"set {_spelled(group)} = {', '.join(there)}"


def _known(inventory: Inventory, names: Names) -> frozenset[str]:
    """Machines that can be named in a set."""
    return names.hosts | {name for name, addresses in inventory.hosts.items() if addresses}


def _groups(inventory: Inventory, names: Names) -> Iterator[tuple[str, Sequence[str]]]:
    """The groups that may become sets."""
    taken = _known(inventory, names) | names.others | names.built_in
    for group, members in inventory.groups.items():
        if group not in taken and _NAME.fullmatch(group):
            yield group, members


def left_out(inventory: Inventory, names: Names) -> dict[str, tuple[str, ...]]:
    """Machines without an address that are missing in a group which the policy names, by group."""
    known = _known(inventory, names)
    missing = {
        group: tuple(name for name in dict.fromkeys(members) if name not in known)
        for group, members in _groups(inventory, names)
        if group in names.ends
    }
    return {group: machines for group, machines in missing.items() if machines}


def _spelled(name: str) -> str:
    """A name as a policy has it: a word of the language stands in quotes."""
    if not _NAME.fullmatch(name):
        raise BadNameError(name)
    return name if kind_of(name) == NAME else f'"{name}"'


def _checked(name: str, addresses: Sequence[str]) -> Sequence[str]:
    """The addresses of a machine, which are nothing but addresses."""
    for address in addresses:
        if parse_one_address(address) is None:
            raise BadAddressError(address, name)
    return addresses
