"""What two machines do differently with which packets: over all packets, not rule by rule.

Both are followed in one space of packets, where equal sets are one and the same. What was only
renamed, reordered or laid out anew is no difference. It knows neither where the machines come
from nor how a difference is told.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations

from policylang.analysis.changed import Change, Differences, Fate, Kind, Shown
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.effects import exchanges
from policylang.analysis.examples import example_of
from policylang.analysis.first_packets import GRANTED, first_packets
from policylang.analysis.judged import Judged
from policylang.analysis.machine import (
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    CopyMark,
    Line,
    Machine,
    MarkIs,
    NotAfter,
    Obscure,
    Question,
    RateHolds,
    Unknown,
)
from policylang.analysis.passing import Met
from policylang.analysis.regions import region_of
from policylang.analysis.sides import Decider, Piece, Side, Verdict, Way, Ways
from policylang.ir import actions as ir
from policylang.ir.actions import Answer, Translation, TransparentProxy
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, UNIVERSE, AddressType, Field, FlowDirection, State
from policylang.packets.values import Ranges


def differences(before: Machine, after: Machine, space: Space) -> Differences:
    """What `after` does otherwise than `before`; raises `TooLargeError`.

    Sets that are filled at run time are told apart by name: both machines call them alike.
    """
    comparison = _Comparison(Side(before, space), Side(after, space), space)
    found = list(comparison.changes())
    kinds = list(Kind)
    found.sort(
        key=lambda one: (
            kinds.index(one.kind),
            not one.is_first,
            not one.is_plain,
            -one.packets.share,
            one.way,
        )
    )
    return Differences(tuple(found), comparison.exact)


class _Comparison:
    def __init__(self, old: Side, new: Side, space: Space) -> None:
        self.old, self.new, self.space = old, new, space
        self.valid = space.everything  # the answers that go together
        self.honest = first_packets(space)
        self.exact: dict[tuple[Way, bool], tuple[Packets, Packets]] = {}
        self.invalid: dict[Way, Packets] = {}  # those INVALID packets that fare otherwise
        lines = [
            line for one in (old, new) for chain in one.machine.chains.values() for line in chain
        ]
        asked = [type(c.question) for line in lines for c in line.conditions]
        acts = {type(line.act) for line in lines}
        sent = (line.act.targets for line in lines if isinstance(line.act, ir.DestinationNat))
        self.targets = Ranges.merged(pair for targets in sent for pair in targets)
        self.has_marks = bool({MarkIs, ConnectionMarkIs} & {*asked} or acts & _MARKING)
        self.has_questions = bool(asked or acts & {Obscure, ir.Queue})

    def changes(self) -> Iterator[Change]:
        for way in Way:
            domain = self.old.domain(way)
            begin = domain & self.space.of(BEGIN)
            first = self.old.first(way), self.new.first(way)
            self.valid = self._valid()
            yield from _Way(self, way, *first, begin, is_first=True).told()
            others = self.old.others(way), self.new.others(way)
            self.valid = self._valid()
            yield from _Way(self, way, *others, domain, is_first=False).told()

    def judged(self, ways: Ways) -> Judged:
        """What becomes of the packets of a way."""
        is_open = self.has_questions or self.has_marks
        return Judged(ways, self.space, self.plain, is_open=is_open)

    def plain(self, packets: Packets) -> Packets:
        """The packets that are in a set for answers that go together, whatever these are."""
        if self.has_questions:
            packets = self.space.may(packets & self.valid)
        return self.space.free_of_marks(packets) if self.has_marks else packets

    def _valid(self) -> Packets:
        """Answers that go together: what is within a rate is within a wider one as well."""
        questions = [question for question, _ in self.space.asked()]
        found = self.space.everything
        for narrow, wide in permutations(questions, 2):
            if _implies(narrow, wide):
                holds, also = (self.space.answered(Condition(q)) for q in (narrow, wide))
                found -= holds - also
        return found


def _implies(narrow: Question, wide: Question) -> bool:
    match narrow, wide:
        case RateHolds(per_s, burst, per, family), RateHolds(per_s_2, burst_2, per_2, family_2):
            return (per, family) == (per_2, family_2) and per_s <= per_s_2 and burst <= burst_2
        case ConnectionsHold(count, per, family), ConnectionsHold(count_2, per_2, family_2):
            return (per, family) == (per_2, family_2) and count <= count_2
        case NotAfter(day, local), NotAfter(day_2, local_2):
            return local == local_2 and day <= day_2
        case _:
            return False


class _Way:
    """The comparison of one way: of first packets, or of all others."""

    def __init__(
        self,
        comparison: _Comparison,
        way: Way,
        old: Ways,
        new: Ways,
        domain: Packets,
        *,
        is_first: bool,
    ) -> None:
        self.comparison, self.space = comparison, comparison.space
        self.way, self.is_first, self.domain = way, is_first, domain
        self.plain_ones = comparison.honest[_PATHS[way]] if is_first else self._of_connections()
        self.old, self.new = comparison.judged(old), comparison.judged(new)
        self.differ = self.space.nothing
        if targets := comparison.targets:
            # What packets are sent on to is another machine, and none of these addresses its own.
            own = {Field.DADDR: targets, Field.DADDR_TYPE: Ranges.of(AddressType.LOCAL)}
            self.domain -= self.space.of(Cube.of(own))
        # What neither side lets pass, and one does not even route, is not worth an exception.
        if screened := self.old.screened | self.new.screened:
            never = screened & self.old.never & self.new.never
            self.domain -= self.space.free_of_marks(never)

    def _of_connections(self) -> Packets:
        """Packets of honest senders, whatever state they are in."""
        own = self.way is Way.OUTBOUND
        kind = AddressType.LOCAL if own else AddressType.UNICAST
        usual = {Field.SADDR_TYPE: Ranges.of(kind), Field.SOURCE_ROUTED: Ranges.of(0)}
        if not own:
            usual[Field.REVERSE_PATH] = Ranges.of(1)
        tcp = Ranges.of(TCP)
        no_tcp = Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - tcp})
        flags = Cube.of({Field.L4PROTO: tcp, Field.TCP_FLAGS: _FLAGS})
        return self.space.of(Cube.of(usual)) & self.space.of_all((no_tcp, flags))

    def told(self) -> list[Change]:
        """All changes; of the rest of the pieces nothing is kept, for there may be thousands."""
        found = list(self._changes())
        told = self.space.union(change.packets for change in found)
        for side in (self.old, self.new):
            side.keep(told)
        return found

    def _changes(self) -> Iterator[Change]:
        yield from self._verdicts()
        if self.is_first:
            yield from self._translations()
        yield from self._effects(old=self.old.ways.done, new=self.new.ways.done)

    # --- verdicts -----------------------------------------------------------------------------

    def _verdicts(self) -> Iterator[Change]:
        old, new, plain = self.old, self.new, self.comparison.plain
        gained, lost = new.accepted - old.accepted, old.accepted - new.accepted
        self.comparison.exact[self.way, self.is_first] = gained, lost
        more, less = plain(gained), plain(lost)
        both = old.sometimes & new.sometimes
        found = (
            (Kind.OPENED, old.never & new.may_pass, gained),
            (Kind.LOOSENED, (old.sometimes & new.always) | (both & (more - less)), gained),
            (Kind.TIGHTENED, (old.always & new.sometimes) | (both & (less - more)), lost),
            (Kind.RECONDITIONED, both & more & less, gained | lost),
            (Kind.CLOSED, old.may_pass & new.never, lost),
        )
        for _, packets, _ in found:
            self.differ |= packets
        if not self.is_first:
            self.comparison.invalid[self.way] = self.differ & self.space.of(_INVALID)
        as_first = self._as_first(self.differ)
        self._look_at(self.differ)
        for kind, packets, exact in found:
            yield from self._told(kind, packets - as_first, exact)
        yield from self._answers()

    def _answers(self) -> Iterator[Change]:
        """What is denied by both, and answered otherwise."""
        old, new = self._by_answer(self.old.ways), self._by_answer(self.new.ways)
        # By which way a translated packet leaves is not known: it may get one answer or another.
        nobody = self.space.nothing
        changed = self.space.union(
            old.get(answer, nobody) ^ new.get(answer, nobody) for answer in {*old, *new}
        )
        pairs = [
            (a & b & changed, was, is_)
            for was, a in old.items()
            for is_, b in new.items()
            if was != is_
        ]
        plain = [self.comparison.plain(packets) - self.differ for packets, _, _ in pairs]
        all_of_them = self.space.union(plain)
        as_first = self._as_first(all_of_them)
        self._look_at(all_of_them)
        for packets, (exact, _, _) in zip(plain, pairs, strict=True):
            yield from self._told(Kind.ANSWERED, packets - as_first, exact)

    def _by_answer(self, ways: Ways) -> dict[Answer | None, Packets]:
        groups: dict[Answer | None, list[Packets]] = {}
        for piece in ways.pieces:
            if piece.verdict is not Verdict.ACCEPTED:
                groups.setdefault(piece.answer, []).append(piece.packets)
        return {answer: self.space.union(sets) for answer, sets in groups.items()}

    def _look_at(self, packets: Packets) -> None:
        for side in (self.old, self.new):
            side.look_at(packets)

    def _as_first(self, packets: Packets, *, whatever_state: bool = False) -> Packets:
        """Of other packets, those that fare as first ones do, which is not told again.

        What is not admitted as part of a connection is read against the rules as those are. Of
        open connections that holds for echo requests alone, unless it is so `whatever_state`.
        """
        if self.is_first:
            return self.space.nothing
        first = packets & self.space.of(_NEW)
        alike = self.space.free(first, *GRANTED)
        if whatever_state:
            return alike
        return (alike & self.space.of_all(_READ_AS_FIRST)) | first

    def _told(self, kind: Kind, packets: Packets, exact: Packets) -> Iterator[Change]:
        """A change for each statement that makes the difference, on the side that has fewer.

        `exact` are the packets with the answers for which they fare otherwise.
        """
        for part, is_plain in self._in_two(packets):
            yield from self._by_statement(kind, part, exact, is_plain=is_plain)

    def _in_two(self, packets: Packets) -> Iterator[tuple[Packets, bool]]:
        """Packets of honest senders, and those others that do not fare as these do."""
        plain = packets & self.plain_ones
        if plain:
            yield plain, True
        if broken := packets - self.plain_ones:
            alike = self.space.free(plain, *GRANTED, Field.DADDR_TYPE, Field.IPSEC)
            if left := broken - alike:
                yield left, False

    def _by_statement(
        self, kind: Kind, packets: Packets, exact: Packets, *, is_plain: bool
    ) -> Iterator[Change]:
        exact &= packets
        best, other = (self._deciding(side, exact) for side in self._told_first(kind))
        groups = best.values()
        if len(other) < len(best) and not any(decider.is_default for decider in other):
            groups = other.values()
        left = packets
        for part in groups:
            if own := self.comparison.plain(part) & left:
                left -= own
                yield self._change(kind, own, exact & own, is_plain=is_plain)

    def _told_first(self, kind: Kind) -> tuple[Judged, Judged]:
        """The two sides, first the one whose statements tell the difference best."""
        if kind in (Kind.CLOSED, Kind.TIGHTENED):
            return self.old, self.new
        return self.new, self.old

    def _deciding(self, side: Judged, packets: Packets) -> dict[Decider, Packets]:
        """Packets by who decides them on a side."""
        groups: dict[Decider, list[Packets]] = {}
        for piece, common in side.meeting(packets):
            groups.setdefault(piece.decider, []).append(common)
        return {decider: self.space.union(parts) for decider, parts in groups.items()}

    # --- one change ---------------------------------------------------------------------------

    def _change(
        self, kind: Kind, packets: Packets, exact: Packets, *, is_plain: bool = True
    ) -> Change:
        """A change of packets; of those that pass on both sides it tells what lets them."""
        passes = kind not in (Kind.OPENED, Kind.CLOSED, Kind.ANSWERED)
        if kind is Kind.TRANSLATED:
            exact = self.space.nothing

        def show() -> Shown:
            before, old = self._fate(self.old, packets, exact, self.comparison.old, passes=passes)
            after, new = self._fate(self.new, packets, exact, self.comparison.new, passes=passes)
            cubes = (*new, *old)
            return self._shown(packets, before, after, cubes, is_plain=is_plain, exact=exact)

        return Change(kind, self.way, packets, show, is_first=self.is_first, is_plain=is_plain)

    def _shown(
        self,
        packets: Packets,
        before: Fate,
        after: Fate,
        hints: Iterable[Cube],
        *,
        is_plain: bool,
        exact: Packets | None = None,
    ) -> Shown:
        domain = self.domain & self.plain_ones if is_plain else self.domain
        example = example_of(packets, exact or packets)
        is_unsure = self._is_unsure(self.old, packets) or self._is_unsure(self.new, packets)
        region = region_of(packets, domain, hints)
        invalid = self.comparison.invalid.get(self.way, self.space.nothing)
        too = self.is_first and invalid.meets(self.space.free(packets, *GRANTED))
        return Shown(region, example, before, after, is_unsure, too and exact is not None)

    def _is_unsure(self, side: Judged, packets: Packets) -> bool:
        """Whether it depends on what is not understood how packets fare on a side."""
        undecided = side.accepted & side.sometimes & packets
        return any(isinstance(question, Unknown) for question in undecided.questions())

    def _fate(
        self, side: Judged, packets: Packets, exact: Packets, of: Side, *, passes: bool
    ) -> tuple[Fate, list[Cube]]:
        """What a side does with packets, and cubes in which its rules speak of them.

        With `passes` it is told what lets them pass, and on which conditions; where nothing of
        that asks any, also what denies those that differ.
        """
        met = list(dict.fromkeys(p for p, _ in side.meeting(packets if passes else exact)))
        pieces = [p for p in met if not passes or p.verdict is Verdict.ACCEPTED]
        verdicts, answers = {p.verdict for p in pieces}, {p.answer for p in pieces}
        sent, source = {p.sent for p in pieces}, {p.source for p in pieces}
        deciders = tuple(dict.fromkeys(_weighty(piece.decider for piece in pieces)))
        lines = of.lines_of(deciders[:MOST_DECIDERS])
        conditions = _asked(lines)
        always = not packets & side.sometimes
        if passes and not always and not conditions:
            denying = (p for p, _ in side.meeting(exact) if p.verdict is not Verdict.ACCEPTED)
            deniers = tuple(dict.fromkeys(_weighty(p.decider for p in denying)))
            asked = _asked(of.lines_of(deniers[:MOST_DECIDERS]))
            if {condition.question for condition in asked}:
                conditions = tuple(replace(c, holds=not c.holds) for c in asked[:MOST_NEGATED])
            deciders = (*deniers, *deciders)
        sources = (p.sourcer for p in pieces if p.sourcer is not None and len(source) == 1)
        senders = (p.sender for p in pieces if p.sender is not None)
        fate = Fate(
            verdicts.pop() if len(verdicts) == 1 else None,
            answers.pop() if len(answers) == 1 else None,
            always,
            sent.pop() if len(sent) == 1 else None,
            source.pop() if len(source) == 1 else None,
            (),
            conditions,
            tuple(dict.fromkeys((*deciders, *senders, *sources))),
        )
        translated = any(piece.sent is not None for piece in pieces)
        return fate, [] if translated else [cube for line in lines for cube in line.cubes]

    # --- translations -------------------------------------------------------------------------

    def _translations(self) -> Iterator[Change]:
        """What passes on both sides, and is sent elsewhere or leaves with another source."""
        both = (self.old.may_pass & self.new.may_pass) - self.differ
        for what in (_sent, _source):
            old, new = self._by(what, self.old, both), self._by(what, self.new, both)
            same = self.space.union(old[act] & new[act] for act in old.keys() & new.keys())
            differ = both - same
            for was, before in old.items():
                for becomes, after in new.items():
                    if was != becomes and (packets := before & after & differ):
                        for part, is_plain in self._in_two(packets):
                            yield self._change(Kind.TRANSLATED, part, part, is_plain=is_plain)
                        differ -= packets

    def _by(
        self, what: Callable[[Piece], Hashable], side: Judged, within: Packets
    ) -> dict[Hashable, Packets]:
        groups: dict[Hashable, list[Packets]] = {}
        for piece in side.ways.pieces:
            if piece.verdict is Verdict.ACCEPTED:
                groups.setdefault(what(piece), []).append(piece.packets)
        found = {
            act: self.comparison.plain(self.space.union(sets)) & within
            for act, sets in groups.items()
        }
        return {act: packets for act, packets in found.items() if packets}

    # --- all else that is done ----------------------------------------------------------------

    def _effects(self, old: tuple[Met, ...], new: tuple[Met, ...]) -> Iterator[Change]:
        """What is logged, marked, put into sets and so on, of packets that fare alike."""
        for one in exchanges(old, new, self.space, self._alike):
            both = [done for done in (one.new, one.old) if done is not None]
            hints = [cube for done in both for line in done.lines for cube in line.cubes]
            before, after = (Fate() if d is None else d.fate for d in (one.old, one.new))
            for part, is_plain in self._in_two(one.packets):
                show = partial(self._shown, part, before, after, hints, is_plain=is_plain)
                first = self.is_first
                yield Change(one.kind, self.way, part, show, is_first=first, is_plain=is_plain)

    def _alike(self, packets: Packets) -> Packets:
        """Of packets, those whose verdict is the same on both sides, as far as that is told here.

        Those that were translated are told otherwise than those that `differ`: they all stay.
        """
        plain = self.comparison.plain(packets) - self.differ
        return plain - self._as_first(plain, whatever_state=True)


def _sent(piece: Piece) -> Hashable:
    return piece.sent


def _source(piece: Piece) -> Hashable:
    return piece.source


def _weighty(deciders: Iterable[Decider]) -> Iterator[Decider]:
    """Statements before defaults: these decide what no statement does."""
    found = list(deciders)
    yield from (one for one in found if not one.is_default)
    yield from (one for one in found if one.is_default)


def _asked(lines: Iterable[Line]) -> tuple[Condition, ...]:
    """What lines ask before they judge."""
    return tuple(dict.fromkeys(c for line in lines if _judges(line) for c in line.conditions))


def _judges(line: Line) -> bool:
    """Whether a line's conditions are those of a verdict, and not those of a log say."""
    return isinstance(line.act, ir.Jump | ir.Accept | ir.Drop | ir.Reject | ir.Queue | Translation)


