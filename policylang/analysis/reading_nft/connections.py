"""What matches read of a packet's connection; a packet without one fails them."""

from __future__ import annotations

from policylang.analysis.machine import ConnectionMarkIs
from policylang.analysis.reading_nft import kinds, words
from policylang.analysis.reading_nft.boxes import Box, outside
from policylang.analysis.reading_nft.cases import (
    ALWAYS,
    Case,
    Cases,
    NotUnderstoodError,
    both,
    of_cube,
    unknown,
)
from policylang.analysis.reading_nft.headers import NOT_PORTED, OF_FAMILY
from policylang.analysis.reading_nft.kinds import Kind
from policylang.analysis.reading_nft.listing import Json
from policylang.analysis.reading_nft.selectors import Selector, mapped, of_field, of_word
from policylang.packets.cube import Cube
from policylang.packets.fields import NAMES, Field, State
from policylang.packets.values import Ranges

TRACKED = Cube.of({Field.CT_STATE: Ranges.of(State.NEW, State.ESTABLISHED, State.RELATED)})
STATES = {
    words.STATE_BITS["new"]: State.NEW,
    words.STATE_BITS["established"]: State.ESTABLISHED,
    words.STATE_BITS["related"]: State.RELATED,
    words.STATE_BITS["invalid"]: State.INVALID,
    words.STATE_BITS["untracked"]: State.UNTRACKED,
}
SOME_HELPER = Kind(NAMES - Ranges.of(0), kinds.NAME.read, 128)  # the empty name is none


def connection(key: str, direction: str, family: str) -> Selector:
    """A selector of `ct`, in a table of a family; raises NotUnderstoodError."""
    said = " ".join(filter(None, ("ct", direction, key)))
    match direction, key:
        case "", "state":
            numbers = {bit: int(state) for bit, state in STATES.items()}
            return mapped(said, kinds.STATE, numbers, Field.CT_STATE, are_bits=True)
        case "", "direction":
            return of_field(said, kinds.DIRECTION, Field.CT_DIRECTION, TRACKED)
        case "", "mark":
            return of_word(said, kinds.NUMBER, ConnectionMarkIs, TRACKED)
        case "", "helper":
            # Of a connection that a helper predicted; any other one fails every test.
            return of_field(said, SOME_HELPER, Field.CT_HELPER, A_HELPER)
        case "original", "ip daddr":
            return of_field(said, kinds.V4, Field.ORIG_DADDR, TRACKED & OF_FAMILY[4])
        case "original", "ip6 daddr":
            return of_field(said, kinds.V6, Field.ORIG_DADDR, TRACKED & OF_FAMILY[6])
        case "original", "daddr" if family in ("ip", "ip6"):
            return connection(f"{family} daddr", direction, family)
        case "original", "proto-dst":
            field = Field.ORIG_DPORT
            return of_field(said, kinds.PORT, field, TRACKED, elsewhere=NOT_PORTED)
    raise NotUnderstoodError(said, TRACKED)


A_HELPER = Cube.of({Field.CT_HELPER: SOME_HELPER.universe})

# --- the status, of which no field holds all bits -----------------------------------------------

STATUS_FIELDS = {
    words.STATUS_BITS["expected"]: Field.EXPECTED,
    words.STATUS_BITS["dnat"]: Field.DNATED,
}
STATUS_WORDS = {bit: word for word, bit in words.STATUS_BITS.items()}
EITHER = Ranges.of(0, 1)


def status(operator: str, mask: int | None, said: Json, text: str) -> Cases:
    """A match of `ct status`, under a mask if it has one; raises NotUnderstoodError."""
    number = kinds.STATUS.number(said)
    match operator, mask:
        case "in", None:
            mask, number, operator = number, 0, "!="
        case "!", None:
            mask, number, operator = number, 0, "=="
    if mask is None or operator not in ("==", "!="):
        raise NotUnderstoodError(text, TRACKED)  # the whole status, which has many more bits
    bits = [1 << n for n in range(mask.bit_length()) if mask >> n & 1]
    if number & ~mask:
        return of_cube(TRACKED) if operator == "!=" else ()
    wanted: Box = tuple(Ranges.of(1 if number & bit else 0) for bit in bits)
    boxes = [wanted] if operator == "==" else outside([wanted], (EITHER,) * len(bits))
    return tuple(case for box in boxes for case in _of_bits(bits, box))


def _of_bits(bits: list[int], box: Box) -> Cases:
    """The packets of connections whose status has each of some bits as a box says."""
    found: Cases = (Case(TRACKED),)
    for bit, values in zip(bits, box, strict=True):
        found = both(found, ALWAYS if values == EITHER else _bit(bit, values))
    return found


def _bit(bit: int, values: Ranges) -> Cases:
    if bit in STATUS_FIELDS:
        return of_cube(Cube.of({STATUS_FIELDS[bit]: values}))
    return unknown(f"ct status {STATUS_WORDS.get(bit, f'{bit:#x}')}", holds=1 in values)
