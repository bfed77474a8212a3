"""Sets of packets as decision diagrams; the only module that knows the library that holds them.

A packet is a row of bits: its fields, the words that are no field (marks, owner, time of the
week), and a bit for each question that nothing here can answer. A set of packets is a Boolean
function of them, held as a binary decision diagram: two sets are equal exactly if their diagrams
are one node, however they came about. It knows neither policies nor targets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import reduce
from operator import and_, or_

from oxidd.bcdd import BCDDFunction, BCDDManager, BCDDSubstitution
from oxidd.util import DDMemoryError

from policylang.analysis.layout import (
    CT_MARK,
    DIALLED_APART,
    GROUP,
    LOCAL_WEEK_S,
    MARK,
    MARK_BEFORE,
    MARKS,
    UNANSWERED,
    USER,
    V4_BITS,
    WEEK_S,
    Layout,
)
from policylang.analysis.machine import (
    Condition,
    ConnectionMarkIs,
    MarkIs,
    OwnerIs,
    Question,
    WeekTimeIs,
)
from policylang.analysis.ordinary import ORDINARY, ending_as_asked, ordinary_values
from policylang.analysis.taking_apart import taken_apart
from policylang.ir.ruleset import HostSuffix
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    UNIVERSE,
    Field,
)
from policylang.packets.packetset import compact
from policylang.packets.values import V4_MAX, V6_BASE, Range, Ranges

MOST_NODES = 6_000_000  # of 16 bytes and a share of two tables each: about 250 MB
CACHE_ENTRIES = 1 << 19
MOST_COPIES = 64


class TooLargeError(Exception):
    """The sets of packets do not fit into the memory that an answer may take."""


class Packets:
    """A set of packets of one `Space`; what says nothing of a field holds all its values."""

    __slots__ = ("function", "space")

    def __init__(self, space: Space, function: BCDDFunction) -> None:
        self.space = space
        self.function = function

    def __and__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function & other.function)

    def __or__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function | other.function)

    def __sub__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function & ~other.function)

    def __invert__(self) -> Packets:
        return self.space.everything - self

    def __xor__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function ^ other.function)

    def __bool__(self) -> bool:
        return bool(self.function.satisfiable())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packets) and bool(self.function == other.function)

    def __hash__(self) -> int:
        return hash(self.function)

    @property
    def share(self) -> float:
        """How much of all that there can be it is, of 1; each family is a half."""
        bits = self.space.bits
        return float(self.function.sat_count_float(bits)) * 2.0**-bits

    def covers(self, other: Packets) -> bool:
        return not (other - self)

    def meets(self, other: Packets) -> bool:
        return bool(self & other)

    def cubes(self, most: int | None = None) -> Iterator[Cube]:
        """Disjoint cubes that make up the set, `most` of them at most; open questions left out.

        A packet that belongs to the set for some answers is in them.
        """
        left = most
        for family in (4, 6):
            if left == 0:
                return
            part = self.space.may(self & self.space.of(Cube.of({Field.FAMILY: Ranges.of(family)})))
            for cube in self.space.cubes_of(part, family):
                yield cube
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    def regions(self, most: int) -> tuple[tuple[Cube, ...], bool]:
        """Few cubes with the set's packets, and whether these are all of them.

        Not more than `most` are taken apart; what is left of those that differ in one field alone
        is put together again, both families into one.
        """
        found = list(self.cubes(most + 1))
        return compact(found[:most]), len(found) <= most

    def questions(self) -> tuple[Question, ...]:
        """The open questions on which it depends whether a packet is in the set."""
        return tuple(
            question
            for question, one in self.space.asked()
            if self.space.without(self, one) != self
        )

    def witness(self, prefer: Iterable[Cube] = ()) -> dict[Field, int] | None:
        """One packet of the set, as much as can be like an ordinary one; None of an empty set.

        Each of `prefer` is met where that can be, the first before the others. The fields of
        addresses, ports and types are those that the packet's family and protocol have.
        """
        if not self:
            return None
        left = self.space.may(self)
        for cube in (*prefer, *ORDINARY):
            near = left & self.space.of(cube)
            if near:
                left = near
        cube = next(left.cubes(1))
        return ending_as_asked(ordinary_values(cube), cube, self.space.suffixes)


class Space:
    """Packets as rows of bits. Sets of one space can be put together, those of two cannot."""

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self._manager = BCDDManager(most_nodes, CACHE_ENTRIES, 1)
        self._layout = Layout()
        self._width, self._variables = self._layout.width, self._layout.variables
        self._manager.add_vars(self._layout.count)
        self._bits = [self._manager.var(n) for n in range(self._layout.count)]
        self._true, self._false = self._manager.true(), self._manager.false()
        self._held: dict[tuple[Field | str, Ranges], BCDDFunction] = {}
        self._cubes: dict[Cube, Packets] = {}
        self._conjunctions: dict[tuple[Field | str, ...], BCDDFunction] = {}
        self._questions: dict[Hashable, tuple[Question, BCDDFunction]] = {}
        dialled, apart = self._variables[Field.ORIG_DPORT], self._variables[DIALLED_APART]
        exchange = zip(dialled, (self._bits[n] for n in apart), strict=True)
        self._apart = BCDDSubstitution(list(exchange))
        self._shadows: dict[Field, range] = {}
        self.suffixes: dict[Field, HostSuffix] = {}  # that tests ask for, for who shows a packet
        self._open = self._conjunction(UNANSWERED)
        self.nothing = Packets(self, self._false)
        everything = self._true
        for f in (Field.CT_STATE, Field.DADDR_TYPE, Field.SADDR_TYPE):
            everything = everything & self._word(f, UNIVERSE[f])
        self.everything = Packets(self, everything)

    def held(self, made: Callable[[], BCDDFunction]) -> Packets:
        """What `made` returns, as packets; raises `TooLargeError` where it does not fit.

        The library clears away what nobody holds any more in a thread of its own, which may be too
        late where it has no processor to itself.
        """
        try:
            return Packets(self, made())
        except DDMemoryError:
            self._manager.gc()
        try:
            return Packets(self, made())
        except DDMemoryError as error:
            raise TooLargeError from error

    @property
    def bits(self) -> int:
        """How many bits a packet has by now."""
        return int(self._manager.num_vars())

    # --- making -------------------------------------------------------------------------------

    def of(self, cube: Cube) -> Packets:
        """The packets of a cube."""
        found = self._cubes.get(cube)
        if found is None:
            found = self._cubes[cube] = self.held(lambda: self._cube(cube))
        return found

    def of_all(self, cubes: Iterable[Cube]) -> Packets:
        """The packets of any of the cubes."""
        return self.union(self.of(cube) for cube in cubes)

    def union(self, sets: Iterable[Packets]) -> Packets:
        """The packets of any of the sets; in halves, which keeps what is between them small."""
        waiting = list(sets)
        while len(waiting) > 1:
            waiting = [reduce(or_, waiting[n : n + 2]) for n in range(0, len(waiting), 2)]
        return waiting[0] if waiting else self.nothing

    def answered(self, condition: Condition, at: str = "") -> Packets:
        """The packets for which a condition holds.

        Marks, owners and times of the week are words of the packet; other questions are a bit
        each, the same for all that ask the same at the same place `at`.
        """
        made = self.held(lambda: self._asked_for(condition.question, at))
        return made & self.everything if condition.holds else ~made

    def _asked_for(self, question: Question, at: str) -> BCDDFunction:
        match question:
            case MarkIs(value, mask):
                return self._masked(MARK, value, mask)
            case ConnectionMarkIs(value, mask):
                return self._masked(CT_MARK, value, mask)
            case OwnerIs(kind, ids):
                return self._word(USER if kind == "user" else GROUP, ids)
            case WeekTimeIs(week_s, is_local):
                return self._word(LOCAL_WEEK_S if is_local else WEEK_S, week_s)
            case _:
                return self._question(question, at)

    def _question(self, question: Question, at: str) -> BCDDFunction:
        key = (question, at)
        if key not in self._questions:
            (number,) = self._manager.add_vars(1)
            bit = self._manager.var(number)
            self._bits.append(bit)
            self._questions[key] = question, bit
            self._open = self._open & bit
        return self._questions[key][1]

    def asked(self) -> Iterator[tuple[Question, BCDDFunction]]:
        """The questions that are a bit each, so far, and their bits."""
        yield from self._questions.values()

    # --- changing -----------------------------------------------------------------------------

    def may(self, packets: Packets) -> Packets:
        """Packets that are in the set for some answer to every open question."""
        return self.held(lambda: packets.function.exists(self._open))

    def must(self, packets: Packets) -> Packets:
        """Packets that are in the set whatever the answers are."""
        return self.held(lambda: packets.function.forall(self._open))

    def without(self, packets: Packets, bit: BCDDFunction) -> Packets:
        """The set with one question left out."""
        return self.held(lambda: packets.function.exists(bit))

    def free(self, packets: Packets, *fields: Field) -> Packets:
        """The set with nothing said of some fields."""
        cube = self._conjunction(fields)
        return self.held(lambda: packets.function.exists(cube)) & self.everything

    def assigned(self, packets: Packets, values: Mapping[Field, Ranges]) -> Packets:
        """The packets after some of their fields became any of these values."""
        return self.free(packets, *values) & self.of(Cube.of(values))

    def with_mark(self, packets: Packets, value: int, mask: int) -> Packets:
        """The packets after their mark got `value` under `mask`."""
        return self._marked(packets, MARK, value, mask)

    def with_connection_mark(self, packets: Packets, value: int, mask: int) -> Packets:
        """The packets after their connection's mark got `value` under `mask`."""
        return self._marked(packets, CT_MARK, value, mask)

    def remembering(self, packets: Packets, what: Field | None) -> Packets:
        """The packets, each with what a field (None: its mark) is now kept beside it.

        For fields of few bits.
        """
        pairs = zip(*self._with_shadow(what), strict=True)
        relation = reduce(and_, (self._bits[one].equiv(self._bits[other]) for one, other in pairs))
        return self.held(lambda: packets.function & relation)

    def recalling(self, packets: Packets, what: Field | None) -> Packets:
        """The packets with a field (None: their mark) as it was kept, whatever it became."""
        own, shadow = self._with_shadow(what)
        changed = self._conjunction((what or MARK,))
        pairs = [(other, self._bits[one]) for one, other in zip(own, shadow, strict=True)]
        exchange = BCDDSubstitution(pairs)
        return self.held(lambda: packets.function.exists(changed).substitute(exchange))

    def _with_shadow(self, what: Field | None) -> tuple[range, range]:
        """The variables of a field or the mark, and those that keep what it was."""
        if what is None:
            return self._variables[MARK], self._variables[MARK_BEFORE]
        if what not in self._shadows:
            added = self._manager.add_vars(self._width[what])
            self._bits += (self._manager.var(n) for n in added)
            self._shadows[what] = added
        return self._variables[what], self._shadows[what]

    def free_of_marks(
        self, packets: Packets, *, of_packet: bool = True, of_connection: bool = True
    ) -> Packets:
        """The set with nothing said of the packet's mark, its connection's, or both."""
        words = (MARK,) * of_packet + (CT_MARK,) * of_connection
        cube = self._conjunction(words)
        return self.held(lambda: packets.function.exists(cube))

    def _marked(self, packets: Packets, word: str, value: int, mask: int) -> Packets:
        bits = [b for n, b in self._word_bits(word) if mask >> n & 1]
        if not bits:
            return packets
        changed = reduce(and_, bits)
        made = self._masked(word, value, mask)
        return self.held(lambda: packets.function.exists(changed) & made)

    def copied_mark(self, packets: Packets, mask: int, *, to_connection: bool) -> Packets:
        """The packets after one of the two marks got the other's bits under `mask`."""
        source, target = (MARK, CT_MARK) if to_connection else (CT_MARK, MARK)
        pairs = zip(self._word_bits(source), self._word_bits(target), strict=True)
        wanted = [(one, other) for (n, one), (_, other) in pairs if mask >> n & 1]
        if not wanted:
            return packets
        changed = reduce(and_, (other for _, other in wanted))
        relation = reduce(and_, (one.equiv(other) for one, other in wanted))
        return self.held(lambda: packets.function.exists(changed) & relation)

    def moved(self, packets: Packets, source: Field, target: Field) -> Packets:
        """The packets with a field's value in another field; what was there is lost.

        The first field may have any value then. Both are of one kind.
        """
        freed = self.free(packets, target)
        aim = (self._bits[n] for n in self._variables[target])
        pairs = list(zip(self._variables[source], aim, strict=True))
        exchange = BCDDSubstitution(pairs)
        return self.held(lambda: freed.function.substitute(exchange))

    def copied(self, packets: Packets, source: Field, target: Field) -> Packets:
        """The packets with a field's value in another field as well; both are of one kind.

        What was there is lost. For fields of few bits that stand beside each other.
        """
        freed = self.free(packets, target)
        values = self.values(freed, source)
        single = [Ranges.of(low) for low, high in values if low == high]
        if len(single) == len(values) <= MOST_COPIES:
            same = (self._word(source, one) & self._word(target, one) for one in single)
            relation = reduce(or_, same, self._false)
        else:
            bits = zip(self._variables[source], self._variables[target], strict=True)
            relation = reduce(and_, (self._bits[a].equiv(self._bits[b]) for a, b in bits))
        return self.held(lambda: freed.function & relation)

    def values(self, packets: Packets, f: Field) -> Ranges:
        """The values that a field has among the packets; of addresses those of both families."""
        kept = {f, Field.FAMILY} if f in ADDRESS_FIELDS else {f}
        others = self._conjunction(word for word in self._width if word not in kept)
        alone = self.may(self.held(lambda: packets.function.exists(others)))
        return Ranges.merged(pair for cube in alone.cubes() for pair in cube[f])

    def with_prefix(self, packets: Packets, f: Field, prefix: Range) -> Packets:
        """The packets after the high bits of an address became those of a whole prefix.

        They are all of its family.
        """
        low, high = prefix
        bits = V4_BITS if high <= V4_MAX else self._width[f]
        told = bits - (high - low).bit_length()
        if not told:
            return packets
        changed = reduce(and_, (self._bits[n] for n in self._variables[f][:told]))
        made = self._word(f, Ranges((prefix,)))
        return self.held(lambda: packets.function.exists(changed) & made)

    # --- taking apart -------------------------------------------------------------------------

    def cubes_of(self, packets: Packets, family: int) -> Iterator[Cube]:
        """Disjoint cubes of a set whose packets are all of one family."""
        beside = self._conjunction(MARKS)
        for shadow in self._shadows.values():
            beside = reduce(and_, (self._bits[n] for n in shadow), beside)
        terms = {Field.FAMILY: Ranges.of(family)}
        all_of_it = self.of(Cube.of(terms)).function
        told = self.held(lambda: (packets.function & all_of_it).exists(beside))
        function = told.function.substitute(self._apart)
        children = function.cofactors()  # by FAMILY, the first variable
        if children is not None:
            function = children[0 if family == 6 else 1]
            yield from taken_apart(function, self._layout, terms)

    # --- bits ---------------------------------------------------------------------------------

    def _cube(self, cube: Cube) -> BCDDFunction:
        function = self._true
        for f, values in sorted(cube, key=lambda term: -self._variables[term[0]].start):
            function = self._word(f, values) & function
        return function & self.everything.function

    def _word(self, word: Field | str, values: Ranges) -> BCDDFunction:
        key = (word, values)
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = self._made(word, values)
        return found

    def _made(self, word: Field | str, values: Ranges) -> BCDDFunction:
        variables = self._variables[word]
        is_6 = self._bits[self._variables[Field.FAMILY].start]
        if word is Field.FAMILY:
            of_each = ((is_6 if family == 6 else ~is_6) for family in (4, 6) if family in values)
            return reduce(or_, of_each, self._false)
        if word in ADDRESS_FIELDS:
            v4 = tuple(pair for pair in values if pair[0] <= V4_MAX)
            v6 = tuple((low - V6_BASE, high - V6_BASE) for low, high in values if low >= V6_BASE)
            return is_6.ite(self._block(variables, v6), self._block(variables[:V4_BITS], v4))
        return self._block(variables, values.pairs)

    def _block(self, variables: range, pairs: tuple[Range, ...]) -> BCDDFunction:
        """The numbers that these bits make up, in sorted ranges."""
        width = len(variables)
        highs = [high for _, high in pairs]
        lows = [low for low, _ in pairs]

        def within(low: int, bit: int) -> BCDDFunction:
            """Of the numbers from `low` that differ in the bits from `bit` on."""
            high = low + (1 << (width - bit)) - 1
            first = bisect_left(highs, low)
            if first == len(pairs) or lows[first] > high:
                return self._false
            if lows[first] <= low and highs[first] >= high:
                return self._true
            middle = (low + high + 1) // 2
            return self._bits[variables[bit]].ite(within(middle, bit + 1), within(low, bit + 1))

        return within(0, 0)

    def _word_bits(self, word: str) -> list[tuple[int, BCDDFunction]]:
        """The bits of a word by the power of two that they stand for."""
        width = self._width[word]
        return [(width - 1 - n, self._bits[v]) for n, v in enumerate(self._variables[word])]

    def _masked(self, word: str, value: int, mask: int) -> BCDDFunction:
        function = self._true
        if value & ~mask:
            return self._false
        for n, bit in reversed(self._word_bits(word)):
            if mask >> n & 1:
                function = (bit if value >> n & 1 else ~bit) & function
        return function

    def _conjunction(self, words: Iterable[Field | str]) -> BCDDFunction:
        """All bits of some words together, which is how the library is told of variables."""
        key = tuple(words)
        found = self._conjunctions.get(key)
        if found is None:
            found = self._true
            for number in sorted((v for word in key for v in self._variables[word]), reverse=True):
                found = self._bits[number] & found
            self._conjunctions[key] = found
        return found