MOST_DECIDERS = 8
MOST_NEGATED = 2  # of both families: what several conditions let pass is none of them by itself
_MARKING = {ir.SetMark, ir.SetConnectionMark, TransparentProxy, CopyMark}
BEGIN = Cube.of(
    {
        Field.CT_STATE: Ranges.of(State.NEW),
        Field.CT_DIRECTION: Ranges.of(FlowDirection.ORIGINAL),
        Field.DNATED: Ranges.of(0),
    }
)
_NEW = Cube.of({Field.CT_STATE: Ranges.of(State.NEW)})
_NOT_OPEN = Ranges.of(State.RELATED, State.INVALID, State.UNTRACKED)
_INVALID = Cube.of({Field.CT_STATE: Ranges.of(State.INVALID)})
_READ_AS_FIRST = (
    Cube.of({Field.CT_STATE: _NOT_OPEN}),
    Cube.of({Field.ICMP_TYPE: Ranges.of(8)}),
    Cube.of({Field.ICMPV6_TYPE: Ranges.of(128)}),
)
_PATHS = {Way.INBOUND: Path.INPUT, Way.FORWARD: Path.FORWARD, Way.OUTBOUND: Path.OUTPUT}
# Of what follows a handshake (RFC 9293): ACK, with or without PSH, URG, FIN; resets; SYN-ACK.
_FLAGS = Ranges.of(0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18, 0x19)
