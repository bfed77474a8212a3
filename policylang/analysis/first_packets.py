"""The packets that begin connections as honest senders send them; knows no rules.

What a question cannot say in words is taken to be as it should be: TCP begins with a SYN, sources
are routed back the way they came, nothing is source-routed, and neighbours are found from next
door. What forged or broken packets meet beside that (`protect`) is no answer to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from policylang.analysis.diagram import Packets, Space
from policylang.ir.stages import Path
from policylang.lower.paths import multicast
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DCCP,
    ICMPV6,
    NAMES,
    SCTP,
    TCP,
    UNIVERSE,
    AddressType,
    Field,
)
from policylang.packets.values import Ranges, name_range

NOWHERE = Ranges.of(0)  # the name of no interface
_REAL = NAMES - NOWHERE - Ranges((name_range("lo"),))
_SYN = Ranges.of(0x02, 0xC2)  # RFC 9293; with ECE and CWR where ECN is offered (RFC 3168)
_DISCOVERY = Ranges.between(133, 137)  # RFC 4861: from next door alone
_ND_HOP_LIMIT = 255
_BETWEEN_TWO = Ranges.of(TCP, SCTP, DCCP)  # which are spoken with one machine at a time
_LOCAL = Ranges.of(AddressType.LOCAL)
_UNICAST = Ranges.of(AddressType.UNICAST)
_GROUPS = Ranges.of(AddressType.BROADCAST, AddressType.MULTICAST)

# What is taken for granted, and so never told of packets that are.
GRANTED = frozenset(
    {
        *(Field.CT_STATE, Field.CT_DIRECTION, Field.CT_HELPER, Field.EXPECTED, Field.DNATED),
        *(Field.TCP_FLAGS, Field.HOP_LIMIT, Field.SADDR_TYPE, Field.REVERSE_PATH),
        *(Field.SOURCE_ROUTED, Field.ANSWER, Field.TO_ASKER, Field.IPSEC_OUT),
        *(Field.ORIG_DADDR, Field.ORIG_DPORT),
    }
)


def first_packets(space: Space) -> Mapping[Path, Packets]:
    """What begins connections, by whom it is for: OIF is no interface of what is for this host."""
    plain = _granted(space)
    between_two = space.of(Cube.of({Field.L4PROTO: _BETWEEN_TWO}))
    others = space.everything - between_two
    arriving = plain & _of(
        space,
        {
            Field.IIF: _REAL,
            Field.SADDR_TYPE: _UNICAST,
            Field.REVERSE_PATH: Ranges.of(1),
            Field.SOURCE_ROUTED: Ranges.of(0),
        },
    )
    of_type = {
        kinds: _of(space, {Field.DADDR_TYPE: kinds})
        for kinds in (_LOCAL, _UNICAST, _LOCAL | _GROUPS, _UNICAST | _GROUPS)
    }
    to_groups = _of(
        space, {Field.DADDR: multicast(), Field.DADDR_TYPE: Ranges.of(AddressType.MULTICAST)}
    )
    here, away = _of(space, {Field.OIF: NOWHERE}), _of(space, {Field.OIF: _REAL})
    own = _of(space, {Field.IIF: NOWHERE, Field.SADDR_TYPE: _LOCAL, Field.IPSEC: Ranges.of(0)})
    return {
        Path.INPUT: arriving
        & here
        & ((between_two & of_type[_LOCAL]) | (others & of_type[_LOCAL | _GROUPS])),
        Path.FORWARD: arriving & away & (of_type[_UNICAST] | (others & to_groups)),
        Path.OUTPUT: plain
        & own
        & away
        & ((between_two & of_type[_UNICAST]) | (others & of_type[_UNICAST | _GROUPS])),
    }


def _granted(space: Space) -> Packets:
    """Packets of which all that is taken for granted holds, whichever way they go."""
    nothing_before = _of(
        space,
        {
            Field.CT_HELPER: Ranges.of(0),
            Field.ANSWER: Ranges.of(0),
            Field.TO_ASKER: Ranges.of(0),
            Field.EXPECTED: Ranges.of(0),
            Field.DNATED: Ranges.of(0),
            Field.IPSEC_OUT: Ranges.of(0),
        },
    )
    no_tcp = _of(space, {Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(TCP)})
    opening = no_tcp | _of(space, {Field.L4PROTO: Ranges.of(TCP), Field.TCP_FLAGS: _SYN})
    discovery = _of(space, {Field.ICMPV6_TYPE: _DISCOVERY, Field.L4PROTO: Ranges.of(ICMPV6)})
    next_door = _of(space, {Field.HOP_LIMIT: Ranges.of(_ND_HOP_LIMIT)})
    return nothing_before & opening & ((space.everything - discovery) | next_door)


def _of(space: Space, terms: dict[Field, Ranges]) -> Packets:
    return space.of(Cube.of(terms))
