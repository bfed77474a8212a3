"""Several machines as one: what packets meet where several programs have loaded rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from policylang.analysis.machine import Base, Goto, Hook, Line, Machine
from policylang.ir.actions import Jump


def together(machines: Iterable[Machine]) -> Machine:
    """All rules on their hooks, by priority; names of chains are told apart by whose they are."""
    bases: list[Base] = []
    chains: dict[str, tuple[Line, ...]] = {}
    for number, machine in enumerate(machines):
        names = {name: f"{number} {name}" for name in machine.chains}
        bases += (replace(base, chain=names[base.chain]) for base in machine.bases)
        for name, lines in machine.chains.items():
            chains[names[name]] = tuple(
                replace(line, act=replace(line.act, chain=names[line.act.chain]))
                if isinstance(line.act, Jump | Goto)
                else line
                for line in lines
            )
    order = list(Hook)
    bases.sort(key=lambda base: (order.index(base.hook), base.priority))
    return Machine(tuple(bases), chains)
