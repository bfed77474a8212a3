"""What conntrack says of packets, as cubes; knows no statement."""

from __future__ import annotations

from policylang.model.types import Helper
from policylang.packets.cube import Cube
from policylang.packets.fields import ICMPV6, UNIVERSE, Field, FlowDirection, State
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges, name_range

# Packets of connections, by the way they go: INVALID and UNTRACKED ones go neither.
ORIGINAL = Cube.of({Field.CT_DIRECTION: Ranges.of(FlowDirection.ORIGINAL)})
REPLY = Cube.of({Field.CT_DIRECTION: Ranges.of(FlowDirection.REPLY)})

# Connections that a helper predicted, and all others.
EXPECTED = Cube.of({Field.EXPECTED: Ranges.of(1)})
NOT_EXPECTED = Cube.of({Field.EXPECTED: Ranges.of(0)})

# Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810), which
# conntrack leaves alone (icmpv6_error of nf_conntrack_proto_icmpv6.c).
LEFT_ALONE = Ranges.of(130, 131, 132, 133, 134, 135, 136, 143)

# RFC 792; never redirects (5).
ICMP_ERRORS = Ranges.of(3, 11, 12)
# RFC 4443: destination unreachable, packet too big, time exceeded, parameter problem.
ICMPV6_ERRORS = Ranges.of(1, 2, 3, 4)


def state(*states: State) -> Cube:
    """The packets in one of these states."""
    return Cube.of({Field.CT_STATE: Ranges.of(*states)})


def without_connection(cube: Cube, *, names_icmp: bool) -> tuple[Cube, ...]:
    """The packets of a cube that conntrack was told to leave alone.

    What the network itself needs is not among them, unless a statement names types of ICMP.
    """
    untracked = cube & state(State.UNTRACKED)
    if names_icmp or ICMPV6 not in untracked[Field.L4PROTO] or 6 not in untracked[Field.FAMILY]:
        return (untracked,)
    octet = UNIVERSE[Field.L4PROTO]
    six = Ranges.of(6)
    return compact(
        untracked & kind
        for kind in (
            Cube.of({Field.FAMILY: Ranges.of(4)}),
            Cube.of({Field.FAMILY: six, Field.L4PROTO: octet - Ranges.of(ICMPV6)}),
            Cube.of({Field.ICMPV6_TYPE: octet - LEFT_ALONE}),
        )
    )


def icmp_errors() -> tuple[Cube, Cube]:
    """What says that a packet did not arrive, of IPv4 and of IPv6."""
    return (
        Cube.of({Field.ICMP_TYPE: ICMP_ERRORS}),
        Cube.of({Field.ICMPV6_TYPE: ICMPV6_ERRORS}),
    )


def predicted_by(helper: Helper) -> Cube:
    """The packets of connections that a helper predicted, whichever way they go."""
    names = Ranges.merged(name_range(name) for name in helper.matches)
    return Cube.of({Field.CT_HELPER: names, Field.FAMILY: helper.families})
