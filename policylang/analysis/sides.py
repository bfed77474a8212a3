"""What one machine does with all packets, in pieces that are decided alike, as the packets came.

Two machines that are followed in one space can be compared piece by piece: questions of the same
words are the same question, whatever chain asks them and whatever number a policy gives to them.
It knows nothing of the other machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

from policylang.analysis.deeds import Part
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import DELIVERED, LOCAL, Fate, Follower, Met
from policylang.analysis.machine import AddTo, CopyMark, Hook, Line, Machine, Obscure
from policylang.analysis.possible import Possible
from policylang.ir import actions as ir
from policylang.ir.actions import Answer, Translation, TransparentProxy
from policylang.ir.origin import Origin, Why
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, Field, State
from policylang.packets.values import Ranges, name_range

# What readers put behind the place of a rule that has a comment of ours: `FILE:LINE statement`.
_OF_STATEMENT = re.compile(r"(?:: |\()(\S+:\d+ [^()]*)\)?$")


class Way(StrEnum):
    """Whom a packet is addressed to when it comes, or that it is this host's own."""

    INBOUND = "inbound"
    FORWARD = "forward"
    OUTBOUND = "outbound"


class Verdict(StrEnum):
    """What becomes of a packet."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Decider:
    """The statements that decide, or where no statement is known the place of the rule.

    Two are equal if they are the same statement of one text, or the same place.
    """

    key: tuple[object, ...]
    origins: tuple[Origin, ...] = field(default=(), compare=False)
    place: str = field(default="", compare=False)

    @classmethod
    def of(cls, line: Line | None) -> Decider:
        """Who decides by a line; of None, the policy of the last base chain."""
        if line is None:
            return cls(("policy",))
        # What makes no statement's rule stands beside those that do: it says nothing here.
        origins = tuple(o for o in line.origins if o.span is not None) or line.origins
        if not origins:
            # The rules of one statement, of both families say, are told apart by their place alone.
            comment = _OF_STATEMENT.search(line.place)
            key = ("place", line.place) if comment is None else ("comment", comment[1])
            return cls(key, (), line.place)
        spans = (
            (o.why if o.span is None else "", o.span and (o.span.file.name, o.span.start))
            for o in origins
        )
        return cls(tuple(dict.fromkeys(spans)), origins, line.place)

    @property
    def is_default(self) -> bool:
        """Whether nothing decided but the end of the rules."""
        return self.key == ("policy",) or any(o.why is Why.DEFAULT for o in self.origins)


@dataclass(frozen=True, slots=True)
class Piece:
    """Packets, as they came, that are decided alike and sent to the same place.

    `sent` is what translated their destination, `source` what gives them another source as they
    leave, each with who said so. `is_screened`: they are denied before they are routed.
    """

    packets: Packets
    verdict: Verdict
    answer: Answer | None
    decider: Decider
    sent: Translation | TransparentProxy | None = None
    sender: Decider | None = None
    source: Translation | None = None
    sourcer: Decider | None = None
    is_screened: bool = False


@dataclass(frozen=True, slots=True)
class Ways:
    """What becomes of the packets of a way; `done` are lines that did more to them than decide."""

    pieces: tuple[Piece, ...]
    done: tuple[Met, ...]


class Side:
    """One machine, followed in a space that it shares with another."""

    def __init__(self, machine: Machine, space: Space) -> None:
        self.machine = machine
        self.space = space
        self.follower = Follower(machine, space)
        acts = {type(line.act) for chain in machine.chains.values() for line in chain}
        self.changes_dscp = ir.SetDscp in acts
        self.changes_mark = bool(acts & {ir.SetMark, CopyMark, TransparentProxy})
        self.changes_connection_mark = bool(acts & {ir.SetConnectionMark, CopyMark})

    @cached_property
    def _lines(self) -> dict[Decider, list[Line]]:
        found: dict[Decider, list[Line]] = {}
        for chain in self.machine.chains.values():
            for line in chain:
                found.setdefault(Decider.of(line), []).append(line)
        return found

    def lines_of(self, deciders: Iterable[Decider]) -> list[Line]:
        """The lines that statements made, wherever they stand."""
        return [line for decider in deciders for line in self._lines.get(decider, ())]

    def domain(self, way: Way) -> Packets:
        """The packets that there are on a way, whatever state they are in."""
        space = self.space
        match way:
            case Way.INBOUND:
                known = {Field.DADDR_TYPE: DELIVERED, Field.OIF: NOWHERE, Field.IPSEC_OUT: NO}
            case Way.FORWARD:
                real = UNIVERSE[Field.IIF] - NOWHERE - LOOPBACK
                known = {
                    Field.DADDR_TYPE: UNIVERSE[Field.DADDR_TYPE] - LOCAL,
                    Field.IIF: real,
                    Field.OIF: real,
                }
            case Way.OUTBOUND:
                known = {Field.IIF: NOWHERE, Field.IPSEC: NO}
        possible = Possible(space)((_LAST[way], Part.BEHIND))
        there = space.everything - space.of(Cube.of({_INTERFACES[way]: NOWHERE}))
        return possible & there & space.of(Cube.of(known))

    # --- first packets ------------------------------------------------------------------------

    def first(self, way: Way) -> Ways:
        """What becomes of the first packets of connections on a way.

        What goes to a group (broadcast, multicast) goes two ways: to this host, and through it.
        """
        domain = self.domain(way)
        match way:
            case Way.INBOUND:
                journey = self.follower.arriving(domain, Path.INPUT)
            case Way.FORWARD:
                journey = self.follower.arriving(domain, Path.FORWARD)
            case Way.OUTBOUND:
                journey = self.follower.leaving(domain)
        pieces = tuple(piece for fate in journey.fates for piece in self._pieces(fate))
        return Ways(pieces, tuple(self._done(journey.met, self._first_as_it_came)))

    def _pieces(self, fate: Fate) -> Iterator[Piece]:
        packets = fate.entered
        if not packets:
            return
        verdict, answer = _verdict(fate.line, accepts=fate.is_accepted)
        whole = Piece(
            packets,
            verdict,
            answer,
            Decider.of(fate.line),
            is_screened=not fate.is_accepted and fate.hook is Hook.PREROUTING,
        )
        by = None
        if fate.translated is not None:
            act = fate.translated.act
            assert isinstance(act, Translation | TransparentProxy)
            whole = replace(whole, sent=act, sender=Decider.of(fate.translated))
            by = Met(fate.translated, fate.entered)
        for met in fate.sources:
            if translated := self.follower.as_entered(met.packets, by) & packets:
                act = met.line.act
                assert isinstance(act, Translation)
                sourcer = Decider.of(met.line)
                yield replace(whole, packets=translated, source=act, sourcer=sourcer)
                packets -= translated
        if packets:
            yield replace(whole, packets=packets)

    # --- packets of all states----------------------------------------------------------------

    def others(self, way: Way) -> Ways:
        """The same of all packets of a way, whatever state they are in, as rules see them.

        Their addresses are those that translation left them; it is not followed here.
        """
        return self._through(_HOOKS[way], self.domain(way))

    def _through(self, hooks: tuple[Hook, ...], packets: Packets) -> Ways:
        union = self.space.union
        denied: list[tuple[Packets, Line | None, Hook]] = []
        all_met: list[Met] = []
        coming = self.space.remembering(packets, Field.DSCP) if self.changes_dscp else packets
        live: list[tuple[Packets, Line | None]] = [(coming, None)]
        for base in (base for hook in hooks for base in self.machine.on(hook) if not base.is_nat):
            reading = self.follower.read(base, union(one for one, _ in live))
            all_met += reading.met
            denying = [
                (m.packets, m.line, base.hook) for m, accepts in reading.decisions if not accepts
            ]
            denied += denying
            if base.drops and (left := reading.denied - union(one for one, _, _ in denying)):
                denied.append((left, None, base.hook))
            after: list[tuple[Packets, Line | None]] = [
                (m.packets, m.line)
                for m, accepts in reading.decisions
                if accepts and isinstance(m.line.act, ir.Accept | ir.Queue | Obscure)
            ]
            rest = reading.passed - union(one for one, _ in after)
            for one, line in live:
                if not rest:
                    break
                after.append((one & rest, line))
                rest -= one
            after.append((rest, None))  # packets that a line changed on their way
            live = [(one, line) for one, line in after if one]
        pieces = [
            Piece(self._as_it_came(one), Verdict.ACCEPTED, None, Decider.of(line))
            for one, line in live
        ]
        for one, line, hook in denied:
            verdict = _verdict(line, accepts=False)
            is_screened = hook is Hook.PREROUTING
            came, decider = self._as_it_came(one), Decider.of(line)
            pieces.append(Piece(came, *verdict, decider, is_screened=is_screened))
        return Ways(tuple(pieces), tuple(self._done(all_met, self._as_it_came)))

    def _done(self, all_met: Iterable[Met], came: Callable[[Packets], Packets]) -> Iterator[Met]:
        """Of the lines that packets met, those that did something to them and let them go on."""
        for met in all_met:
            if isinstance(met.line.act, EFFECTS):
                yield Met(met.line, came(met.packets))

    def _first_as_it_came(self, packets: Packets) -> Packets:
        """First packets as they came, but for where a translation sent them."""
        new = self.space.of(Cube.of({Field.CT_STATE: Ranges.of(State.NEW)}))
        return self.follower.as_entered(packets, None) & new

    def _as_it_came(self, packets: Packets) -> Packets:
        """Packets with the code point and the mark that they came with, whatever became of them."""
        if self.changes_mark:
            packets = self.space.recalling(packets, None)
        if self.changes_connection_mark:
            packets = self.space.free_of_marks(packets, of_packet=False)
        return self.space.recalling(packets, Field.DSCP) if self.changes_dscp else packets


EFFECTS = (
    *(ir.Log, ir.AssignHelper, ir.SetMark, ir.SetConnectionMark, ir.SetDscp, ir.AddToSet, AddTo),
    *(ir.ClampMss, ir.Offload, ir.Untrack),
)
NO, NOWHERE = Ranges.of(0), Ranges.of(0)
LOOPBACK = Ranges((name_range("lo"),))
_HOOKS = {
    Way.INBOUND: (Hook.PREROUTING, Hook.INPUT),
    Way.FORWARD: (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING),
    Way.OUTBOUND: (Hook.OUTPUT, Hook.POSTROUTING),
}
_LAST = {Way.INBOUND: Hook.INPUT, Way.FORWARD: Hook.FORWARD, Way.OUTBOUND: Hook.OUTPUT}
_INTERFACES = {Way.INBOUND: Field.IIF, Way.FORWARD: Field.IIF, Way.OUTBOUND: Field.OIF}


def _verdict(line: Line | None, *, accepts: bool) -> tuple[Verdict, Answer | None]:
    if accepts:
        return Verdict.ACCEPTED, None
    if line is not None and isinstance(line.act, ir.Reject):
        return Verdict.REJECTED, line.act.answer
    return Verdict.DROPPED, None
