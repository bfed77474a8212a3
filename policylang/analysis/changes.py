"""What rules made of a packet on its way: its marks, its code point, the sets it was put into.

Packets are told by what they were when they came, and a line asks what they are now. What lies
between is a value of this module, so that two ways of doing the same are equal. It knows no rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from policylang.analysis.machine import (
    AddTo,
    Condition,
    ConnectionMarkIs,
    CopyMark,
    InSet,
    MarkIs,
    Unknown,
)
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import Field, State


@dataclass(frozen=True, slots=True)
class Bits:
    """What is known of a 32-bit word: its bits under `mask` are those of `value`.

    Those under `copied` came from another word, and nobody knows here what they are.
    """

    value: int = 0
    mask: int = 0
    copied: int = 0

    def then(self, value: int, mask: int) -> Bits:
        """What is known once the bits under `mask` became `value`."""
        return Bits(self.value & ~mask | value & mask, self.mask | mask, self.copied & ~mask)

    def from_other(self, other: Bits, mask: int) -> Bits:
        """What is known once the bits under `mask` became those of another word."""
        known = self.then(other.value, mask & other.mask)
        unknown = mask & ~other.mask
        return Bits(known.value & ~unknown, known.mask & ~unknown, known.copied | unknown)


NO_BITS = Bits()


@dataclass(frozen=True, slots=True)
class Put:
    """An element of the values of these fields was put into a set, for so long."""

    name: str
    fields: tuple[Field, ...]
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    """How a packet differs from what it was when it came; `puts` are sorted, one an element."""

    mark: Bits = NO_BITS
    connection_mark: Bits = NO_BITS
    code: int | None = None
    is_untracked: bool = False
    puts: tuple[Put, ...] = ()

    def after(self, act: object) -> Changes:
        """The changes once a packet met `act` as well."""
        match act:
            case ir.SetMark(value, mask) | ir.TransparentProxy(value=value, mask=mask):
                return replace(self, mark=self.mark.then(value, mask))
            case ir.SetConnectionMark(value, mask):
                return replace(self, connection_mark=self.connection_mark.then(value, mask))
            case CopyMark(to_connection, mask):
                mark, kept = self.mark, self.connection_mark
                if to_connection:
                    return replace(self, connection_mark=kept.from_other(mark, mask))
                return replace(self, mark=mark.from_other(kept, mask))
            case ir.SetDscp(code):
                return replace(self, code=code)
            case ir.Untrack():
                return replace(self, is_untracked=True)
            case AddTo(name, fields, timeout_s):
                others = (p for p in self.puts if (p.name, p.fields) != (name, fields))
                puts = sorted((*others, Put(name, fields, timeout_s)), key=_order)
                return replace(self, puts=tuple(puts))
            case _:
                return self

    def cube(self, cube: Cube) -> Cube | None:
        """The packets, as they came, that are now in `cube`; None where none can be."""
        if self.code is not None and Field.DSCP in cube:
            if self.code not in cube[Field.DSCP]:
                return None
            cube = cube.without(Field.DSCP)
        if self.is_untracked and Field.CT_STATE in cube:
            if State.UNTRACKED not in cube[Field.CT_STATE]:
                return None
            cube = cube.without(Field.CT_STATE)
        return cube

    def conditions(self, conditions: tuple[Condition, ...]) -> tuple[Condition, ...] | None:
        """What is asked of packets as they came; None where the answer is not the one wanted."""
        asked: list[Condition] = []
        for condition in conditions:
            for left in self._asked(condition):
                if left is None:
                    return None
                asked.append(left)
        return tuple(asked)

    def _asked(self, condition: Condition) -> Iterator[Condition | None]:
        """The condition as far as it is open; None where it does not hold."""
        match condition.question:
            case MarkIs(mask=mask) if mask & self.mark.copied:
                yield _unknown(condition)
            case ConnectionMarkIs(mask=mask) if mask & self.connection_mark.copied:
                yield _unknown(condition)
            case MarkIs(value, mask):
                yield from _open(condition, value, mask, self.mark, MarkIs)
            case ConnectionMarkIs(value, mask):
                yield from _open(condition, value, mask, self.connection_mark, ConnectionMarkIs)
            case InSet(name, fields) if any(
                (p.name, p.fields) == (name, fields) for p in self.puts
            ):
                if not condition.holds:
                    yield None
            case _:
                yield condition


UNCHANGED = Changes()


def _unknown(condition: Condition) -> Condition:
    return Condition(Unknown(f"{condition.question} of a mark that was copied"), condition.holds)


def _open(
    condition: Condition,
    value: int,
    mask: int,
    known: Bits,
    question: type[MarkIs] | type[ConnectionMarkIs],
) -> Iterator[Condition | None]:
    both = mask & known.mask
    is_refuted = value & both != known.value & both
    left = mask & ~known.mask
    if is_refuted or not left:
        if is_refuted == condition.holds:
            yield None
        return
    yield Condition(question(value & left, left), condition.holds)


def _order(put: Put) -> tuple[str, tuple[Field, ...]]:
    return put.name, put.fields
