"""Proves what tests expect of packets: for every packet that they describe, or for one at least.

It knows neither the command line nor conversations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policylang.analysis.diagram import Packets
from policylang.analysis.following import Fate
from policylang.analysis.machine import Condition, Line, Obscure
from policylang.analysis.questions import Beginnings, Piece, Pieces, is_answered
from policylang.ir import actions as ir
from policylang.lower.asked import Asked
from policylang.model.expectations import PacketExpectation, Wanted
from policylang.model.types import RejectWith
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UNIVERSE, Field
from policylang.packets.values import Ranges


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A packet of which something else is true than was expected, and why.

    `piece` is what became of it, of some only on `conditions`; `otherwise` decides if not.
    """

    packet: dict[Field, int]
    piece: Piece
    conditions: tuple[Condition, ...] = ()
    otherwise: Line | None = None

    @property
    def line(self) -> Line | None:
        return self.piece.fate.line


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether an expectation holds; there is no counterexample where it describes no packet."""

    holds: bool
    counterexample: Counterexample | None = None


def proved(expectation: PacketExpectation, asked: Asked, beginnings: Beginnings) -> Proof:
    """Whether what is expected of packets is so, whatever the open questions are answered.

    Of `some`, one packet that may have that fate is enough.
    """
    return judged(expectation, beginnings.pieces(asked), beginnings)


def judged(expectation: PacketExpectation, found: Pieces, beginnings: Beginnings) -> Proof:
    """The same of packets of which it is known what became of them."""
    space = beginnings.space
    if not found.asked:
        return Proof(False)
    right, wrong = _sorted(expectation, found, beginnings)
    as_expected = space.may(space.union(piece.packets for piece in right))
    if expectation.is_some:
        if as_expected:
            return Proof(True)
        return Proof(False, _counterexample(wrong, right, beginnings))
    if not any(space.may(piece.packets) for piece in wrong):
        return Proof(True)
    return Proof(False, _counterexample(wrong, right, beginnings))


def _sorted(
    expectation: PacketExpectation, found: Pieces, beginnings: Beginnings
) -> tuple[list[Piece], list[Piece]]:
    """The packets with the fate that is expected, and those with another."""
    right: list[Piece] = []
    wrong: list[Piece] = []
    for piece in found.pieces:
        part = piece.packets & _expected(expectation, piece.fate, beginnings)
        if part:
            right.append(replace(piece, packets=part))
        if rest := piece.packets - part:
            wrong.append(replace(piece, packets=rest))
    return right, wrong


def _expected(expectation: PacketExpectation, fate: Fate, beginnings: Beginnings) -> Packets:
    """Which packets with a fate are as expected."""
    space = beginnings.space
    match expectation.wanted:
        case Wanted.ALLOW:
            holds = fate.is_accepted
        case Wanted.DENY:
            holds = not fate.is_accepted
        case Wanted.DROP:
            holds = not fate.is_accepted and not is_answered(fate)
        case Wanted.REJECT:
            holds = is_answered(fate)
            if holds and expectation.answer is not None:
                return space.of_all(_answered_so(fate, expectation.answer))
    return space.everything if holds else space.nothing


def _answered_so(fate: Fate, wanted: RejectWith) -> Iterable[Cube]:
    """The packets to which a fate gives the answer that is expected."""
    assert fate.line is not None
    assert isinstance(fate.line.act, ir.Reject)
    answer, tcp = fate.line.act.answer.value, Ranges.of(TCP)
    if answer == wanted.tcp.value:
        yield Cube.of({Field.L4PROTO: tcp})
    if answer == wanted.other.value:
        yield Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - tcp})


def _counterexample(
    wrong: list[Piece], right: list[Piece], beginnings: Beginnings
) -> Counterexample | None:
    """A packet that shows it, as plain as can be: one with that fate for certain, if any."""
    space = beginnings.space
    packets = space.may(space.union(piece.packets for piece in wrong))
    certain = packets - space.may(space.union(piece.packets for piece in right))
    packet = (certain or packets).witness(beginnings.plausible)
    if packet is None:
        return None
    one = space.of(Cube.of({f: Ranges.of(v) for f, v in packet.items()}))
    # What is known to decide says more than what may.
    known = sorted(wrong, key=lambda piece: _is_obscure(piece.fate.line))
    piece = next(piece for piece in known if piece.packets.meets(one))
    if certain:
        return Counterexample(packet, piece)
    conditions = beginnings.conditions_of(piece.packets & one)
    others = sorted(right, key=lambda piece: _is_obscure(piece.fate.line))
    otherwise = next(other for other in others if other.packets.meets(one))
    return Counterexample(packet, piece, conditions, otherwise.fate.line)


def _is_obscure(line: Line | None) -> bool:
    return line is not None and isinstance(line.act, Obscure)
