"""The fields that every packet of a kind has, where somebody speaks of a few of them alone.

It knows what an ordinary first packet of a connection looks like, and no rules.
"""

from __future__ import annotations

from policylang.analysis.surroundings import NOBODY
from policylang.packets.cube import Packet
from policylang.packets.fields import (
    DCCP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    TCP_SYN,
    UDP,
    AddressType,
    Field,
    FlowDirection,
    State,
)

PORTED = (TCP, UDP, DCCP, SCTP)


def ordinary(packet: Packet) -> dict[Field, int]:
    """The packet with all the fields that every packet of its kind has.

    What it lacks becomes that of an ordinary first packet of a connection.
    """
    protocol = packet.get(Field.L4PROTO, TCP)
    state = packet.get(Field.CT_STATE, State.NEW)
    filled: dict[Field, int] = {
        Field.IIF: NOBODY,
        Field.OIF: NOBODY,
        Field.CT_STATE: state,
        Field.CT_HELPER: NOBODY,
        Field.L4PROTO: protocol,
        Field.DADDR_TYPE: AddressType.UNICAST,
        Field.CT_DIRECTION: FlowDirection.ORIGINAL,
        Field.SMAC: 0x02_00_00_00_00_01,
        Field.DSCP: 0,
        Field.SIZE: 60,
        Field.IPSEC: 0,
        Field.SADDR_TYPE: AddressType.UNICAST,
        Field.REVERSE_PATH: 1,
        Field.SOURCE_ROUTED: 0,
        Field.ANSWER: 0,
        Field.TO_ASKER: 0,
        Field.DNATED: 0,
        Field.IPSEC_OUT: 0,
        Field.EXPECTED: 0,
    }
    if packet.get(Field.FAMILY, 4) == 6:
        filled[Field.HOP_LIMIT] = 64
        if protocol == ICMPV6:
            filled[Field.ICMPV6_TYPE] = 128
    elif protocol == ICMP:
        filled[Field.ICMP_TYPE] = 8
    if protocol in PORTED:
        filled |= {Field.SPORT: 40_000, Field.DPORT: 0}
    if protocol == TCP:
        filled[Field.TCP_FLAGS] = TCP_SYN
    filled |= packet
    _with_dialled(filled)
    return filled


def _with_dialled(packet: dict[Field, int]) -> None:
    """What the client dialled, where it is not said: what the packet goes to, or came from."""
    forth = packet[Field.CT_DIRECTION] == FlowDirection.ORIGINAL
    if (address := packet.get(Field.DADDR if forth else Field.SADDR)) is not None:
        packet.setdefault(Field.ORIG_DADDR, address)
    if (port := packet.get(Field.DPORT if forth else Field.SPORT)) is not None:
        packet.setdefault(Field.ORIG_DPORT, port)
