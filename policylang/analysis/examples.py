"""One packet of a set, such that what is asked of its addresses' bits is so."""

from __future__ import annotations

from itertools import product

from policylang.analysis.diagram import Packets
from policylang.analysis.machine import Condition, MaskIs
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import V6_BASE, Ranges

MOST_ASKED = 4  # questions about bits that are tried, each with both answers


def example_of(packets: Packets, exact: Packets) -> dict[Field, int]:
    """A packet of a set that is not empty, as ordinary as it can be.

    `exact` are the same with the answers for which it is so. Sets in ranges cannot say what bits an
    address has, so that is asked as a question, and the answer has to fit the address.
    """
    space = packets.space
    asked = [q for q in exact.questions() if isinstance(q, MaskIs)][:MOST_ASKED]
    for answers in product((True, False), repeat=len(asked)) if asked else ():
        some = exact
        for question, holds in zip(asked, answers, strict=True):
            some &= space.answered(Condition(question, holds))
        found = (some & packets).witness()
        if found is None:
            continue
        for question, holds in zip(asked, answers, strict=True):
            found = _fitted(found, question, holds=holds)
        fits = all(_holds(found, q) is h for q, h in zip(asked, answers, strict=True))
        if fits and some.meets(space.of(Cube.of({f: Ranges.of(v) for f, v in found.items()}))):
            return found
    plain = packets.witness()
    assert plain is not None, "a set that is not empty"
    return plain


def _holds(packet: dict[Field, int], question: MaskIs) -> bool:
    address = packet.get(question.field, 0)
    return address >= V6_BASE and (address - V6_BASE) & question.mask == question.value


def _fitted(packet: dict[Field, int], question: MaskIs, *, holds: bool) -> dict[Field, int]:
    """The packet with the bits that an answer needs."""
    if packet.get(question.field, 0) < V6_BASE or _holds(packet, question) is holds:
        return packet
    address = packet[question.field] - V6_BASE
    if holds:
        address = address & ~question.mask | question.value
    else:
        address ^= question.mask & -question.mask
    return {**packet, question.field: V6_BASE + address}
