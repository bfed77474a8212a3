"""What sends packets elsewhere than they were dialled does to sets of packets, and back.

It knows the translations of destinations and transparent proxies; nothing of hooks and chains.
"""

from __future__ import annotations

from policylang.analysis.completing import PORTED
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import Line
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, AddressType, Field
from policylang.packets.values import V6_BASE, Range, Ranges

LOCAL = Ranges.of(AddressType.LOCAL)


def at_their_goal(space: Space, line: Line) -> Packets:
    """What a translation of the destination changes nothing of: it is none then.

    Where one of several targets is taken, or this host's own address, it counts as one.
    """
    match line.act:
        case ir.DestinationNat(targets, port, _) if targets.single is not None:
            there = {Field.DADDR: targets}
            if port is not None:
                there[Field.DPORT] = Ranges.of(port)
            return space.of(Cube.of(there))
        case ir.MapPrefix(_, prefix):
            # The low bits stay, so who is in the prefix already stays who they are.
            return space.of(Cube.of({Field.DADDR: Ranges((prefix,))}))
        case _:
            return space.nothing


def translated(space: Space, line: Line, packets: Packets) -> Packets:
    """Packets as the line leaves them: dialled there, going here, by a way that is not known yet.

    Of a prefix that is mapped, who is dialled is known as far as the prefix goes.
    """
    act = line.act
    if isinstance(act, ir.TransparentProxy):
        return space.with_mark(packets, act.value, act.mask)
    has_ports = space.of(Cube.of({Field.L4PROTO: Ranges.of(*PORTED)}))
    ported, portless = packets & has_ports, packets - has_ports
    keep = space.moved if _new_port(line) is not None else space.copied
    dialled = keep(ported, Field.DPORT, Field.ORIG_DPORT) | portless
    became = {
        Field.DNATED: Ranges.of(1),
        Field.DADDR_TYPE: UNIVERSE[Field.DADDR_TYPE] - LOCAL,
    }
    if isinstance(act, ir.MapPrefix):
        before = space.values(packets, Field.DADDR)
        dialled = space.assigned(dialled, {Field.ORIG_DADDR: before})
        dialled = space.with_prefix(dialled, Field.DADDR, act.prefix)
    else:
        dialled = space.moved(dialled, Field.DADDR, Field.ORIG_DADDR)
    match act:
        case ir.DestinationNat(targets, port, _):
            became[Field.DADDR] = targets
            if port is not None:
                became[Field.DPORT] = Ranges.of(port)
        case ir.RedirectToSelf(port):
            became[Field.DADDR_TYPE] = LOCAL
            became[Field.DPORT] = Ranges.of(port)
        case _:
            pass
    return space.assigned(space.free(dialled, Field.OIF), became)


def as_dialled(space: Space, line: Line, packets: Packets) -> Packets:
    """Packets behind the line as they were before it, as far as what it leaves tells."""
    act = line.act
    if isinstance(act, ir.TransparentProxy):
        return space.free_of_marks(packets, of_connection=False)
    if isinstance(act, ir.MapPrefix):
        back = space.with_prefix(packets, Field.DADDR, _prefix_before(line, act.prefix))
        back = space.free(back, Field.ORIG_DADDR)
    else:
        back = space.moved(packets, Field.ORIG_DADDR, Field.DADDR)
    if _new_port(line) is not None:
        back = space.moved(back, Field.ORIG_DPORT, Field.DPORT)
    return space.free(
        back, Field.DADDR_TYPE, Field.OIF, Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT
    )


def _new_port(line: Line) -> int | None:
    match line.act:
        case ir.DestinationNat(_, port, _) | ir.RedirectToSelf(port):
            return port
        case _:
            return None


def _prefix_before(line: Line, prefix: Range) -> Range:
    """The whole prefix, as long as the other one, that the line's packets are dialled in."""
    size = prefix[1] - prefix[0]
    first = line.cubes[0][Field.DADDR].pairs[0][0]
    base = V6_BASE if first >= V6_BASE else 0
    low = ((first - base) & ~size) + base
    return low, low + size
