"""Lines that stand where the kernel takes them and they do nothing, or not what they say.

A priority that is wrong loads cleanly: a helper that is given before conntrack is given to nothing,
a state that is asked for there is never met. Each rule of this module is one such fact of the
kernel. It knows netfilter's hooks and priorities, and no policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policylang.analysis.machine import (
    Base,
    ConnectionMarkIs,
    ConnectionsHold,
    Goto,
    Hook,
    Line,
    Machine,
)
from policylang.ir import actions as ir
from policylang.ir.actions import End
from policylang.packets.fields import Field

# linux/netfilter_ipv4.h
RAW, CONNTRACK, NAT_DST = -300, -200, -100

OF_CONNTRACK = frozenset(
    {
        *(Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION),
        *(Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT, Field.EXPECTED),
    }
)
ARRIVING = (Hook.PREROUTING, Hook.OUTPUT)


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A line that does not do there what it says; `why` goes on from "it"."""

    base: Base
    line: Line
    why: str


def misplaced(machine: Machine, target: str) -> Iterator[Misplaced]:
    """The lines of a target that stand at a place that does not work."""
    for base in machine.bases:
        for line in _read(machine, base):
            why = next(_reasons(base, line, target), None)
            if why is not None:
                yield Misplaced(base, line, why)


def _read(machine: Machine, base: Base) -> Iterator[Line]:
    """The lines of a base chain and of all that it leads to."""
    seen, waiting = {base.chain}, [base.chain]
    while waiting:
        for line in machine.chains[waiting.pop()]:
            yield line
            if isinstance(line.act, ir.Jump | Goto) and line.act.chain not in seen:
                seen.add(line.act.chain)
                waiting.append(line.act.chain)


def _reasons(base: Base, line: Line, target: str) -> Iterator[str]:
    hook, priority = base.hook, base.priority
    is_first = hook in ARRIVING
    if is_first and priority <= CONNTRACK and _asks_conntrack(line):
        yield "asks for what conntrack knows, which has not seen the packet there"
    match line.act:
        case ir.AssignHelper() if not is_first:
            yield "gives a helper to connections that are under way"
        # A template that conntrack takes the helper from (xt_CT), or the connection's own.
        case ir.AssignHelper() if target == "iptables" and priority >= CONNTRACK:
            yield "gives a helper behind conntrack, which the target CT cannot"
        case ir.AssignHelper() if target == "nft" and not CONNTRACK < priority < NAT_DST:
            yield "gives a helper where there is no connection, or no port that was dialled"
        case ir.Untrack() if not is_first or priority >= CONNTRACK:
            yield "takes packets out of conntrack's sight that it has seen already"
        case ir.SetConnectionMark() if is_first and priority <= CONNTRACK:
            yield "marks a connection before there is one"
        case ir.SetMark() if hook is Hook.OUTPUT and not base.reroutes:
            yield "marks packets that have their route already"
        case ir.DestinationNat() | ir.RedirectToSelf() | ir.MapPrefix(end=End.DESTINATION) if not (
            base.is_nat and is_first
        ):
            yield "changes a destination where that is not done"
        case ir.Masquerade() | ir.SourceNat() | ir.MapPrefix(end=End.SOURCE) if not (
            base.is_nat and hook is Hook.POSTROUTING
        ):
            yield "changes a source where that is not done"
        case ir.TransparentProxy() if hook is not Hook.PREROUTING or not (
            CONNTRACK < priority < NAT_DST
        ):
            yield "hands packets to a proxy where that is not done"
        case ir.Drop() | ir.Reject() if base.is_nat:
            yield "decides in a chain that reads the first packet of a connection alone"
        case _:
            pass


def _asks_conntrack(line: Line) -> bool:
    return any(f in OF_CONNTRACK for cube in line.cubes for f in cube.fields) or any(
        isinstance(c.question, ConnectionMarkIs | ConnectionsHold) for c in line.conditions
    )
