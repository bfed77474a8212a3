"""Where rules begin to mean something else: at which values, for whom, under which marks.

It reads rulesets, and chooses no packets.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from policylang.ir import actions as ir
from policylang.ir.ruleset import Lookup, Ruleset, entry_cube
from policylang.ir.walk import Walker
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

FREE = Ranges.of(0)
# Fields that a first packet has and that nothing here can change.
MEANT = {
    Field.CT_STATE: FREE,
    Field.CT_HELPER: FREE,
    Field.CT_DIRECTION: FREE,
    Field.IPSEC: FREE,
    Field.IPSEC_OUT: FREE,
    Field.SOURCE_ROUTED: FREE,
    Field.ANSWER: FREE,
    Field.TO_ASKER: FREE,
    Field.DNATED: FREE,
    Field.EXPECTED: FREE,
}


@dataclass(frozen=True, slots=True)
class Borders:
    """Where the values of fields begin to mean something else to rules, and whom they ask for.

    `cubes` are those of the rules themselves.
    """

    values: Mapping[Field, tuple[int, ...]]
    cubes: tuple[Cube, ...] = ()
    marks: tuple[int, ...] = (0,)
    users: tuple[int, ...] = (0,)
    groups: tuple[int, ...] = (0,)


def borders(ruleset: Ruleset) -> Borders:
    """The borders of all chains of a ruleset."""
    walker = Walker(ruleset)
    values: dict[Field, set[int]] = {}
    for base in ruleset.bases:
        for asked, found in walker.borders(base.stage, base.path).items():
            values.setdefault(asked, set()).update(found)
    for one in (Field.SADDR, Field.DADDR):  # what one end is asked, the other's packets meet too
        values.setdefault(one, set()).update(values.get(Field.ORIG_DADDR, ()))
    values.setdefault(Field.DPORT, set()).update(values.get(Field.ORIG_DPORT, ()))
    owners: dict[str, set[int]] = {"user": {0}, "group": {0}}
    marks = {0}
    for guard in guards(ruleset):
        match guard:
            case ir.OwnerGuard(kind, ids, names):
                owners[kind].update(n for pair in ids for n in (*pair, pair[1] + 1))
                owners[kind].update(numbers(kind, names))
            case ir.MarkGuard(value, mask):
                marks |= {value, value ^ (mask & -mask)}
    return Borders(
        {asked: tuple(sorted(found)) for asked, found in values.items()},
        tuple(dict.fromkeys(_cubes(ruleset))),
        tuple(sorted(marks)),
        tuple(sorted(owners["user"])),
        tuple(sorted(owners["group"])),
    )


def numbers(kind: str, names: Iterable[str]) -> list[int]:
    """The numbers of those users (or groups, `kind`) whose names this machine knows."""
    found = []
    for name in names:
        with suppress(KeyError):
            found.append(pwd.getpwnam(name)[2] if kind == "user" else grp.getgrnam(name)[2])
    return found


def _cubes(ruleset: Ruleset) -> Iterator[Cube]:
    """What rules and elements ask of packets, less what the picker does not choose."""
    for chain in ruleset.chains:
        for item in chain.items:
            if isinstance(item, Lookup):
                yield from (entry_cube(item, entry).without(*MEANT) for entry in item.entries)
            else:
                yield item.cube.without(*MEANT)


def guards(ruleset: Ruleset) -> Iterator[ir.Guard]:
    """The guards of all rules."""
    for chain in ruleset.chains:
        for item in chain.items:
            if not isinstance(item, Lookup):
                yield from item.guards
