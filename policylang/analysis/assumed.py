"""What questions take for granted beside honest senders: routes, floods, and what rules remember.

It knows machines and zones, and no questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import (
    Condition,
    ConnectionsHold,
    Line,
    Machine,
    RateHolds,
)
from policylang.ir import actions as ir
from policylang.ir.stages import Stage
from policylang.lower.paths import DESTINATION, LOOPBACK, zone_cube
from policylang.model.types import Zone
from policylang.packets.cube import Cube
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import Ranges, name_pattern, name_range, parse_address


def routed(zones: Iterable[Zone], space: Space) -> Packets:
    """What leaves by an interface that a zone has which its destination is in, if it is in one."""
    known = [z for z in zones if z.interfaces is not None and z.networks is not None]
    within = space.of_all(Cube.of({Field.DADDR: z.networks or Ranges()}) for z in known)
    by_its_way = space.of_all(zone_cube(z, DESTINATION) for z in known)
    return (space.everything - within) | by_its_way


def without_memory(machine: Machine) -> Machine:
    """The same for one packet: what rules remember of it is for those that follow."""
    forgotten = (ir.AddToSet, ir.RememberQuestion, ir.RememberAsker, ir.Log)
    return replace(
        machine,
        chains={
            name: tuple(line for line in lines if not isinstance(line.act, forgotten))
            for name, lines in machine.chains.items()
        },
    )


def at_targets(machine: Machine, space: Space) -> Packets:
    """What is addressed to this host at a target of a port forward, which is another machine.

    That is so in a policy; rules of other origin may well send on to this host.
    """
    if not any(base.stage for base in machine.bases):
        return space.nothing
    targets = Ranges.merged(
        pair
        for lines in machine.chains.values()
        for line in lines
        if isinstance(line.act, ir.DestinationNat)
        for pair in line.act.targets
    )
    local = Ranges.of(AddressType.LOCAL)
    return space.of(Cube.of({Field.DADDR: targets, Field.DADDR_TYPE: local}))


def counts(machine: Machine) -> Iterator[tuple[Line, Condition]]:
    """The rates and numbers of connections that rules ask for, and the lines that ask."""
    for lines in machine.chains.values():
        for line in lines:
            for asked in line.conditions:
                if isinstance(asked.question, RateHolds | ConnectionsHold):
                    yield line, asked


def floods(machine: Machine) -> Iterator[tuple[Line, Condition]]:
    """The rates beyond which `protect` takes packets for a flood, and the lines that ask."""
    screens = [base.chain for base in machine.bases if base.stage is Stage.SCREEN]
    seen: set[str] = set()
    while screens:
        name = screens.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in machine.chains[name]:
            if isinstance(line.act, ir.Jump):
                screens.append(line.act.chain)
            for asked in line.conditions:
                if isinstance(asked.question, RateHolds):
                    yield line, asked


# --- what packets look like that are shown ------------------------------------------------------


def plausible(machine: Machine) -> tuple[Cube, ...]:
    """What packets look like that people take for ordinary ones, in the names of the rules."""
    names = _interfaces(machine)
    known = Cube.of({Field.IIF: names}), Cube.of({Field.OIF: names})
    return (_TO_SELF, *known, *_SPARE)


def _interfaces(machine: Machine) -> Ranges:
    """One interface for each name or pattern that rules have."""
    found: set[int] = set()
    for lines in machine.chains.values():
        for cube in (cube for line in lines for cube in line.cubes):
            for f in (Field.IIF, Field.OIF):
                if f not in cube:
                    continue
                patterns = (name_pattern(low, high) for low, high in cube[f])
                names = (p.replace("*", "0") for p in patterns if p and p not in (LOOPBACK, "*"))
                found.update(name_range(name)[0] for name in names)
    return Ranges.of(*found)


# This host's address, and interfaces that no rule may have named.
_TO_SELF = Cube.of(
    {
        Field.DADDR_TYPE: Ranges.of(AddressType.LOCAL),
        Field.DADDR: Ranges.merged(
            r for t in ("198.51.100.1", "2001:db8:100::1") if (r := parse_address(t))
        ),
    }
)
_SPARE = tuple(
    Cube.of({f: Ranges.merged(name_range(f"eth{n}") for n in range(10))})
    for f in (Field.IIF, Field.OIF)
)
