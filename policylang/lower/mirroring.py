"""The answers to packets: what has source and destination the other way round.

Knows no statement. What answers do not tell of the packets that they answer is refused, never
left out.
"""

from __future__ import annotations

from policylang.ir.stages import Path
from policylang.lower.paths import multicast
from policylang.packets.cube import EMPTY, Cube
from policylang.packets.fields import DADDR_TESTS, SADDR_TESTS, AddressType, Field
from policylang.packets.values import Ranges

# What the answers of a connection have in place of what its questions have.
TURNED: dict[Field, Field] = {
    Field.IIF: Field.OIF,
    Field.OIF: Field.IIF,
    Field.SADDR: Field.DADDR,
    Field.DADDR: Field.SADDR,
    Field.SPORT: Field.DPORT,
    Field.DPORT: Field.SPORT,
    Field.FAMILY: Field.FAMILY,
    Field.L4PROTO: Field.L4PROTO,
    **dict(zip(SADDR_TESTS, DADDR_TESTS, strict=True)),
    **dict(zip(DADDR_TESTS, SADDR_TESTS, strict=True)),
}
TURNED_PATH = {Path.INPUT: Path.OUTPUT, Path.OUTPUT: Path.INPUT, Path.FORWARD: Path.FORWARD}

# RFC 792 (echo, timestamp, information), RFC 950 (address mask); RFC 4443, RFC 4620.
ANSWERS: dict[Field, dict[int, int]] = {
    Field.ICMP_TYPE: {8: 0, 13: 14, 15: 16, 17: 18},
    Field.ICMPV6_TYPE: {128: 129, 139: 140},
}
ONE_MACHINE = Ranges.of(AddressType.UNICAST, AddressType.LOCAL)


def untold(cube: Cube) -> tuple[Field, ...]:
    """The fields of a cube of which answers to its packets do not tell."""
    told = (*TURNED, *ANSWERS, Field.DADDR_TYPE)
    return tuple(f for f in cube.fields if f not in told)


def mirrored(cube: Cube) -> Cube:
    """The answers to the packets of a cube, in all that tells them; EMPTY where nobody answers.

    Groups send nothing, and most types of ICMP have no answer. Raises ValueError where answers
    do not tell of a field (`untold`).
    """
    if fields := untold(cube):
        raise ValueError(f"answers do not tell of {', '.join(f.name for f in fields)}")
    if not cube[Field.DADDR_TYPE].meets(ONE_MACHINE):
        return EMPTY
    terms: dict[Field, Ranges] = {}
    for field, values in cube.without(Field.DADDR_TYPE):
        if field in ANSWERS:
            answers = ANSWERS[field]
            terms[field] = Ranges.of(*(answers[n] for n in answers if n in values))
        elif field is Field.DADDR:
            terms[TURNED[field]] = values - multicast()
        else:
            terms[TURNED[field]] = values
    return Cube.of(terms)
