"""What a packet's way depends on beside rules, and how translations rewrite its ends.

It knows this host's addresses and routes where somebody tells them, and no rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

from policylang.analysis.machine import Hook
from policylang.ir import actions as ir
from policylang.packets.cube import Packet
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import V6_BASE, Range

CONNTRACK = -200  # NF_IP_PRI_CONNTRACK: what stands before it sees packets without a state
NOBODY = 0  # the name of no interface: the kernel compares an empty one


class Surroundings(Protocol):
    """What a packet's way depends on beside rules: this host's addresses and routes."""

    def routed(self, packet: Packet) -> Mapping[Field, int]:
        """The fields that routing tells of a packet whose destination is settled.

        OIF is the interface by which it leaves, `NOBODY` where it is for this host; DADDR_TYPE.
        """
        ...

    def own_address(self, interface: int, family: int) -> int | None:
        """An address of this host's at an interface, by which it masquerades and redirects."""
        ...


@dataclass(frozen=True, slots=True)
class AsGiven:
    """Nothing is known but the packet: it goes by the way that it names."""

    out: int

    def routed(self, packet: Packet) -> Mapping[Field, int]:
        kind = packet.get(Field.DADDR_TYPE)
        if kind == AddressType.LOCAL or self.out == NOBODY:
            is_own = kind in (None, AddressType.UNICAST)
            return {Field.OIF: NOBODY} | ({Field.DADDR_TYPE: AddressType.LOCAL} if is_own else {})
        return {Field.OIF: self.out}

    def own_address(self, interface: int, family: int) -> int | None:
        return None


def translated(
    packet: Packet, act: ir.Translation, hook: Hook, surroundings: Surroundings
) -> dict[Field, int]:
    """The packet with the addresses and ports that a translation gives it.

    Of several targets the first is taken. An address that only the surroundings know, and do not
    tell, stays.
    """
    now = dict(packet)
    family = now[Field.FAMILY]
    match act:
        case ir.Masquerade(ports):
            address = surroundings.own_address(now[Field.OIF], family)
            now[Field.SADDR] = now[Field.SADDR] if address is None else address
            _keep_port(now, ports)
        case ir.SourceNat((low, _), ports):
            now[Field.SADDR] = low
            _keep_port(now, ports)
        case ir.DestinationNat(targets, port):
            now[Field.DADDR] = targets.pairs[0][0]
            now[Field.DADDR_TYPE] = AddressType.UNICAST
            if port is not None:
                now[Field.DPORT] = port
        case ir.RedirectToSelf(port):
            if hook is Hook.OUTPUT:
                address = LOOPBACK[family]
            else:
                address = surroundings.own_address(now[Field.IIF], family)
            now[Field.DADDR] = now[Field.DADDR] if address is None else address
            now[Field.DADDR_TYPE] = AddressType.LOCAL
            if Field.DPORT in now:
                now[Field.DPORT] = port
        case ir.MapPrefix(end, (low, high)):
            field_ = Field.SADDR if end is ir.End.SOURCE else Field.DADDR
            now[field_] = low + (now[field_] - low) % (high - low + 1)
            if field_ is Field.DADDR:
                now[Field.DADDR_TYPE] = AddressType.UNICAST
        case _:
            assert_never(act)
    before = (packet[Field.DADDR], packet.get(Field.DPORT))
    if (now[Field.DADDR], now.get(Field.DPORT)) != before:
        now[Field.DNATED] = 1
    return now


LOOPBACK = {4: 0x7F000001, 6: V6_BASE + 1}


def _keep_port(packet: dict[Field, int], ports: Range | None) -> None:
    """A source port outside the range that is allowed becomes the first of it."""
    if ports is not None and Field.SPORT in packet:
        low, high = ports
        if not low <= packet[Field.SPORT] <= high:
            packet[Field.SPORT] = low
